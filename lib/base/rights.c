/* SPDX-License-Identifier: MIT
 *
 * Acting as the spool's owner: the state directory and what lies in it are the mail user's, who could put links in the
 * way of a root process.  So root makes and opens files there with the owner's rights: for files alone, for this
 * thread, and by the system call itself, which no wrapper sees.
 */
#include "base/rights.h"

#include <sys/syscall.h>
#include <unistd.h>

struct rights rights_of_owner(uid_t owner, gid_t group)
{
    struct rights rights = {.lent = geteuid() == 0 && owner != 0};

    if (rights.lent) {
        rights.gid = (gid_t)syscall(SYS_setfsgid, group);
        syscall(SYS_setfsuid, owner);
    }
    return rights;
}

void rights_back(struct rights rights)
{
    if (rights.lent) {
        syscall(SYS_setfsuid, 0);
        syscall(SYS_setfsgid, rights.gid);
    }
}

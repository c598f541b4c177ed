/* SPDX-License-Identifier: MIT
 *
 * Acting as the spool's owner.
 *
 * The mail user owns the state directory, and could plant links there for a root process to follow.  So root creates
 * and opens files there with the owner's rights.  setfsuid(2) changes file access alone, and this thread alone.  It is
 * a raw system call here, so the preloaded library's wrappers do not see it.
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

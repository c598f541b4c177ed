/* SPDX-License-Identifier: MIT
 *
 * Acting as the spool's owner: for files alone, or for good.
 */
#ifndef FASTSPOOL_RIGHTS_H
#define FASTSPOOL_RIGHTS_H

#include <stdbool.h>
#include <sys/types.h>

struct rights {
    bool lent;
    gid_t gid; /* the file system gid to restore */
};

/** Until rights_back(), a thread of root opens and creates files with the owner's rights.  Another user's rights do not
 *  change.  No signal handler may run in between. */
struct rights rights_of_owner(uid_t owner, gid_t group);
void rights_back(struct rights rights);

/** Have @uid as the real, effective and saved uid, for good.  Checks that the kernel has done it, and that there is no
 *  way back to root: -EPERM.  Whoever gets an error must end.  This thread alone: call it where there is one. */
int rights_settle(uid_t uid);
/** The same for a process of root's, with @gid as its gids and its only group. */
int rights_become(uid_t uid, gid_t gid);

/** In a child of a process that may be root's: keep the rights that rights_of_owner() has lent, and no others, in a
 * session without a terminal.  Its standard streams are /dev/null, but @out becomes the second one (-1: it doesn't),
 * and no other descriptor stays open.  It ends with @parent.  0, or -errno: the child must end. */
int rights_confine(pid_t parent, int out);

/** Has this thread the right to mount (CAP_SYS_ADMIN)? */
bool rights_may_mount(void);

#endif

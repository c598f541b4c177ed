/* SPDX-License-Identifier: MIT
 *
 * Acting as the spool's owner, for files alone.
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

#endif

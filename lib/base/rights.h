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
    gid_t gid; /* to go back to */
};

/** Root opens and makes files with the owner's rights until rights_back(); another user's rights stay as they are.  For
 *  this thread.  No signal handler may run in between. */
struct rights rights_of_owner(uid_t owner, gid_t group);
void rights_back(struct rights rights);

#endif

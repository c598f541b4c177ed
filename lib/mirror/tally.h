/* SPDX-License-Identifier: MIT
 *
 * A tally of what lies on the disk of a spool that has no store in memory.
 */
#ifndef FASTSPOOL_TALLY_H
#define FASTSPOOL_TALLY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** Does a file of this name count? */
typedef bool tally_which(const char *name);

struct tally {
    uint64_t names; /* that count, in the database */
    bool more;      /* the journal has changes that the database lacks: it may be more, or fewer */
};

/** Count in the state directory @state of the user @owner and @group.  It changes nothing, and reads no mail.  0; or a
 *  negative errno: it can't be said.  LMDB is opened in a child of this process, which has the owner's rights. */
int tally_disk(const char *state, uid_t owner, gid_t group, tally_which *which, struct tally *tally);

#endif

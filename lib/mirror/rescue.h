/* SPDX-License-Identifier: MIT
 *
 * Rescue: all that memory has goes to the disk anew, where the journal has lost what it held.  For the committer.
 */
#ifndef FASTSPOOL_RESCUE_H
#define FASTSPOOL_RESCUE_H

#include "fastspool.h"

#include <stdbool.h>

struct journal;
struct shared_database;

/** A sentence about a state directory. */
#define RESCUE_WAITS                                                                                                 \
    "in %s the journal or the database is gone, and memory alone has what it held: mount its disk, or put it back; " \
    "if it is lost for good, `fastspool flush --anew` writes all that is in memory to the disk anew"

/** Look whether something of the state is gone.  If not, forget what the operator has said (PLACES_ANEW).  Once a
 *  second. */
void rescue_look(struct journal *journal, struct shared_database *shared);

/** Is what is gone surely lost, as its directory is there, or as the operator has said so (PLACES_ANEW)? */
bool rescue_may(const struct fastspool *fs, const struct journal *journal);

/** Write the whole store into the database, and begin the journal anew behind it.  No checkpoint may run.  0; or a
 *  negative errno with a sentence: the disk is as it was; -ESTALE: rescue_may() is false, or the database lacks what
 *  memory does not have. */
int rescue_run(struct fastspool *fs, struct journal *journal, struct shared_database *shared,
               char error[FASTSPOOL_ERROR_MAX]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Verification: is all that lies on the disk as it must be?  It changes nothing, on the disk or in memory.
 */
#ifndef FASTSPOOL_VERIFY_H
#define FASTSPOOL_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct findings;

/** What was looked at. */
struct verified {
    bool database; /* there is one */
    uint64_t inodes;
    uint64_t names;
    uint64_t slices;
    uint64_t bytes;   /* of the slices */
    uint64_t batch;   /* the last one in the database */
    uint64_t files;   /* of the journal */
    uint64_t batches; /* that a recovery would read */
    uint64_t records;
    uint64_t last;    /* the last batch that counts */
    uint64_t evicted; /* files of the memory whose data the database must hold */
};

/** Verify the database and the journal below STATE, @state, and that the database holds what is evicted in @snapshot of
 *  @fs; both NULL: there is no store in memory.  What is wrong is added to @findings.  0, or a negative errno: there
 *  was no look.  LMDB is opened in a child of this process, not in this one. */
int verify_disk(const char *state, const struct fastspool *fs, const struct fastspool *snapshot,
                struct verified *verified, struct findings *findings);

#endif

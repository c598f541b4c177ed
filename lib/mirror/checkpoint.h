/* SPDX-License-Identifier: MIT
 *
 * Checkpoints: from the journal to the database.
 */
#ifndef FASTSPOOL_CHECKPOINT_H
#define FASTSPOOL_CHECKPOINT_H

#include "fastspool.h"
#include "mirror/journal_scan.h"

#include <lmdb.h>
#include <stdint.h>

struct database;
struct ends;
struct journal;

/** Told of an inode that is put.  Negative: the checkpoint ends with this error. */
typedef int checkpoint_touched(void *context, uint32_t inode);

/** What to apply, and what was found. */
struct checkpoint {
    struct database *database;
    MDB_txn *transaction;        /* the caller's to commit or to abort */
    int directory;               /* STATE/journal */
    uint64_t upto;               /* the last batch to apply */
    struct disk_meta *meta;      /* what the database holds: before, and then after */
    struct ends *ends;           /* in these batches, as far as they are known; then all of them */
    checkpoint_touched *touched; /* may be NULL */
    void *context;
    struct journal_found found;
};

/** Apply every batch in (meta->batch, upto] of the journal, and move *meta there.  What was made and removed again
 *  within them is left out.  0, or a negative errno with a sentence: the transaction must be aborted. */
int checkpoint_apply(struct checkpoint *checkpoint, char error[FASTSPOOL_ERROR_MAX]);

/** A checkpoint: all that is durable in the journal goes to the database, header.residency.checkpointed says up to
 *  which change, and the journal's space is free again.  0, or a negative errno with a sentence: database and journal
 *  are as they were, and the database must be closed.  One thread at a time; commits may go on. */
int checkpoint_run(struct database *database, struct journal *journal, char error[FASTSPOOL_ERROR_MAX]);

#endif

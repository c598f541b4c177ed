/* SPDX-License-Identifier: MIT
 *
 * Checkpoint: from the journal to the database.
 *
 * The happy path: a first scan of the batches finds which inodes end in them.  A second one applies the records, but
 * none of an inode that ends later: a message that came and went between two checkpoints never reaches the database.
 * One transaction holds all of it, and the number of the last batch: a checkpoint is one instant of the spool, as a
 * batch is.
 *
 * It reads the journal, not the store.  So it may take as long as the disk needs, and holds neither memory of the store
 * nor its lock; and a new mirror finds in the same place what a dead one had not yet applied.
 *
 * Failure modes:
 *  - Any error leaves database and journal as they are.
 *  - Durable batches that cannot be read, or a hole in their chain: -EIO.  A checkpoint with a hole in it would be a
 *    loss for ever.  The next commit writes all of it anew (rescue.c).
 */
#include "mirror/checkpoint.h"

#include "base/error.h"
#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/format.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/journal_scan.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

/* Where an inode ended for the last time. */
struct end {
    uint32_t inode;
    uint64_t position; /* the record's, counted over all batches */
    UT_hash_handle hh;
};

struct passage {
    const struct checkpoint *checkpoint;
    struct end *ends;
    uint64_t position; /* of a record, counted over all batches */
    uint32_t root;
    char *error;
};

static int for_each(const char *records, size_t size, struct passage *passage,
                    int (*each)(struct passage *, const struct record *, const void *))
{
    const char *at = records;
    struct record record;
    const void *value;
    int result;

    while ((result = format_next(&at, records + size, &record, &value)) > 0) {
        passage->position++;
        result = each(passage, &record, value);
        if (result < 0)
            return result;
    }
    return result;
}

static int note_end(struct passage *passage, const struct record *record, const void *value)
{
    struct end *end;

    (void)value;
    if (record->kind != RECORD_GONE)
        return 0;
    HASH_FIND(hh, passage->ends, &record->inode, sizeof(record->inode), end);
    if (!end) {
        end = calloc(1, sizeof(*end));
        if (!end)
            return -ENOMEM;
        end->inode = record->inode;
        HASH_ADD(hh, passage->ends, inode, sizeof(end->inode), end);
    }
    end->position = passage->position;
    return 0;
}

static int apply(struct passage *passage, const struct record *record, const void *value)
{
    const struct checkpoint *checkpoint = passage->checkpoint;
    struct end *end;

    HASH_FIND(hh, passage->ends, &record->inode, sizeof(record->inode), end);
    if (end && passage->position < end->position)
        return 0;
    if (checkpoint->touched && record->kind == RECORD_INODE) {
        int result = checkpoint->touched(checkpoint->context, record->inode);
        if (result < 0)
            return result;
    }
    return database_apply(checkpoint->database, checkpoint->transaction, record, value, passage->error);
}

static int visit_ends(void *context, const struct journal_batch *batch)
{
    return for_each(batch->records, batch->size, context, note_end);
}

static int visit_records(void *context, const struct journal_batch *batch)
{
    struct passage *passage = context;

    passage->root = batch->root;
    return for_each(batch->records, batch->size, passage, apply);
}

static void forget_ends(struct passage *passage)
{
    struct end *end, *next;

    HASH_ITER (hh, passage->ends, end, next) {
        HASH_DELETE(hh, passage->ends, end);
        free(end);
    }
}

int checkpoint_apply(struct checkpoint *checkpoint, char error[FASTSPOOL_ERROR_MAX])
{
    struct disk_meta *meta = checkpoint->meta;
    struct passage passage = {.checkpoint = checkpoint, .root = (uint32_t)meta->root, .error = error};
    struct journal_scan scan = {
        .above = meta->batch, .upto = checkpoint->upto, .visit = visit_ends, .context = &passage};

    error[0] = '\0';
    int result = journal_scan(checkpoint->directory, &scan, &checkpoint->found);
    passage.position = 0;
    scan.visit = visit_records;
    if (result == 0)
        result = journal_scan(checkpoint->directory, &scan, &checkpoint->found);
    forget_ends(&passage);
    meta->root = passage.root;
    meta->batch = checkpoint->found.last;
    if (result < 0 && error[0] == '\0')
        error_set(error, result, "read the journal: %s", strerrordesc_np(-result));
    return result;
}

/* Durable batches cannot be read: say where and why. */
static int lost(const struct journal_found *found, char error[FASTSPOOL_ERROR_MAX])
{
    const struct journal_end *end = found->missing ? &found->hole : &found->end;

    return error_set(error, -EIO,
                     "read the journal: a durable batch after %llu can't be read back: file %04u ends at byte %llu: %s",
                     (unsigned long long)(found->missing ? found->hole_after : found->last), end->file,
                     (unsigned long long)end->offset, journal_scan_reason(end->reason));
}

int checkpoint_run(struct database *database, struct journal *journal, char error[FASTSPOOL_ERROR_MAX])
{
    const struct journal_point point = journal_files_point(&journal->pool);
    struct disk_meta meta;
    struct checkpoint checkpoint = {
        .database = database, .directory = journal->pool.directory, .upto = point.number, .meta = &meta};
    const struct journal_found *found = &checkpoint.found;
    int result = database_begin(database, &checkpoint.transaction, &meta, error);

    if (result < 0)
        return result;
    result = checkpoint_apply(&checkpoint, error);
    if (result == 0 && (found->detached || found->missing || found->last != point.number)) {
        journal_files_lose(&journal->pool);
        result = lost(found, error);
    }
    if (result < 0) {
        mdb_txn_abort(checkpoint.transaction);
        return result;
    }
    result = database_commit(database, checkpoint.transaction, &meta, error);
    if (result == 0) {
        STORE(journal->pool.fs->header->residency.checkpointed, point.ticket);
        journal_files_release(&journal->pool, point, database_free_bytes(database));
    }
    return result;
}

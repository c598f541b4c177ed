/* SPDX-License-Identifier: MIT
 *
 * Checkpoint: from the journal to the database.
 *
 * The happy path: a scan of the batches applies their records, but none of an inode that ends in a later batch: a
 * message that came and went between two checkpoints never reaches the database.  Which inodes end in which batch this
 * mirror has noted when it wrote them (ends.h).  Where it has not, as those of the mirror before it, or of all batches
 * in a recovery, a scan before that one finds them.  One transaction holds all of it, and the number of the last batch:
 * a checkpoint is one instant of the spool, as a batch is.
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
#include "mirror/ends.h"
#include "mirror/format.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/journal_scan.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct passage {
    const struct checkpoint *checkpoint;
    const struct journal_batch *batch; /* that is visited */
    uint32_t root;
    char *error;
};

static int for_each(struct passage *passage, int (*each)(struct passage *, const struct record *, const void *))
{
    const char *at = passage->batch->records, *end = at + passage->batch->size;
    struct record record;
    const void *value;
    int result;

    while ((result = format_next(&at, end, &record, &value)) > 0) {
        result = each(passage, &record, value);
        if (result < 0)
            return result;
    }
    return result;
}

static int note_end(struct passage *passage, const struct record *record, const void *value)
{
    (void)value;
    return record->kind == RECORD_GONE ? ends_add(passage->checkpoint->ends, record->inode, passage->batch->number) : 0;
}

static int apply(struct passage *passage, const struct record *record, const void *value)
{
    const struct checkpoint *checkpoint = passage->checkpoint;

    if (passage->batch->number < ends_last(checkpoint->ends, record->inode))
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
    struct passage *passage = context;

    passage->batch = batch;
    return for_each(passage, note_end);
}

static int visit_records(void *context, const struct journal_batch *batch)
{
    struct passage *passage = context;

    passage->batch = batch;
    passage->root = batch->root;
    return for_each(passage, apply);
}

/* The ends that are not known. */
static int find_ends(struct checkpoint *checkpoint, struct passage *passage)
{
    const uint64_t unknown = checkpoint->ends->unknown;
    const struct journal_scan scan = {.above = checkpoint->meta->batch,
                                      .upto = unknown < checkpoint->upto ? unknown : checkpoint->upto,
                                      .visit = visit_ends,
                                      .context = passage};
    int result = scan.above < scan.upto ? journal_scan(checkpoint->directory, &scan, &checkpoint->found) : 0;

    ends_sort(checkpoint->ends);
    return result;
}

int checkpoint_apply(struct checkpoint *checkpoint, char error[FASTSPOOL_ERROR_MAX])
{
    struct disk_meta *meta = checkpoint->meta;
    struct passage passage = {.checkpoint = checkpoint, .root = (uint32_t)meta->root, .error = error};
    const struct journal_scan scan = {
        .above = meta->batch, .upto = checkpoint->upto, .visit = visit_records, .context = &passage};

    error[0] = '\0';
    int result = find_ends(checkpoint, &passage);
    if (result == 0)
        result = journal_scan(checkpoint->directory, &scan, &checkpoint->found);
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

/* All in one transaction. */
static int copy(struct checkpoint *checkpoint, struct journal_files *files, char error[FASTSPOOL_ERROR_MAX])
{
    const struct journal_found *found = &checkpoint->found;
    int result = database_begin(checkpoint->database, &checkpoint->transaction, checkpoint->meta, error);

    if (result < 0)
        return result;
    result = checkpoint_apply(checkpoint, error);
    if (result == 0 && (found->detached || found->missing || found->last != checkpoint->upto)) {
        journal_files_lose(files);
        result = lost(found, error);
    }
    if (result < 0) {
        mdb_txn_abort(checkpoint->transaction);
        return result;
    }
    return database_commit(checkpoint->database, checkpoint->transaction, checkpoint->meta, error);
}

int checkpoint_run(struct database *database, struct journal *journal, char error[FASTSPOOL_ERROR_MAX])
{
    struct journal_files *files = &journal->pool;
    struct journal_point point = journal_files_point(files);
    struct disk_meta meta;
    struct checkpoint checkpoint = {
        .database = database, .directory = files->directory, .upto = point.number, .meta = &meta, .ends = &point.ends};
    int result = copy(&checkpoint, files, error);

    if (result < 0) {
        journal_files_miss(files, &point);
        return result;
    }
    STORE(files->fs->header->residency.checkpointed, point.ticket);
    journal_files_release(files, &point, database_free_bytes(database));
    return 0;
}

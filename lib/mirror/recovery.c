/* SPDX-License-Identifier: MIT
 *
 * Recovery: from the disk to a segment, after a reboot.
 *
 * The happy path:
 *  - Apply the journal's whole batches to the database, in a transaction.
 *  - Where the spool has another owner than the database, his files become the new owner's (owner.c).
 *  - Empty the segment (an earlier recovery may have been cut short), and build it from what the transaction shows:
 *    every inode under its old number, then every name, then attributes and times (making names changes them).  The
 *    numbers in between become free, and nothing is dirty.
 *  - Data stays where it is: every file is evicted, so a queue of any size is there as soon as its names are.
 *  - Commit the transaction: what this recovery read is on the disk by its own sync, not just in a page cache that
 *    another process filled.
 *
 * No other process uses a RECOVERING segment.  The building goes through the store's own functions all the same,
 * section by section, so that their guarantees hold for what it makes.
 *
 * Failure modes:
 *  - A record that is too short, a name that makes no sense or leads to no directory, a file without a name, a journal
 *    that begins after the database ends: the disk is damaged, and recovery fails with a sentence that says what and
 *    where.  Nothing has changed on the disk.  (Damaged data shows when a file is opened.)
 *  - The names need more than `memory`: the same, until more is configured.
 *  - A power cut: the transaction is there whole or not at all, and the next recovery does the same again.
 *  - The disk is too full for the commit, and the owner is another one: recovery fails.
 *  - The disk is too full for the commit otherwise: the mail comes back all the same.  What the journal holds beyond
 *    the database is paged in, and stays in memory until a checkpoint succeeds.
 */
#include "mirror/recovery.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/checkpoint.h"
#include "mirror/database.h"
#include "mirror/ends.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"
#include "mirror/owner.h"
#include "mirror/pagein.h"
#include "mirror/pager.h"
#include "mirror/spill.h"
#include "store/change.h"
#include "store/directories.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define NAMES_STEP 32 /* names that one section makes: each changes some 50 words */

static int damaged(char *error, const char *what, uint32_t inode)
{
    return error_set(error, -EBADMSG, "the database is damaged: %s (inode %u)", what, inode);
}

static int said(char *error, int code)
{
    return error_set(error, -EIO, "read the database: %s", mdb_strerror(code));
}

/* ---- walking a table ---- */

struct walk {
    struct fastspool *fs;
    struct recovered *recovered;
    char *error;
    uint32_t root;
};

/* Visit one record. */
typedef int visit(struct walk *walk, const MDB_val *key, const MDB_val *value);

static int for_each(MDB_txn *transaction, MDB_dbi table, struct walk *walk, visit *each)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int code = mdb_cursor_open(transaction, table, &cursor), result = 0;

    if (code != 0)
        return said(walk->error, code);
    for (code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); code == 0 && result >= 0;
         code = result < 0 ? 0 : mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        result = each(walk, &key, &value);
        STORE(walk->fs->header->recovery.done, walk->fs->header->recovery.done + 1);
    }
    mdb_cursor_close(cursor);
    if (result < 0)
        return result;
    return code == MDB_NOTFOUND ? 0 : said(walk->error, code);
}

/* A section that fails with -ENOSPC needs memory: more than is configured, or more than the system has. */
static int enough(struct walk *walk, int result)
{
    const struct header *h = walk->fs->header;

    STORE(walk->fs->header->recovery.too_small,
          result == -ENOSPC && h->tables.memory_bytes + CHUNK_SIZE > h->memory_limit);
    if (result != -ENOSPC)
        return result;
    if (!h->recovery.too_small)
        return error_set(walk->error, result, "the file system of %s is full", walk->fs->runtime);
    return error_set(walk->error, result,
                     "the names of the spool alone need more than the configured `memory`, %llu MiB",
                     (unsigned long long)(h->memory_limit >> 20));
}

static int record_of(struct walk *walk, const MDB_val *key, const MDB_val *value, uint32_t *inode,
                     struct disk_inode *disk, struct format_names *names)
{
    if (format_parse_inode_key(key->mv_data, key->mv_size, inode) < 0)
        return damaged(walk->error, "a record has no inode's key", 0);
    if (format_decode_inode(value->mv_data, value->mv_size, disk, names) < 0)
        return damaged(walk->error, "a record makes no sense", *inode);
    return 0;
}

/* ---- inodes ---- */

struct restored {
    uint32_t inode;
    const struct disk_inode *disk;
};

static int restore_inode(struct fastspool *fs, void *argument)
{
    const struct restored *restored = argument;
    const struct disk_inode *disk = restored->disk;
    bool directory = S_ISDIR(disk->mode);
    struct inode new = {
        .generation = disk->generation,
        .mode = (uint16_t)disk->mode,
        .flags = INODE_USED | INODE_PERSISTED,
        .uid = disk->uid,
        .gid = disk->gid,
        .size = directory ? BLOCK_SIZE : 0,
        .links = directory ? 1 : 0,
    };

    if (restored->inode >= fs->header->tables.inodes.capacity)
        return section_want(TABLE_INODES);
    section_copy(fs, inode_at(fs, restored->inode), &new, sizeof(new));
    if (restored->inode >= fs->header->tables.inodes.used)
        SET(fs, fs->header->tables.inodes.used, restored->inode + 1);
    SET(fs, fs->header->tables.inodes.count, fs->header->tables.inodes.count + 1);
    if (!directory)
        SET(fs, fs->header->tree.files, fs->header->tree.files + 1);
    return 0;
}

static int visit_inode(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    struct restored restored;
    struct disk_inode disk;
    int result = record_of(walk, key, value, &restored.inode, &disk, NULL);

    if (result < 0)
        return result;
    restored.disk = &disk;
    result = enough(walk, change_run(walk->fs, restore_inode, &restored));
    walk->recovered->files += S_ISREG(disk.mode);
    walk->recovered->bytes += S_ISREG(disk.mode) ? disk.size : 0;
    return result;
}

/* ---- names ---- */

struct named {
    uint32_t inode;
    struct format_names names;
};

static int restore_names(struct fastspool *fs, void *argument)
{
    struct named *named = argument;
    struct format_names names = named->names;
    struct format_name name;
    int result = 1;

    for (int step = 0; step < NAMES_STEP && (result = format_next_name(&names, &name)) == 1; step++) {
        if (!inode_valid(fs, name.parent) || !S_ISDIR(inode_at(fs, name.parent)->mode) || name.parent == named->inode)
            return -EBADMSG;
        uint64_t hash = names_hash(fs, name.parent, name.text, name.length);
        result = names_add(fs, name.parent, name.text, name.length, hash, named->inode);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    named->names = names;
    return names.left > 0;
}

static int visit_names(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    struct disk_inode disk;
    struct named named;
    int result = record_of(walk, key, value, &named.inode, &disk, &named.names);

    if (result < 0)
        return result;
    if (named.inode == walk->root ? disk.names != 0 : disk.names == 0)
        return damaged(walk->error, "a file without a name", named.inode);
    do
        result = change_run(walk->fs, restore_names, &named);
    while (result > 0);
    if (result == -EBADMSG)
        return damaged(walk->error, "a name makes no sense, or leads nowhere", named.inode);
    return enough(walk, result);
}

/* ---- attributes, last ---- */

static int restore_attributes(struct fastspool *fs, void *argument)
{
    const struct restored *restored = argument;
    const struct inode *inode = inode_at(fs, restored->inode);

    if (S_ISREG(inode->mode) && restored->disk->size > 0) {
        SET(fs, inode->size, restored->disk->size);
        SET(fs, inode->flags, (uint16_t)(inode->flags | INODE_EVICTED));
        SET(fs, fs->header->residency.evicted, fs->header->residency.evicted + 1);
    }
    SET(fs, inode->atime, restored->disk->atime);
    SET(fs, inode->mtime, restored->disk->mtime);
    SET(fs, inode->ctime, restored->disk->ctime);
    inodes_clean(fs, restored->inode);
    SET(fs, inode->changed_in, 0);
    return 0;
}

static int visit_attributes(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    struct restored restored;
    struct disk_inode disk;
    int result = record_of(walk, key, value, &restored.inode, &disk, NULL);

    restored.disk = &disk;
    return result < 0 ? result : change_run(walk->fs, restore_attributes, &restored);
}

/* ---- the numbers in between ---- */

struct gaps {
    uint32_t next;
};

static int free_gaps(struct fastspool *fs, void *argument)
{
    struct gaps *gaps = argument;
    uint32_t i = gaps->next, used = LOAD(fs->header->tables.inodes.used), end = used < INODES_MAX ? used : INODES_MAX;

    for (int step = 0; step < 256 && i < end; step++, i++) {
        if (inode_at(fs, i)->flags & INODE_USED)
            continue;
        table_give_gap(fs, TABLE_INODES, i);
    }
    gaps->next = i;
    return i < end;
}

/* ---- building ---- */

static int restore_root(struct fastspool *fs, void *argument)
{
    uint32_t number = *(const uint32_t *)argument;
    const struct inode *root = inode_at(fs, number);

    SET(fs, root->links, 2);
    SET(fs, root->dir.parent, number);
    SET(fs, fs->header->tree.root, number);
    return 0;
}

/* Making names has touched directories, which the disk has as they are. */
static int restore_clean(struct fastspool *fs, void *argument)
{
    (void)argument;
    SET(fs, fs->header->tickets.oldest_dirty, 0);
    return 0;
}

static int rebuild(struct database *database, MDB_txn *transaction, struct walk *walk)
{
    const struct header *h = walk->fs->header;
    struct gaps gaps = {1};
    MDB_stat inodes;

    if (mdb_stat(transaction, database->inodes, &inodes) == 0)
        STORE(h->recovery.total, 3 * inodes.ms_entries);
    int result = for_each(transaction, database->inodes, walk, visit_inode);
    if (result < 0)
        return result;
    if (!inode_valid(walk->fs, walk->root) || !S_ISDIR(inode_at(walk->fs, walk->root)->mode))
        return damaged(walk->error, "the spool's own directory is missing", walk->root);
    result = change_run(walk->fs, restore_root, &walk->root);
    if (result == 0)
        result = for_each(transaction, database->inodes, walk, visit_names);
    if (result == 0)
        result = for_each(transaction, database->inodes, walk, visit_attributes);
    while (result >= 0 && (result = change_run(walk->fs, free_gaps, &gaps)) > 0)
        ;
    if (result == 0)
        result = change_run(walk->fs, restore_clean, NULL);
    STORE(h->tickets.durable, h->tickets.change);
    return result;
}

/* ---- a set of inodes ---- */

#define BITS 64u

static int note(void *context, uint32_t inode)
{
    uint64_t *touched = context;

    touched[inode / BITS] |= UINT64_C(1) << inode % BITS;
    return 0;
}

/* ---- the journal ---- */

/* A file that cannot be read may hold mail that was acknowledged: an operator decides, not its next use as a spare. */
static int refuse_foreign(int directory, const char *path, char *error)
{
    struct journal_listed *files = calloc(JOURNAL_FILES_MAX, sizeof(*files));
    size_t count;
    int result = files ? journal_scan_files(directory, files, &count) : -ENOMEM;

    for (size_t i = 0; result == 0 && i < count; i++) {
        char name[PLACES_NAME_MAX];
        places_journal_file(files[i].name, name);
        if (journal_scan_is_foreign(&files[i]))
            result =
                error_set(error, -EBADMSG,
                          "the journal file %s/%s is damaged, or another version's (%s): it may hold mail; move it "
                          "away to go on without it",
                          path, name, journal_scan_reason(files[i].reason));
    }
    free(files);
    return result;
}

/* Apply the journal inside @transaction.  @touched: a set for the inodes that it puts, or NULL. */
static int read_journal(struct database *database, MDB_txn *transaction, struct walk *walk, struct disk_meta *meta,
                        uint64_t *highest, uint64_t *touched)
{
    struct ends ends = {.unknown = UINT64_MAX};
    struct checkpoint checkpoint = {.database = database,
                                    .transaction = transaction,
                                    .upto = UINT64_MAX,
                                    .meta = meta,
                                    .ends = &ends,
                                    .touched = touched ? note : NULL,
                                    .context = touched};
    const struct journal_found *found = &checkpoint.found;
    char path[PLACES_PATH_MAX];
    uint64_t held = meta->batch;

    places_in_state(walk->fs->state, PLACES_JOURNAL, path);
    checkpoint.directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int refused = checkpoint.directory < 0 ? errno : 0;
    walk->recovered->journal_gone = refused == ENOENT && held > 0;
    if (refused && refused != ENOENT)
        return error_set(walk->error, -refused, "open %s: %s", path, strerrordesc_np(refused));
    int result = refused ? 0 : refuse_foreign(checkpoint.directory, path, walk->error);
    if (result == 0 && checkpoint.directory >= 0)
        result = checkpoint_apply(&checkpoint, walk->error);
    ends_free(&ends);
    if (checkpoint.directory >= 0)
        close(checkpoint.directory);
    if (result == 0 && found->detached)
        return error_set(walk->error, -EBADMSG,
                         "files of the journal are missing, or the database was replaced: put them back; or move %.90s "
                         "away, and run "
                         "`fastspool stop`, to go on with what the database has",
                         path);
    walk->recovered->batches = found->batches;
    walk->recovered->missing = found->missing;
    walk->recovered->hole = found->hole;
    walk->recovered->hole_after = found->hole_after;
    *highest = found->highest > held ? found->highest : held;
    return result;
}

/* No number of a batch is used twice, not even that of a batch that cannot be read any more: the clock is higher. */
static void publish_numbers(const struct header *h, const struct disk_meta *meta, uint64_t highest)
{
    uint64_t clock = clock_realtime();

    STORE(h->journal.batch, clock > highest ? clock : highest);
    STORE(h->journal.durable, meta->batch);
}

/* ---- a disk that is full ---- */

static int want(struct fastspool *fs, void *argument)
{
    struct pagein *pagein = argument;
    const struct inode *inode = inode_at(fs, pagein->inode);

    if (!inode_valid(fs, pagein->inode) || !(inode->flags & INODE_EVICTED))
        return 0;
    residency_want(fs, pagein->inode);
    *pagein = (struct pagein){pagein->inode, inode->generation, inode->ticket, inode->size, false};
    return 1;
}

static int page_in_touched(struct database *database, MDB_txn *transaction, struct fastspool *fs,
                           const uint64_t *touched)
{
    int result = 0;

    for (uint32_t i = 1; i < LOAD(fs->header->tables.inodes.used) && i < INODES_MAX && result >= 0; i++) {
        struct pagein pagein = {.inode = i};
        if (!(touched[i / BITS] >> i % BITS & 1))
            continue;
        result = change_run(fs, want, &pagein);
        if (result > 0)
            result = pager_load(fs, database, transaction, &pagein, -1);
        if (result == 0)
            result = pagein_end(fs, &pagein, false, 0, false);
    }
    return result < 0 ? result : 0;
}

/* The database has no room for what the journal holds: page it in.  Apply the journal once more, in a
 * transaction that is never committed, and read from there what it touches. */
static int keep_in_memory(struct database *database, struct walk *walk)
{
    uint64_t *touched = calloc(INODES_MAX / BITS, sizeof(*touched)), highest;
    char path[PLACES_PATH_MAX];
    MDB_txn *transaction;
    struct disk_meta meta;

    database_close(database);
    places_in_state(walk->fs->state, PLACES_DATABASE, path);
    int result = touched ? database_open(database, path, walk->error) : -ENOMEM;
    if (result == 0)
        result = database_begin(database, &transaction, &meta, walk->error);
    if (result == 0) {
        result = read_journal(database, transaction, walk, &meta, &highest, touched);
        if (result == 0)
            result = page_in_touched(database, transaction, walk->fs, touched);
        mdb_txn_abort(transaction);
    }
    free(touched);
    return result;
}

/* ---- all of it ---- */

static int follow_owner(struct database *database, MDB_txn *transaction, const struct walk *walk)
{
    struct stat st;

    if (fstat(walk->fs->spool_fd, &st) < 0)
        return error_set(walk->error, -errno, "look at %s: %s", walk->fs->spool, strerrordesc_np(errno));
    int given = owner_follow(database, transaction, walk->root, &st, walk->error);
    if (given > 0)
        syslog(LOG_MAIL | LOG_NOTICE, "%s: the mail of the owner before is user %u's and group %u's now",
               walk->fs->spool, (unsigned)st.st_uid, (unsigned)st.st_gid);
    return given;
}

static int recover(struct database *database, struct walk *walk)
{
    const struct header *h = walk->fs->header;
    MDB_txn *transaction;
    struct disk_meta meta;
    uint64_t highest;
    int result = database_begin(database, &transaction, &meta, walk->error);

    if (result < 0)
        return result;
    result = read_journal(database, transaction, walk, &meta, &highest, NULL);
    walk->root = (uint32_t)meta.root;
    int given = result == 0 && meta.root ? follow_owner(database, transaction, walk) : result;
    result = given < 0 ? given : 0;
    if (result == 0)
        result = meta.root ? rebuild(database, transaction, walk) : directories_make_root(walk->fs);
    if (result < 0) {
        mdb_txn_abort(transaction);
        return result;
    }
    publish_numbers(h, &meta, highest);
    if (database_commit(database, transaction, &meta, walk->error) == 0) {
        STORE(h->residency.checkpointed, LOAD(h->tickets.durable));
        return 0;
    }
    if (given > 0)
        return -ENOSPC;
    syslog(LOG_MAIL | LOG_WARNING, "%s: the journal stays as it is for now: %s", walk->fs->spool, walk->error);
    return keep_in_memory(database, walk);
}

int recovery_run(struct fastspool *fs, struct recovered *recovered, char error[FASTSPOOL_ERROR_MAX])
{
    struct walk walk = {.fs = fs, .recovered = recovered, .error = error};
    char path[PLACES_PATH_MAX];
    struct fastspool_status status;
    struct database database;

    *recovered = (struct recovered){0};
    error[0] = '\0';
    places_in_state(fs->state, PLACES_DATABASE, path);
    int result = segment_reset(fs);
    if (result == 0)
        result = database_open(&database, path, error);
    if (result == 0) {
        result = recover(&database, &walk);
        database_close(&database);
    }
    if (result < 0 && error[0] == '\0')
        error_set(error, result, "recover the store: %s", strerrordesc_np(-result));
    fastspool_status(fs, &status);
    recovered->messages = status.messages;
    spill_sweep(fs);
    return result;
}

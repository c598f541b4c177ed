/* SPDX-License-Identifier: MIT
 *
 * Rescue: the journal has lost durable batches, as when its files were removed, and memory has all that they held.
 *
 * The happy path:
 *  - Every inode becomes dirty, with all of its data that is in memory.  One capture takes it: an instant of the spool,
 *    as a batch is.
 *  - One transaction puts the capture into the database, and removes what is no longer in the store.
 *  - The database then holds a batch with a number of its own, and the journal begins anew behind it.
 *
 * Failure modes:
 *  - The journal's directory is missing, or is another one: its disk may be unmounted, and what is written now would
 *    be hidden when it comes back.  The operator has to say that it is lost (PLACES_ANEW).  That may be an error, or
 *    come too late: so the word is forgotten as soon as nothing is lost.  (A directory that was removed while this
 *    mirror had it open is lost without a word.)
 *  - STATE/lock was removed: another store may have been made beside this one, and the database may be its.  Nothing is
 *    written, as by a commit.
 *  - A file has left memory, and the database does not have it as it was: the database is another one, or was emptied.
 *    Nothing is written.
 *  - No room, an error of the disk: all stays dirty, and the next commit tries again.
 *  - Death before the transaction ends: the disk is as it was.  Death after it: the database has the number that
 *    header.journal.durable has, so the next mirror goes on behind that.
 */
#include "mirror/rescue.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/places.h"
#include "mirror/capture.h"
#include "mirror/database.h"
#include "mirror/format.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "spool/presence.h"
#include "store/change.h"
#include "store/data.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define MARK_STEP 32u /* inodes that one section makes dirty: each changes some 20 words */
#define BITS      64u

#define IN_DATABASE (INODE_EVICTED | INODE_SPILLED) /* its data is not in memory, or not all of it */

/* A mirror that writes for long gives signs of life. */
static void beat(struct fastspool *fs)
{
    STORE(fs->header->mirror.beat, clock_monotonic());
}

/* ---- all of it is dirty ---- */

static int mark_step(struct fastspool *fs, void *argument)
{
    uint32_t *next = argument, i = *next, used = LOAD(fs->header->tables.inodes.used);
    uint32_t end = used < INODES_MAX ? used : INODES_MAX;

    for (uint32_t step = 0; step < MARK_STEP && i < end; step++, i++) {
        if (!inode_valid(fs, i))
            continue;
        const struct inode *inode = inode_at(fs, i);
        uint32_t blocks = S_ISREG(inode->mode) && !(inode->flags & IN_DATABASE) ? data_blocks(inode->size) : 0;
        if (inode->flags & INODE_ORPHAN)
            continue;
        if (blocks)
            inodes_dirty_data(fs, i, 0, blocks);
        else
            inodes_dirty(fs, i);
    }
    *next = i;
    return i < end;
}

static int mark_all(struct fastspool *fs)
{
    uint32_t next = 1;
    int result = 1;

    while (result > 0) {
        uint32_t before = next;
        result = change_run(fs, mark_step, &next);
        if (result < 0)
            next = before;
        beat(fs);
    }
    return result;
}

/* ---- into the database ---- */

/* Takes a batch's bytes, and puts its records. */
struct putting {
    struct fastspool *fs;
    struct database *database;
    MDB_txn *transaction;
    char *error;
    bool begun; /* a record */
    struct record record;
    size_t got, padding; /* bytes of its value; zeros that follow it */
    char *value;
    size_t room;
};

static int apply(struct putting *putting)
{
    putting->begun = false;
    putting->padding = -(size_t)putting->record.size % 8;
    return database_apply(putting->database, putting->transaction, &putting->record, putting->value, putting->error);
}

static int put(void *context, const void *bytes, size_t size)
{
    struct putting *putting = context;

    if (putting->padding) {
        putting->padding = 0;
        return 0;
    }
    if (putting->begun) {
        memcpy(putting->value + putting->got, bytes, size);
        putting->got += size;
        return putting->got == putting->record.size ? apply(putting) : 0;
    }
    memcpy(&putting->record, bytes, sizeof(putting->record));
    putting->begun = true;
    putting->got = 0;
    if (putting->record.size > putting->room) {
        char *larger = realloc(putting->value, putting->record.size);
        if (!larger)
            return error_set(putting->error, -ENOMEM, "no memory to write all of it anew");
        putting->value = larger;
        putting->room = putting->record.size;
    }
    if (putting->record.kind == RECORD_INODE)
        beat(putting->fs);
    return putting->record.size == 0 ? apply(putting) : 0;
}

/* Does the database have each file that is not in memory, as it was when it left? */
static int check_evicted(const struct putting *putting, const struct capture *capture)
{
    for (size_t i = 0; i < capture->count; i++) {
        const struct captured *file = &capture->file[i];
        const struct format_key number = format_inode_key(file->inode);
        MDB_val key = database_key(&number), value;
        struct disk_inode disk;
        if (file->state.links == 0 || !(file->state.flags & IN_DATABASE))
            continue;
        if (mdb_get(putting->transaction, putting->database->inodes, &key, &value) != 0 ||
            format_decode_inode(value.mv_data, value.mv_size, &disk, NULL) < 0 ||
            disk.generation != file->state.generation || disk.size != file->state.size)
            return error_set(putting->error, -ESTALE,
                             "%s/" PLACES_DATABASE
                             " does not have what left memory: mount its disk, or put it back, as it was",
                             putting->fs->state);
    }
    return 0;
}

/* Which inodes of the database are no longer in the store? */
static int find_gone(const struct putting *putting, const struct capture *capture, uint64_t *gone)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint32_t inode;
    int code = mdb_cursor_open(putting->transaction, putting->database->inodes, &cursor);

    if (code != 0)
        return error_set(putting->error, -EIO, "read the database: %s", mdb_strerror(code));
    while ((code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (format_parse_inode_key(key.mv_data, key.mv_size, &inode) == 0)
            gone[inode / BITS] |= UINT64_C(1) << inode % BITS;
    }
    mdb_cursor_close(cursor);
    for (size_t i = 0; i < capture->count; i++)
        gone[capture->file[i].inode / BITS] &= ~(UINT64_C(1) << capture->file[i].inode % BITS);
    return code == MDB_NOTFOUND ? 0 : error_set(putting->error, -EIO, "read the database: %s", mdb_strerror(code));
}

static int delete_gone(struct putting *putting, const struct capture *capture)
{
    uint64_t *gone = calloc(INODES_MAX / BITS, sizeof(*gone));
    int result = gone ? find_gone(putting, capture, gone)
                      : error_set(putting->error, -ENOMEM, "no memory to write all of it anew");

    for (uint32_t i = 1; i < INODES_MAX && result == 0; i++) {
        const struct record record = {RECORD_GONE, i, 0, 0};
        if (gone[i / BITS] >> i % BITS & 1)
            result = database_apply(putting->database, putting->transaction, &record, NULL, putting->error);
    }
    free(gone);
    return result;
}

/* The number is above all that any journal holds. */
static int put_all(struct fastspool *fs, struct database *database, const struct capture *capture, char *error)
{
    const struct header *h = fs->header;
    struct putting putting = {.fs = fs, .database = database, .error = error};
    uint64_t number = LOAD(h->journal.batch) + 1, before = LOAD(h->journal.durable);
    struct disk_meta meta;
    int result = database_begin(database, &putting.transaction, &meta, error);

    if (result < 0)
        return result;
    result = check_evicted(&putting, capture);
    if (result == 0)
        result = delete_gone(&putting, capture);
    if (result == 0)
        result = format_encode(fs, capture, put, &putting);
    free(putting.value);
    if (result < 0) {
        mdb_txn_abort(putting.transaction);
        return result;
    }
    meta.root = h->tree.root;
    meta.batch = number;
    STORE(h->journal.batch, number);
    STORE(h->journal.durable, number);
    result = database_commit(database, putting.transaction, &meta, error);
    if (result < 0)
        STORE(h->journal.durable, before);
    return result;
}

/* ---- all of it ---- */

static void forget_word(const struct fastspool *fs)
{
    char told[PLACES_PATH_MAX];

    places_in_state(fs->state, PLACES_ANEW, told);
    unlink(told);
}

/* While nothing is lost, the operator's word is about a loss that was none, or is over.  It must not count for the next
 * one. */
void rescue_look(struct journal *journal, struct shared_database *shared)
{
    journal_files_look(&journal->pool, shared_database_is_away(shared, journal->pool.above));
    if (!journal_files_lost(&journal->pool))
        forget_word(journal->pool.fs);
}

/* Has somebody said that what is gone is lost? */
static bool is_told(const struct fastspool *fs)
{
    char told[PLACES_PATH_MAX];
    struct stat st;

    places_in_state(fs->state, PLACES_ANEW, told);
    return lstat(told, &st) == 0;
}

bool rescue_may(const struct fastspool *fs, const struct journal *journal)
{
    return journal_files_sure(&journal->pool) || is_told(fs);
}

int rescue_run(struct fastspool *fs, struct journal *journal, struct shared_database *shared,
               char error[FASTSPOOL_ERROR_MAX])
{
    struct database *database;
    struct capture capture;
    uint64_t begun = clock_precise();
    int result = 0;

    error_set(error, -EIO, "write all of it anew: the store is damaged, or there is no memory");
    if (!presence_is_valid(fs->presence_fd, journal->pool.above))
        return error_set(error, -EIO, "write all of it anew: %s/" PLACES_LOCK " was removed or replaced", fs->state);
    rescue_look(journal, shared);
    if (!journal_files_lost(&journal->pool)) /* it was away, and is back */
        return 0;
    if (!rescue_may(fs, journal))
        return error_set(error, -ESTALE, RESCUE_WAITS, fs->state);
    if (is_told(fs))
        shared_database_forget(shared, journal->pool.above);
    result = shared_database_enter(shared, &database, error);
    if (result < 0)
        return result;
    result = mark_all(fs);
    if (result == 0)
        result = capture_take(fs, &capture);
    if (result == 0) {
        size_t count = capture.count;
        uint64_t ticket = capture.ticket;
        result = put_all(fs, database, &capture, error);
        int ended = capture_end(fs, &capture, result, clock_precise() - begun);
        result = result < 0 ? result : ended;
        if (result == 0)
            STORE(fs->header->residency.checkpointed, ticket);
        if (result == 0)
            syslog(LOG_MAIL | LOG_WARNING,
                   "%s: files of the journal were gone: %zu files and directories, all that there are, were written to "
                   "the database anew",
                   fs->spool, count);
    }
    shared_database_leave(shared, result < 0);
    if (result == 0)
        result = journal_renew(journal, error);
    if (result == 0)
        forget_word(fs);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * The pager: page-ins, from the database back to memory; and eviction.
 *
 * The happy path: sleep until a file or memory is wanted.  Take all page-ins there are, in the order of the inodes,
 * which is the database's.  One reading transaction serves them.  The slices of a file are put together in windows of
 * DATA_STEP bytes, and one section fills in each window; the last one makes the file readable and wakes its waiters.
 * Then evict, where memory in use is above its mark or a writer waits for some.
 *
 * The data is of the change that the page-in asks for: the transaction begins after the request was read, and the
 * database holds at least the checkpoint that allowed the eviction.  A file that has changed since (name, owner, size)
 * has another ticket, and is read again.
 *
 * A file that is opened may tell which ones are opened next: those are prefetched (prefetch.c).
 *
 * No spinning.  With 20 us of it on both sides a page-in took 6.5 us instead of 9.6 on an idle machine, but 220-290
 * instead of 53-62 beside a compiler.
 *
 * Failure modes:
 *  - No memory for a file, or it would take the last that writers have: evict others, for LOAD_WAIT at most; then
 *    spill the file (spill.c).
 *  - No room on the disk for the spill file: ENOSPC.
 *  - The database does not hold the inode, or another generation or size of it: EIO.
 *  - The database cannot be opened: all waiters get its error.
 *  - A page cannot be read at all: the mirror ends (process.c).  header.residency.pagein_reading says over which file,
 *    and the next mirror fails that page-in.
 */
#include "mirror/pager.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/futex.h"
#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/evictor.h"
#include "mirror/format.h"
#include "mirror/pagein.h"
#include "mirror/prefetch.h"
#include "mirror/spill.h"
#include "mirror/thread.h"
#include "store/blocks.h"
#include "store/change.h"
#include "store/data.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define PAGEINS_AT_ONCE 256u
#define LOAD_WAIT       NS_PER_S          /* that page-ins may wait for memory before they are spilled */
#define LOAD_RETRY      (20 * NS_PER_MS)  /* between two tries */
#define IDLE            NS_PER_S          /* between two looks without a request */
#define BUSY            (20 * NS_PER_MS)  /* the same, with so much memory in use that some may be needed at any time */
#define EVICT_RETRY     (200 * NS_PER_MS) /* after an eviction that found too little */
#define SPILL_SHARE     4u                /* a file of more than this part of `memory` is spilled at once */
#define SMALL_SHARE     64u               /* a file of at most this part is paged in wherever there is a block for it */
#define SPACE_LEAST     256u              /* blocks to free for waiting writers */

/* ---- one file ---- */

struct window {
    struct fastspool *fs;
    const struct pagein *pagein;
    int spill;       /* where its bytes go, -1: memory */
    uint64_t offset; /* of the first byte, a multiple of DATA_STEP */
    uint32_t blocks; /* bit set: there are bytes of this block */
    char bytes[DATA_STEP];
};

struct part {
    const struct window *window;
    const char *bytes;
    size_t size;
    uint64_t offset; /* in the file */
};

static int fill_in(struct fastspool *fs, void *argument)
{
    const struct part *part = argument;
    const struct pagein *pagein = part->window->pagein;
    /* A truncation does not wait for the pager: its blocks may hold other data by now. */
    int result = pagein_check(fs, pagein);

    return result < 0 ? result : data_load(fs, pagein->inode, part->bytes, part->size, part->offset);
}

static int put_aside(const struct part *part)
{
    return fd_write_all(part->window->spill, part->bytes, part->size, part->offset);
}

/* Blocks [@from, @to) of the window, up to the end of the file. */
static struct part part_of(const struct window *window, uint32_t from, uint32_t to)
{
    uint64_t start = (uint64_t)from * BLOCK_SIZE, end = (uint64_t)to * BLOCK_SIZE,
             left = window->pagein->size - window->offset;
    return (struct part){window, window->bytes + start, (size_t)((end < left ? end : left) - start),
                         window->offset + start};
}

/* Empty the window: zeros again, where there were bytes. */
static void wipe(struct window *window)
{
    for (uint32_t block = 0; window->blocks; block++, window->blocks >>= 1) {
        if (window->blocks & 1)
            memset(window->bytes + block * BLOCK_SIZE, 0, BLOCK_SIZE);
    }
}

/* Put the window into memory or the spill file, one run of blocks at a time; gaps are holes. */
static int flush(struct window *window)
{
    int result = 0;

    for (uint32_t from = 0, to; result == 0 && window->blocks >> from; from = to) {
        to = from + 1;
        if (!(window->blocks >> from & 1))
            continue;
        while (window->blocks >> to & 1)
            to++;
        struct part part = part_of(window, from, to);
        result = window->spill < 0 ? change_run(window->fs, fill_in, &part) : put_aside(&part);
    }
    wipe(window);
    return result;
}

/* Add a slice of the file; they come in order. */
static int add_slice(struct window *window, uint64_t offset, const MDB_val *value)
{
    const char *bytes = value->mv_data;

    if (value->mv_size == 0 || value->mv_size > SLICE_SIZE || offset + value->mv_size > window->pagein->size)
        return -EIO;
    for (size_t done = 0; done < value->mv_size;) {
        uint64_t start = (offset + done) / DATA_STEP * DATA_STEP;
        int result = start == window->offset ? 0 : flush(window);
        if (result < 0)
            return result;
        window->offset = start;
        uint64_t at = offset + done - start;
        size_t part = value->mv_size - done < DATA_STEP - at ? value->mv_size - done : (size_t)(DATA_STEP - at);
        memcpy(window->bytes + at, bytes + done, part);
        for (uint64_t block = at / BLOCK_SIZE; block <= (at + part - 1) / BLOCK_SIZE; block++)
            window->blocks |= UINT32_C(1) << block;
        done += part;
    }
    return 0;
}

/* Does the database hold this very file? */
static int check_inode(struct database *database, MDB_txn *transaction, const struct pagein *pagein)
{
    const struct format_key number = format_inode_key(pagein->inode);
    MDB_val key = database_key(&number), value;
    struct disk_inode disk;

    if (mdb_get(transaction, database->inodes, &key, &value) != 0 ||
        format_decode_inode(value.mv_data, value.mv_size, &disk, NULL) < 0)
        return -EIO;
    return disk.generation == pagein->generation && disk.size == pagein->size ? 0 : -EIO;
}

static int load(struct fastspool *fs, struct database *database, MDB_txn *transaction, const struct pagein *pagein,
                int spill)
{
    static struct window window; /* of the one thread */
    const struct format_key first = format_slice_key(pagein->inode, 0);
    MDB_val key = database_key(&first), value;
    MDB_cursor *cursor;
    uint32_t inode, slice;
    int result = check_inode(database, transaction, pagein);

    if (result < 0 || mdb_cursor_open(transaction, database->data, &cursor) != 0)
        return -EIO;
    window.fs = fs;
    window.pagein = pagein;
    window.spill = spill;
    window.offset = 0;
    int code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (code == 0 && result == 0 && format_parse_slice_key(key.mv_data, key.mv_size, &inode, &slice) == 0 &&
           inode == pagein->inode) {
        result = add_slice(&window, (uint64_t)slice * SLICE_SIZE, &value);
        if (result == 0)
            code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    if (result == 0)
        result = code != 0 && code != MDB_NOTFOUND ? -EIO : flush(&window);
    wipe(&window); /* of what an error left */
    mdb_cursor_close(cursor);
    return result;
}

int pager_load(struct fastspool *fs, struct database *database, MDB_txn *transaction, const struct pagein *pagein,
               int spill)
{
    STORE(fs->header->residency.pagein_reading, pagein->inode); /* a bad page of it may end this process */
    int result = load(fs, database, transaction, pagein, spill);
    STORE(fs->header->residency.pagein_reading, 0);
    return result;
}

/* ---- requests ---- */

/* Evict.  Data that could go but for a missing checkpoint gets one: at once for a waiter, else now and then, because a
 * checkpoint takes the disk from the commits. */
static int evict(struct pager *pager, uint64_t target, uint64_t least)
{
    uint64_t now = clock_monotonic();
    bool unready = false;
    int64_t blocks = evictor_run(pager->fs, target, least, &unready);
    bool enough = blocks >= (int64_t)least && residency_in_use(pager->fs->header) <= target;

    if (!enough && unready && pager->want_checkpoint && (least || now - pager->wished > IDLE)) {
        pager->wished = now;
        pager->want_checkpoint(pager->context);
    }
    pager->too_little = enough ? 0 : now;
    return blocks < 0 ? (int)blocks : 0;
}

/* Bytes that may be in use before the file is paged in.  Open files can't be evicted.  So a few deliverers of large
 * messages, each of which holds its own, would leave no block for the small files that they write next (a -J).  The
 * bound is the one that large files' writers have (residency.c). */
static uint64_t most_before(const struct header *h, const struct pagein *pagein)
{
    uint64_t most = residency_most_large(h), bytes = (pagein->size / BLOCK_SIZE + 1) * BLOCK_SIZE;

    if (pagein->size <= LOAD(h->memory_limit) / SMALL_SHARE)
        return UINT64_MAX;
    return most > bytes ? most - bytes : 0;
}

/* Page in to memory.  Without memory, evict other files and try again, until @until for all files of a round. */
static int page_in_to_memory(struct pager *pager, struct database *database, MDB_txn *transaction,
                             const struct pagein *pagein, uint64_t until)
{
    uint64_t most = most_before(pager->fs->header, pagein);
    int result = -ENOSPC;

    while ((residency_in_use(pager->fs->header) > most ||
            (result = pager_load(pager->fs, database, transaction, pagein, -1)) == -ENOSPC) &&
           clock_monotonic() < until && !LOAD(pager->ending) && !LOAD(pager->database->closing)) {
        evict(pager, most, pagein->size / BLOCK_SIZE + SPACE_LEAST);
        clock_sleep(LOAD_RETRY);
    }
    return result;
}

static int page_in_to_spill(struct pager *pager, struct database *database, MDB_txn *transaction,
                            const struct pagein *pagein)
{
    int spill = spill_create(pager->fs, pagein);

    pager->spills = true;
    if (spill < 0)
        return spill;
    int result = pager_load(pager->fs, database, transaction, pagein, spill);
    close(spill);
    return result;
}

/* A prefetch has no waiter yet: no waiting for memory, no spill file, no line in syslog. */
static bool page_in_prefetch(struct pager *pager, struct database *database, MDB_txn *transaction,
                             const struct pagein *pagein)
{
    const struct header *h = pager->fs->header;
    bool room = residency_in_use(h) + (pagein->size / BLOCK_SIZE + 1) * BLOCK_SIZE <= residency_high(h);
    int result = room ? pager_load(pager->fs, database, transaction, pagein, -1) : -ENOSPC;

    return pagein_end(pager->fs, pagein, false, result == -ESTALE ? 0 : result, false) == -ESTALE;
}

/* One page-in, in a transaction that began after it.  True: it has to be answered again. */
static bool page_in(struct pager *pager, struct database *database, MDB_txn *transaction, const struct pagein *pagein,
                    uint64_t until)
{
    struct fastspool *fs = pager->fs;
    bool spilled = pagein->size > LOAD(fs->header->memory_limit) / SPILL_SHARE;
    int result = spilled ? -ENOSPC : page_in_to_memory(pager, database, transaction, pagein, until);

    if (result == -ENOSPC && LOAD(pager->database->closing))
        return true;
    if (result == -ENOSPC) {
        spilled = true;
        result = page_in_to_spill(pager, database, transaction, pagein);
    }
    if (result == -ESTALE)
        result = 0; /* pagein_end() looks at what the file is now */
    if (result < 0)
        syslog(LOG_MAIL | LOG_ERR, "%s: page in inode %u: %s", fs->spool, pagein->inode, strerrordesc_np(-result));
    return pagein_end(fs, pagein, spilled, result, false) == -ESTALE;
}

/* The prefetches, or the other page-ins.  True: some have to be answered again. */
static bool page_in_all(struct pager *pager, struct database *database, MDB_txn *transaction,
                        const struct pagein *pageins, int count, bool prefetch)
{
    uint64_t until = clock_monotonic() + LOAD_WAIT;
    bool again = count == PAGEINS_AT_ONCE;

    for (int i = 0; i < count; i++) {
        if (LOAD(pager->database->closing))
            return true; /* the thread that closes it waits for this one */
        if (pageins[i].prefetch == prefetch)
            again |= prefetch ? page_in_prefetch(pager, database, transaction, &pageins[i])
                              : page_in(pager, database, transaction, &pageins[i], until);
    }
    return again;
}

/* The page-ins that are requested, with the prefetches that follow from them.  How many. */
static int collect(struct pager *pager, struct pagein *pageins)
{
    int count = pagein_collect(pager->fs, pageins, PAGEINS_AT_ONCE), prefetched = 0;

    for (int i = 0; i < count && count + prefetched < (int)PAGEINS_AT_ONCE; i++) {
        int more = pageins[i].prefetch ? 0
                                       : prefetch_follow(pager->fs, &pager->prefetch, &pageins[i],
                                                         (int)PAGEINS_AT_ONCE - count - prefetched);
        if (more < 0)
            return more;
        prefetched += more;
    }
    return prefetched > 0 ? pagein_collect(pager->fs, pageins, PAGEINS_AT_ONCE) : count;
}

int pager_serve(struct pager *pager, char error[FASTSPOOL_ERROR_MAX])
{
    static struct pagein pageins[PAGEINS_AT_ONCE]; /* of the one thread */
    struct database *database;
    MDB_txn *transaction;
    int count = collect(pager, pageins);

    if (count <= 0)
        return count;
    int result = shared_database_enter(pager->database, &database, error);
    if (result == 0 && mdb_txn_begin(database->environment, NULL, MDB_RDONLY, &transaction) != 0) {
        shared_database_leave(pager->database, true);
        result = -EIO;
    }
    if (result == 0) {
        /* The prefetches first: their reader waits for another page-in, and is woken once for all of them. */
        result = page_in_all(pager, database, transaction, pageins, count, true);
        result |= page_in_all(pager, database, transaction, pageins, count, false);
        mdb_txn_abort(transaction);
        shared_database_leave(pager->database, false);
        return result;
    }
    for (int i = 0; i < count; i++)
        pagein_end(pager->fs, &pageins[i], false, result, false);
    return result;
}

/* ---- the thread ---- */

/* Reading this file, or the database itself, ended an earlier mirror: fail the page-in. */
static void fail_fatal(struct fastspool *fs)
{
    static struct pagein pageins[PAGEINS_AT_ONCE];
    uint32_t fatal = LOAD(fs->header->residency.pagein_fatal);
    int count = fatal ? pagein_collect(fs, pageins, PAGEINS_AT_ONCE) : 0;

    for (int i = 0; i < count; i++) {
        if (fatal == PAGER_ALL || pageins[i].inode == fatal)
            pagein_end(fs, &pageins[i], false, -EIO, fatal != PAGER_ALL);
    }
    STORE(fs->header->residency.pagein_fatal, 0);
}

/* Evict where memory in use is above its mark, or a writer waits; after too little could go, not again at once.  (If
 * blocks are free, the waiter needs a table to grow.  compaction.c and blocks_give_back() see to that.) */
static void make_room(struct pager *pager, bool wanted)
{
    const struct header *h = pager->fs->header;
    bool above = residency_in_use(h) > residency_high(h);
    uint64_t target = residency_low(h), large = residency_most_large(h);
    bool crowded = wanted && residency_in_use(h) > large; /* perhaps a large file's writer waits */

    if (crowded && large < target)
        target = large;
    wanted = wanted && blocks_spare(h) < h->reserve + CHUNK_BLOCKS;
    if (wanted || crowded || (above && clock_monotonic() - pager->too_little > EVICT_RETRY))
        evict(pager, above || crowded ? target : UINT64_MAX, wanted || crowded ? SPACE_LEAST : 0);
}

static void *run(void *argument)
{
    struct pager *pager = argument;
    const struct header *h = pager->fs->header;
    char error[FASTSPOOL_ERROR_MAX];
    uint32_t served = LOAD(h->residency.space_wanted);
    uint64_t swept = 0;

    fail_fatal(pager->fs);
    pager->spills = true; /* left by a mirror that died */
    while (!LOAD(pager->ending)) {
        uint32_t wanted = LOAD(h->residency.pager_wanted), space = LOAD(h->residency.space_wanted);
        int result = pager_serve(pager, error);
        make_room(pager, space != served);
        served = space;
        if (pager->spills && clock_monotonic() - swept > IDLE) {
            swept = clock_monotonic();
            pager->spills = spill_sweep(pager->fs) != 0;
        }
        if (result <= 0)
            futex_wait(&h->residency.pager_wanted, wanted, residency_in_use(h) > residency_low(h) ? BUSY : IDLE);
    }
    return NULL;
}

int pager_start(struct pager *pager)
{
    pager->ending = 0;
    return thread_start(&pager->thread, run, pager);
}

void pager_end(struct pager *pager)
{
    STORE(pager->ending, 1);
    futex_count(&ATOMIC(pager->fs->header->residency.pager_wanted));
    pthread_join(pager->thread, NULL);
}

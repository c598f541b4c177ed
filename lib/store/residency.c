/* SPDX-License-Identifier: MIT
 *
 * Residency: which files have their data in memory, eviction and page-in.
 *
 * Names and attributes are always in memory.  Data is in memory while it is in the working set.  A file may lose its
 * blocks if its last change is in the database (header.residency.checkpointed) and no process has it open.  It keeps
 * its size and all that stat shows, and is EVICTED.  lib/mirror/evictor.c chooses the files.  This module keeps the
 * marks that it needs:
 *   - The clean list holds the files that may become evicted, the least recently used first.  A file joins its end
 *     when a commit has made it clean, and leaves it when it changes.
 *   - An open of a clean file marks it REFERENCED, which costs one word.  The file gets a second chance (the clock
 *     algorithm).
 *   - A file that was paged in is COLD until it is opened once more.  COLD files have a list of their own, also after
 *     a write (a delivery writes to the log of its message).  So a queue run over a million evicted messages evicts
 *     the files that it has paged in itself, and not the working set.  (The 2Q algorithm, Johnson and Shasha, VLDB
 *     1994; the second queue is a clock.)
 *
 * The happy path of an open of an evicted file:
 *   1. One section makes the description, and puts the file into the list of page-ins.
 *   2. The process wakes the pager, a thread of the mirror, and waits.
 *   3. The pager reads the file from the database and fills its blocks.  With the last block the file is resident.
 *   4. The description keeps the data in memory.  So a process with an open file never needs the mirror, whatever user
 *      it becomes.  A file that is too large for memory, or finds none, gets a spill file (spilled.c).
 *
 * Memory:
 *   - Eviction begins when tables and blocks in use exceed seven eighths of the limit.  With a small limit it begins
 *     when less than a chunk and the reserve is left.  It frees one eighth of the limit.
 *   - A writer that finds no memory wakes the pager and waits, for SPACE_WAIT at most, then returns ENOSPC.  If the
 *     disk fails it waits less, because then nothing can be evicted.  The same holds if the file system of the runtime
 *     directory is full, whatever the limit.
 *   - The reserve (header.reserve) is for the mirror alone, for page-ins.
 *   - Open files can't be evicted.  So a file that holds more than an eighth of the limit leaves the last eighth of
 *     what writers may take (residency_most()) to others: above it, the file's writer waits like one without memory.  A
 *     few clients that send something large, and then nothing, keep nobody else from sending mail.
 *   - The view's server leaves that part to others whatever the file's size is.  An ordinary user's sendmails, which
 *     write by the view, and wait for their input as long as they like, keep the daemon from nothing.
 *
 * Failure modes:
 *   - The mirror dies: requests stay in their list.  A waiter starts another mirror within 100 ms, and that one goes
 *     on.
 *   - A page-in stops half way: the next one fills the same blocks again.
 *   - The read of a damaged page kills the mirror: the next mirror fails that file with EIO, and goes on.
 *   - No memory can be evicted: writers get ENOSPC, and syslog gets one line a minute.
 *   - A wanted file loses its last name: it keeps the name until it is resident, because the deletion must not reach
 *     the database before the pager has read the file (directories.c).
 */
#include "store/residency.h"

#include "base/clock.h"
#include "base/futex.h"
#include "store/await.h"
#include "store/doubt.h"
#include "store/layout.h"
#include "store/lists.h"
#include "store/section.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <sys/stat.h>
#include <syslog.h>

#define SPACE_WAIT       (10 * NS_PER_S)      /* time that a writer waits for memory */
#define SPACE_WAIT_BAD   NS_PER_S             /* the same while commits or checkpoints fail */
#define SPACE_WAIT_AGAIN (300 * NS_PER_MS)    /* the same soon after an ENOSPC */
#define FIRST_TABLES     (3 * CHUNK_SIZE / 2) /* at least what they take when a first message has been there */
#define LARGE_SHARE      8u                   /* a file with more than this part of the limit is large */
#define TELL_EVERY       (60 * NS_PER_S)      /* least time between two lines to syslog */

/* ---- the clean and the cold list ---- */

static void set_flags(struct fastspool *fs, uint32_t i, unsigned set, unsigned clear)
{
    const struct inode *inode = inode_at(fs, i);
    SET(fs, inode->flags, (uint16_t)((inode->flags & ~clear) | set));
}

const struct list *residency_list(const struct fastspool *fs, uint32_t i)
{
    return inode_at(fs, i)->flags & INODE_COLD ? &fs->header->residency.cold : &fs->header->residency.clean;
}

/* Count inode @i into its list (@by 1) or out of it (-1). */
static void count(struct fastspool *fs, uint32_t i, int by)
{
    SET(fs, fs->header->residency.clean_files, fs->header->residency.clean_files + (uint64_t)by);
    if (inode_at(fs, i)->flags & INODE_COLD)
        SET(fs, fs->header->residency.cold_files, fs->header->residency.cold_files + (uint64_t)by);
}

void residency_join(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);

    if (!S_ISREG(inode->mode) || inode->links == 0 || inode->parts == 0 ||
        (inode->flags & (INODE_USED | INODE_DIRTY | INODE_ORPHAN | INODE_CLEAN | INODE_WANTED)) != INODE_USED)
        return;
    lists_append(fs, residency_list(fs, i), LIST_LINK, i);
    set_flags(fs, i, INODE_CLEAN, 0);
    count(fs, i, 1);
}

void residency_leave_clean(struct fastspool *fs, uint32_t i)
{
    if (!(inode_at(fs, i)->flags & INODE_CLEAN))
        return;
    lists_remove(fs, residency_list(fs, i), LIST_LINK, i);
    count(fs, i, -1);
    set_flags(fs, i, 0, INODE_CLEAN | (inode_at(fs, i)->flags & INODE_REFERENCED ? INODE_REFERENCED | INODE_COLD : 0));
}

/* The inode is no longer evicted.  Clears the page-in link or error, which shares memory with data_in and since_from.
 */
static void leave_evicted(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);

    if (inode->flags & INODE_WANTED)
        lists_remove(fs, &fs->header->residency.pageins, PAGEIN_LINK, i);
    set_flags(fs, i, 0, INODE_EVICTED | INODE_WANTED | INODE_UNREADABLE | INODE_COLD);
    SET(fs, inode->data_in, 0);
    SET(fs, inode->since_from, 0);
    SET(fs, fs->header->residency.evicted, fs->header->residency.evicted - 1);
}

static void leave_spilled(struct fastspool *fs, uint32_t i)
{
    set_flags(fs, i, 0, INODE_SPILLED);
    SET(fs, fs->header->residency.spilled, fs->header->residency.spilled - 1);
}

void residency_leave(struct fastspool *fs, uint32_t i)
{
    residency_leave_clean(fs, i);
    if (inode_at(fs, i)->flags & INODE_EVICTED)
        leave_evicted(fs, i);
    if (inode_at(fs, i)->flags & INODE_SPILLED)
        leave_spilled(fs, i);
}

void residency_evict(struct fastspool *fs, uint32_t i)
{
    set_flags(fs, i, INODE_EVICTED, INODE_AHEAD);
    SET(fs, inode_at(fs, i)->pagein_error, 0);
    SET(fs, fs->header->residency.evicted, fs->header->residency.evicted + 1);
    SET(fs, fs->header->residency.evictions, fs->header->residency.evictions + 1);
}

void residency_unspill(struct fastspool *fs, uint32_t i)
{
    leave_spilled(fs, i);
    residency_evict(fs, i);
}

void residency_paged_in(struct fastspool *fs, uint32_t i, bool spilled)
{
    leave_evicted(fs, i);
    SET(fs, fs->header->residency.brought_back, fs->header->residency.brought_back + 1);
    if (spilled) {
        set_flags(fs, i, INODE_SPILLED, 0);
        SET(fs, fs->header->residency.spilled, fs->header->residency.spilled + 1);
        return;
    }
    set_flags(fs, i, INODE_COLD, 0);
    residency_join(fs, i);
}

void residency_give_up(struct fastspool *fs, uint32_t i, int error, bool for_good)
{
    lists_remove(fs, &fs->header->residency.pageins, PAGEIN_LINK, i);
    set_flags(fs, i, for_good ? INODE_UNREADABLE : 0, INODE_WANTED | INODE_AHEAD);
    SET(fs, inode_at(fs, i)->pagein_error, error);
    SET(fs, inode_at(fs, i)->since_from, 0);
    residency_join(fs, i); /* if an earlier page-in has left it blocks */
}

void residency_reference(struct fastspool *fs, uint32_t i)
{
    if (inode_at(fs, i)->flags & INODE_AHEAD)
        set_flags(fs, i, 0, INODE_AHEAD);
    else if ((inode_at(fs, i)->flags & (INODE_CLEAN | INODE_REFERENCED)) == INODE_CLEAN)
        set_flags(fs, i, INODE_REFERENCED, 0);
}

/* ---- memory in use ---- */

/* Above it no chunk could leave when tables want its memory. */
uint64_t residency_high(const struct header *header)
{
    uint64_t limit = LOAD(header->memory_limit), high = limit / 8 * 7,
             chunk = CHUNK_SIZE + header->reserve * BLOCK_SIZE;
    return limit < chunk ? 0 : limit - chunk < high ? limit - chunk : high;
}

uint64_t residency_low(const struct header *header)
{
    uint64_t high = residency_high(header), less = LOAD(header->memory_limit) / 8;
    return high > less ? high - less : 0;
}

uint64_t residency_in_use(const struct header *header)
{
    return table_bytes(header) + (LOAD(header->blocks.used) + LOAD(header->blocks.held)) * BLOCK_SIZE;
}

static void wake_pager(struct fastspool *fs)
{
    futex_count(&ATOMIC(fs->header->residency.pager_wanted));
}

uint64_t residency_most(const struct header *header)
{
    uint64_t limit = LOAD(header->memory_limit), others = 2 * header->reserve * BLOCK_SIZE + CHUNK_SIZE;
    return limit > others ? limit - others : 0;
}

uint64_t residency_most_large(const struct header *header)
{
    uint64_t most = residency_most(header), less = LOAD(header->memory_limit) / LARGE_SHARE;
    return most > less ? most - less : 0;
}

uint64_t residency_largest(const struct header *header)
{
    uint64_t most = residency_most_large(header), used = table_bytes(header);
    uint64_t tables = used > FIRST_TABLES ? used : FIRST_TABLES,
             blocks = most > tables ? (most - tables) / BLOCK_SIZE : 0;

    blocks -= (blocks + INDEX_ENTRIES - 1) / INDEX_ENTRIES; /* which tell where the others are */
    return (blocks < FILE_BLOCKS_MAX ? blocks : FILE_BLOCKS_MAX) * BLOCK_SIZE;
}

bool residency_must_wait(const struct fastspool *fs, const struct inode *inode)
{
    const struct header *h = fs->header;

    return (fs->for_others || (uint64_t)inode->parts * PART_SIZE > LOAD(h->memory_limit) / LARGE_SHARE) &&
           residency_in_use(h) > residency_most_large(h);
}

void residency_notice(struct fastspool *fs)
{
    if (!fs->mirror && residency_in_use(fs->header) > residency_high(fs->header))
        wake_pager(fs);
}

/* One line to syslog every TELL_EVERY, for all processes together. */
static void tell(struct fastspool *fs)
{
    uint64_t now = clock_monotonic(), told = LOAD(fs->header->residency.space_told);

    if ((told && now - told < TELL_EVERY) ||
        !__atomic_compare_exchange_n(&ATOMIC(fs->header->residency.space_told), &told, now, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return;
    syslog(LOG_MAIL | LOG_ERR,
           "fastspool: %s: no memory left in %s (%llu of %llu MiB are in use), and nothing more can be evicted",
           fs->spool, fs->runtime, (unsigned long long)(residency_in_use(fs->header) >> 20),
           (unsigned long long)(LOAD(fs->header->memory_limit) >> 20));
}

int residency_wait_for_space(struct fastspool *fs, uint64_t *since)
{
    const struct header *h = fs->header;
    uint64_t now = clock_monotonic(), lived = now;
    bool bad = LOAD(h->tickets.commit_error) || LOAD(h->disk.checkpoint_error);

    if (fs->mirror || LOAD(h->state) != SEGMENT_READY)
        return -ENOSPC;
    if (*since == 0)
        *since = now;
    /* After an ENOSPC, wait only for a moment: a program that gets an error still tries to write its buffered data, and
     * Exim does so ten times before it answers. */
    bool again = LOAD(fs->refused) && *since - LOAD(fs->refused) < SPACE_WAIT;
    if (now - *since > (again ? SPACE_WAIT_AGAIN : bad ? SPACE_WAIT_BAD : SPACE_WAIT)) {
        STORE(fs->refused, now);
        tell(fs);
        return -ENOSPC;
    }
    uint32_t event = LOAD(h->residency.pager_event);
    __atomic_add_fetch(&ATOMIC(h->residency.space_wanted), 1, __ATOMIC_ACQ_REL);
    wake_pager(fs);
    return await_event(fs, &h->residency.pager_event, event, &ATOMIC(h->residency.pager_wanted), &lived) < 0 ? -ENOSPC
                                                                                                             : 0;
}

/* ---- requests for page-ins ---- */

void residency_want(struct fastspool *fs, uint32_t i)
{
    if (inode_at(fs, i)->flags & INODE_AHEAD)
        set_flags(fs, i, 0, INODE_AHEAD);
    if (inode_at(fs, i)->flags & INODE_WANTED)
        return;
    residency_leave_clean(fs, i); /* a file that is half evicted may be in it */
    lists_append(fs, &fs->header->residency.pageins, PAGEIN_LINK, i);
    set_flags(fs, i, INODE_WANTED, 0);
}

void residency_want_ahead(struct fastspool *fs, uint32_t i)
{
    residency_want(fs, i);
    set_flags(fs, i, INODE_AHEAD, 0);
}

/* State of a page-in.  -EINPROGRESS: it is wanted. */
static int look_at_pagein(struct fastspool *fs, uint32_t i, uint32_t generation)
{
    struct section_read read = SECTION_READ;
    int result;

    do {
        const struct inode *inode = inode_at(fs, i);
        result = section_read_begin(fs, &read);
        if (result < 0)
            continue;
        if (!inode_valid(fs, i) || inode->generation != generation || !(inode->flags & INODE_EVICTED))
            result = 0;
        else if (inode->flags & INODE_WANTED)
            result = -EINPROGRESS;
        else
            result = doubt_result(inode->pagein_error); /* the page-in failed, or the file is evicted again */
    } while (section_read_retry(fs, &read));
    return result;
}

int residency_wait(struct fastspool *fs, uint32_t i, uint32_t generation)
{
    const struct header *h = fs->header;
    uint64_t lived = clock_monotonic();
    int result = 0;

    wake_pager(fs);
    while (result == 0) {
        uint32_t event = LOAD(h->residency.pager_event);
        if (LOAD(h->state) == SEGMENT_FAILED)
            return -EIO;
        int state = look_at_pagein(fs, i, generation);
        if (state != -EINPROGRESS)
            return state;
        if (fs->mirror)
            return -EDEADLK; /* the mirror would wait for itself */
        result = await_event(fs, &h->residency.pager_event, event, &ATOMIC(h->residency.pager_wanted), &lived);
    }
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * Tickets: every change has a number (header.tickets.change), and a process can wait until it is durable.
 *
 * The happy path: one mechanism serves all waiters: a ticket, and a futex that counts ended commits.  An inode knows
 * the ticket of its last change.  strict waits for it.  acked waits, at a directory, for it and for those of all files
 * that the process has synced.  Every other fsync waits only where what is unwritten has reached its bound in bytes,
 * files or age.
 *
 * Failure modes: a commit that failed has left its errno in header.tickets.commit_error, which every fsync whose ticket
 * is not durable returns until a commit succeeds.  A waiter looks every 100 ms whether a mirror lives, and starts one;
 * where none comes up, fsync fails (await.c).
 */
#include "store/tickets.h"

#include "base/clock.h"
#include "base/futex.h"
#include "fastspool.h"
#include "store/await.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>

/* The error of the last commit, for who waits; and where there is no mirror any more, one that tries again. */
static int last_error(struct fastspool *fs)
{
    int error = LOAD(fs->header->tickets.commit_error);

    if (error)
        await_start(fs);
    return error;
}

int tickets_wait(struct fastspool *fs, uint64_t ticket, uint64_t timeout)
{
    uint64_t start = clock_monotonic(), lived = start;
    const struct header *h = fs->header;
    int result = 0;

    if (LOAD(h->tickets.durable) >= ticket)
        return 0;
    futex_count(&ATOMIC(h->mirror.wanted));
    while (result == 0) {
        uint32_t event = LOAD(h->tickets.commit_event);
        if (LOAD(h->tickets.durable) >= ticket)
            return 0;
        if (LOAD(h->state) == SEGMENT_FAILED)
            return -EIO;
        int error = last_error(fs);
        if (error)
            return error;
        if (timeout && clock_monotonic() - start >= timeout)
            return -ETIMEDOUT;
        result = await_event(fs, &h->tickets.commit_event, event, &ATOMIC(h->mirror.wanted), &lived);
    }
    return result;
}

static bool beyond_bounds(const struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint64_t oldest =
        LOAD(h->tickets.oldest_captured) ? LOAD(h->tickets.oldest_captured) : LOAD(h->tickets.oldest_dirty);
    uint64_t most = h->flush_interval * TICKETS_AGE_MAX;

    if (most < NS_PER_S)
        most = NS_PER_S;
    return LOAD(h->tickets.dirty_bytes) > TICKETS_BYTES_MAX || LOAD(h->tickets.dirty_files) > TICKETS_FILES_MAX ||
           (oldest && clock_monotonic() - oldest > most);
}

/* An fsync that need not wait for its own change. */
static int wait_for_bounds(struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint64_t lived = clock_monotonic();
    int result = 0;

    while (result == 0) {
        uint32_t event = LOAD(h->tickets.commit_event);
        if (LOAD(h->state) == SEGMENT_FAILED)
            return -EIO;
        int error = last_error(fs);
        if (error)
            return error;
        if (!beyond_bounds(fs))
            return 0;
        futex_count(&ATOMIC(h->mirror.wanted));
        result = await_event(fs, &h->tickets.commit_event, event, &ATOMIC(h->mirror.wanted), &lived);
    }
    return result;
}

/* Threads of a process sync side by side: the highest ticket counts. */
static uint64_t note_synced(struct fastspool *fs, uint64_t ticket)
{
    uint64_t synced = LOAD(fs->synced);

    while (synced < ticket &&
           !__atomic_compare_exchange_n(&fs->synced, &synced, ticket, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    return synced > ticket ? synced : ticket;
}

int tickets_sync(struct fastspool *fs, uint64_t ticket, bool directory)
{
    bool waits = fs->durability == FASTSPOOL_STRICT || (fs->durability == FASTSPOOL_ACKED && directory);

    if (fs->durability == FASTSPOOL_ACKED) {
        uint64_t synced = note_synced(fs, ticket);
        ticket = directory ? synced : ticket;
    }
    if (waits)
        return tickets_wait(fs, ticket, 0);
    return LOAD(fs->header->tickets.durable) >= ticket ? 0 : wait_for_bounds(fs);
}

int fastspool_flush(struct fastspool *fs, uint64_t timeout)
{
    return tickets_wait(fs, section_load(fs, &fs->header->tickets.change), timeout);
}

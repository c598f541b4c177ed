/* SPDX-License-Identifier: MIT
 *
 * Tickets: every change has a number (header.tickets.change), and a process can wait until that change is durable.
 *
 * The happy path: a waiter has a ticket, and sleeps on a futex that counts commits.  It is woken by the commit that has
 * its change, not by the one that ran when it came.  An inode has the ticket of its last change.  A waiter counts once,
 * however long it waits: the mirror takes the count for how many wait (lib/mirror/rhythm.c).
 *   - strict: every fsync waits for that ticket.
 *   - acked: fsync of a directory waits for that ticket, and for those of all files that the process has synced.
 *   - Every other fsync waits only while the changes that are not on the disk exceed a bound in bytes, files or age.
 *
 * Failure modes:
 *   - A commit fails: its errno is in header.tickets.commit_error.  Until a commit succeeds, every fsync whose ticket
 *     is not durable returns it.
 *   - The mirror dies: a waiter checks every 100 ms whether a mirror lives, and starts one.
 *   - No mirror comes up: fsync fails (await.c).
 */
#include "store/tickets.h"

#include "base/clock.h"
#include "base/futex.h"
#include "fastspool.h"
#include "store/access.h"
#include "store/await.h"
#include "store/doubt.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>

/* Why nobody waits for a commit: the store has failed, or the last commit has.  After the latter, start a mirror that
 * tries again, if none lives. */
static int last_error(struct fastspool *fs)
{
    int error = doubt_result(LOAD(fs->header->tickets.commit_error));

    if (LOAD(fs->header->state) == SEGMENT_FAILED)
        return -EIO;
    if (error)
        await_start(fs);
    return error;
}

/* The number of the capture that has the change, be it taken or the next one. */
static uint32_t capture_of(struct fastspool *fs, uint64_t ticket)
{
    const struct tickets_state *tickets = &fs->header->tickets;
    struct section_read read = SECTION_READ;
    uint32_t number;

    do {
        (void)section_read_begin(fs, &read); /* of the header alone */
        number = LOAD(tickets->capture) + (LOAD(tickets->captured) < ticket);
    } while (section_read_retry(fs, &read));
    return number;
}

/* Wait until change @ticket is durable, for @timeout ns, 0: without limit. */
static int wait_for(struct fastspool *fs, uint64_t ticket, uint64_t timeout)
{
    uint64_t start = clock_monotonic(), lived = start;
    const struct header *h = fs->header;
    int result = 0;

    if (LOAD(h->tickets.durable) >= ticket)
        return 0;
    futex_count_to(&ATOMIC(h->mirror.wanted), &ATOMIC(h->mirror.enough));
    while (result == 0) {
        uint32_t event = LOAD(h->tickets.commit_event);
        if (LOAD(h->tickets.durable) >= ticket)
            return 0;
        int error = last_error(fs);
        if (error)
            return error;
        if (timeout && clock_monotonic() - start >= timeout)
            return -ETIMEDOUT;
        futex_wait_in(&h->tickets.commit_event, capture_of(fs, ticket), event, AWAIT_LOOK);
        result = await_awake(fs, &h->tickets.commit_event, event, &lived);
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

/* For an fsync that need not wait for its own change.  It counts for each commit that it waits for. */
static int wait_for_bounds(struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint64_t lived = clock_monotonic();
    uint32_t event = LOAD(h->tickets.commit_event) - 1;
    int result = 0;

    while (result == 0) {
        const uint32_t before = event;
        event = LOAD(h->tickets.commit_event);
        int error = last_error(fs);
        if (error)
            return error;
        if (!beyond_bounds(fs))
            return 0;
        if (event != before)
            futex_count(&ATOMIC(h->mirror.wanted));
        futex_wait(&h->tickets.commit_event, event, AWAIT_LOOK);
        result = await_awake(fs, &h->tickets.commit_event, event, &lived);
    }
    return result;
}

/* Threads of a process sync at the same time: keep the highest ticket. */
static uint64_t note_synced(uint64_t *place, uint64_t ticket)
{
    uint64_t synced = LOAD(*place);

    while (synced < ticket &&
           !__atomic_compare_exchange_n(place, &synced, ticket, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    return synced > ticket ? synced : ticket;
}

int tickets_sync(struct fastspool *fs, uint64_t ticket, bool directory)
{
    bool waits = fs->durability == FASTSPOOL_STRICT || (fs->durability == FASTSPOOL_ACKED && directory);

    if (fs->durability == FASTSPOOL_ACKED) {
        uint64_t synced = note_synced(access_synced(fs), ticket);
        ticket = directory ? synced : ticket;
    }
    if (waits)
        return wait_for(fs, ticket, 0);
    return LOAD(fs->header->tickets.durable) >= ticket ? 0 : wait_for_bounds(fs);
}

int fastspool_flush(struct fastspool *fs, uint64_t timeout)
{
    return wait_for(fs, section_load(fs, &fs->header->tickets.change), timeout);
}

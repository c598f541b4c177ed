/* SPDX-License-Identifier: MIT
 *
 * The committer.
 *
 * The happy path: capture, one batch to the journal, end; what changes meanwhile is the next batch.
 *
 * Failure modes:
 *  - The journal is full: wait for the checkpoint that makes room; the checkpoint's error is the commit's.
 *  - The disk has no room for another file of the journal: one checkpoint, one more try.
 *  - A part of the journal is gone: all of it is written anew (rescue.c), where it is sure that it is lost.  Where that
 *    is found with a batch on its way, its waiters sleep on meanwhile.
 *  - A write fails: the waiters get its error, all of it stays dirty, and the caller tries again.
 */
#include "mirror/committer.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/futex.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/checkpointer.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/rescue.h"
#include "store/store.h"

#include <errno.h>
#include <syslog.h>

#define SLICE      NS_PER_S        /* of a longer interval: the caller has more to do */
#define TELL_EVERY (60 * NS_PER_S) /* of the same, said by one mirror after the other */

bool committer_is_news(const struct fastspool *fs, int error)
{
    const struct mirror_state *mirror = &fs->header->mirror;
    uint64_t told = LOAD(mirror->gave_up);

    return !told || LOAD(mirror->gave_up_with) != error || clock_monotonic() - told >= TELL_EVERY;
}

void committer_gave_up(struct fastspool *fs, int error)
{
    STORE(fs->header->mirror.gave_up_with, error);
    STORE(fs->header->mirror.gave_up, clock_monotonic());
}

static void tell(struct fastspool *fs, int result, const char *error)
{
    if (result < 0 && LOAD(fs->header->tickets.commit_error) != result && committer_is_news(fs, result))
        syslog(LOG_MAIL | LOG_ERR, "%s: commit: %s", fs->spool, error);
    if (result == 0 && (LOAD(fs->header->tickets.commit_error) || LOAD(fs->header->mirror.gave_up)))
        syslog(LOG_MAIL | LOG_NOTICE, "%s: commits succeed again", fs->spool);
    if (result == 0)
        STORE(fs->header->mirror.gave_up, 0);
}

/* Nothing could be captured, because of @error; or nothing is to be written, and what was lost is back, as where a disk
 * was away.  Whether another error is over only a write tells. */
static void end_nothing(struct fastspool *fs, int error)
{
    if (error == 0)
        tell(fs, 0, NULL);
    capture_fail(fs, error);
}

/* A part of the journal is gone: no recovery would read what is written behind it. */
static int rescue(struct committer *committer)
{
    struct checkpointer *c = committer->checkpointer;
    char error[FASTSPOOL_ERROR_MAX];

    checkpointer_hold(c);
    int result = rescue_run(committer->fs, c->journal, c->database, error);
    checkpointer_release(c, result == 0);
    if (result == -EBADMSG)
        result = -EIO; /* what an fsync returns for damage */
    if (result < 0) {
        tell(committer->fs, result, error);
        capture_fail(committer->fs, result);
    }
    return result;
}

/* The batch did not get into the journal, which is not whole, because of @error: it goes with all the rest.  @before:
 * the count of waiters when it was captured. */
static int rescue_batch(struct committer *committer, struct capture *capture, int error, uint32_t before)
{
    int result = capture_put_back(committer->fs, capture, error);

    if (result < 0)
        capture_fail(committer->fs, result);
    else
        result = rescue(committer);
    if (result == 0)
        committer->rhythm.captured = before;
    return result;
}

/* One commit.  0: it is on the disk, or nothing was dirty.  Its end wakes waiters, and the next ones may come before it
 * has returned. */
static int commit(struct committer *committer)
{
    struct fastspool *fs = committer->fs;
    struct checkpointer *c = committer->checkpointer;
    struct capture capture;
    char error[FASTSPOOL_ERROR_MAX] = "the journal is full, and no checkpoint can be made";
    int whole = journal_files_lost(&c->journal->pool) ? rescue(committer) : 0;
    if (whole < 0)
        return whole;
    int room = checkpointer_wait_for_room(c);
    uint32_t before = LOAD(fs->header->mirror.wanted);
    int result = capture_take(fs, &capture);

    if (result < 0 || capture.count == 0) {
        if (result < 0 || LOAD(fs->header->tickets.commit_error) == -ESTALE)
            end_nothing(fs, result);
        committer->rhythm.captured = before;
        return result;
    }
    uint64_t begun = clock_precise();
    result = room < 0 ? room : journal_append(c->journal, &capture, error);
    if (error_is_full(result) && checkpointer_wait_for_files(c) == 0)
        result = journal_append(c->journal, &capture, error);
    if (result < 0 && journal_files_lost(&c->journal->pool))
        return rescue_batch(committer, &capture, result, before);
    tell(fs, result, error);
    uint64_t now = clock_precise();
    rhythm_keep(&committer->rhythm, before, LOAD(fs->header->mirror.wanted), begun, now);
    int ended = capture_end(fs, &capture, result, now - begun);
    if (journal_files_wanting(&c->journal->pool))
        checkpointer_wake(c);
    return result < 0 ? result : ended;
}

/* Sleep for @duration, or until the count of waiters, now @wanted, comes to @until, or SIGTERM.  The ones before make
 * no system call to wake a mirror that would only count them, nor do those behind it, while the mirror wakes up. */
static void doze(struct fastspool *fs, uint32_t wanted, uint32_t until, uint64_t duration)
{
    const struct header *h = fs->header;

    __atomic_store_n(&ATOMIC(h->mirror.enough), until, __ATOMIC_SEQ_CST);
    futex_wait(&h->mirror.wanted, wanted, duration);
    STORE(h->mirror.enough, wanted + FUTEX_NEVER);
}

void committer_init(struct committer *committer, struct fastspool *fs, struct checkpointer *checkpointer)
{
    *committer = (struct committer){.fs = fs, .checkpointer = checkpointer};
    committer->rhythm.captured = LOAD(fs->header->mirror.wanted);
}

void committer_beat(struct fastspool *fs)
{
    STORE(fs->header->mirror.beat, clock_monotonic());
}

int committer_commit(struct committer *committer)
{
    struct fastspool *fs = committer->fs;
    int result = commit(committer);

    committer_beat(fs);
    committer->committed = clock_monotonic();
    return result;
}

int committer_seal(struct committer *committer, const char *why)
{
    struct fastspool *fs = committer->fs;
    struct capture capture;
    char error[FASTSPOOL_ERROR_MAX];
    int result = capture_take_last(fs, &capture, why);

    if (result == 0 && capture.count > 0) {
        result = journal_append(committer->checkpointer->journal, &capture, error);
        capture_end(fs, &capture, result < 0 ? result : -EIO, 0); /* in a FAILED store each wait ends with EIO */
    }
    return result;
}

/* Group commit.  With a waiter: commit when the rhythm says so.  Without one: when the flush interval is over. */
bool committer_gather(struct committer *committer, bool (*ending)(const struct fastspool *fs))
{
    struct fastspool *fs = committer->fs;
    const struct rhythm *rhythm = &committer->rhythm;
    uint64_t first = 0;

    committer_beat(fs);
    uint64_t passed = clock_monotonic() - committer->committed, interval = fs->header->flush_interval;
    if (LOAD(fs->header->mirror.wanted) == rhythm->captured && passed < interval) {
        doze(fs, rhythm->captured, rhythm->captured + 1, interval - passed < SLICE ? interval - passed : SLICE);
        if (LOAD(fs->header->mirror.wanted) == rhythm->captured && interval - passed > SLICE)
            return false;
    }
    while (!ending(fs)) {
        uint32_t wanted = LOAD(fs->header->mirror.wanted), waiting = wanted - rhythm->captured, enough;
        uint64_t now = clock_precise();
        first = first ? first : now;
        uint64_t wait = rhythm_wait(rhythm, waiting, first, now, &enough);
        if (waiting == 0 || wait == 0)
            return true;
        doze(fs, wanted, rhythm->captured + enough, wait);
    }
    return true;
}

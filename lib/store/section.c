/* SPDX-License-Identifier: MIT
 *
 * Critical sections: every change of the segment happens in one, completely or not at all.
 *
 * The happy path:
 *   1. Block signals (section_guard), take the lock, make the sequence count odd.
 *   2. Run the body.  It records each word in the undo log before it changes the word.
 *   3. Set the count of the log to zero: from here on the change is done.
 *   4. Make the sequence count even, release the lock.
 *
 * Readers take no lock.  They copy between two loads of the sequence count, and copy again if the count moved.
 *
 * Failure modes:
 *   - The body fails: the section rolls back, the newest undo entry first, and nothing has changed.
 *   - The process is killed inside: the next process that takes the lock learns of the death (mutex.h), rolls back and
 *     goes on.  A roll back writes old values to fixed places, so a roll back that is itself killed just
 *     starts again.  An undo entry is complete before the count includes it, and the count includes it before its word
 *     changes.  So an undo entry covers every changed word at every instant.
 *   - A table is full: the body calls section_want(), and the section rolls back.  change.c grows the table.
 *   - The log holds nonsense: the segment is damaged.  It becomes FAILED, and every later call returns -EIO.
 *   - The lock is taken: the process sleeps outside the guard, so signals arrive, and a handler that leaves by longjmp
 *     leaves nothing behind.
 *   - The lock stays taken for seconds: one line to syslog every LOCK_WARNING, and the process waits on.
 *   - The same in a process that has been asked to end and catches SIGTERM, the mirror: -EIO after LOCK_WARNING.
 *   - Code changes the segment outside a section: SET() and section_copy() assert section_inside, and the process
 *     aborts before the change.
 */
#include "store/section.h"

#include "base/clock.h"
#include "base/guard.h"
#include "store/history.h"
#include "store/layout.h"
#include "store/mutex.h"
#include "store/span.h"
#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define LOCK_WARNING  (5 * NS_PER_S)
#define READS_PER_TRY 16 /* loads of an odd count in one try of a reader */

__attribute__((weak)) struct section_guard section_guard;
__thread const struct fastspool *section_inside __attribute__((tls_model("initial-exec")));

static __thread enum table_id wanted = TABLE_NONE; /* that the running body wants */
static __thread bool damaged;                      /* the running body has met damage, whatever it returns */

void section_failure(const struct fastspool *fs, const char *sentence)
{
    char *failure = WRITABLE(*fs->header).failure;
    size_t length = strnlen(sentence, sizeof(fs->header->failure) - 1);

    memcpy(failure, sentence, length);
    failure[length] = '\0';
}

const char *section_sentence(const struct header *header, char sentence[SECTION_SENTENCE])
{
    char copy[sizeof(header->failure)];

    memcpy(copy, header->failure, sizeof(copy));
    return escape_bytes(sentence, SECTION_SENTENCE, copy, strnlen(copy, sizeof(copy)));
}

int section_damaged(const struct fastspool *fs, const char *what)
{
    const struct header *header = fs->header;
    uint32_t ready = SEGMENT_READY;

    if (__atomic_compare_exchange_n(&ATOMIC(header->state), &ready, SEGMENT_FAILED, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        section_failure(fs, what);
    damaged = true;
    syslog(
        LOG_MAIL | LOG_ERR,
        "fastspool: %s: the segment %s is damaged: %s; every call fails until its mirror has ended and the directory "
        "is removed: then the next start of Exim brings back what is on the disk",
        fs->spool, fs->runtime, what);
    return -EIO;
}

/* As the sequence count, for readers of data: odd while words go back (layout.h, section_state). */
static void rollbacks_odd(const struct header *header)
{
    __atomic_store_n(&ATOMIC(header->section.rollbacks), header->section.rollbacks | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void rollbacks_even(const struct header *header)
{
    if (header->section.rollbacks & 1) /* a process may have died in a rollback that was complete */
        STORE(header->section.rollbacks, header->section.rollbacks + 1);
}

/* A section of a process that had more address space may have changed words that this one can't map. */
static void put_back(struct fastspool *fs, struct undo entry)
{
    if (span_covers(fs, entry.offset)) {
        const uint64_t *word = (const uint64_t *)(fs->base + entry.offset);
        __atomic_store_n(&WRITABLE(*word), entry.before, __ATOMIC_RELEASE);
    } else {
        ssize_t ignored = pwrite(fs->segment_fd, &entry.before, sizeof(entry.before), (off_t)entry.offset);
        (void)ignored;
    }
}

/* Undo all changes of the section so far.  A process that dies in it leaves the log whole, for the next one. */
static int roll_back(struct fastspool *fs)
{
    const struct header *header = fs->header;
    uint32_t count = LOAD(header->section.undo_count);

    if (count > UNDO_MAX)
        return section_damaged(fs, "the undo log counts more entries than it can hold");
    if (count > 0)
        rollbacks_odd(header);
    while (count > 0) {
        const struct undo *in_log = &header->undo[--count];
        const struct undo entry = {LOAD(in_log->offset),
                                   LOAD(in_log->before)}; /* once: it may change after the check */
        if (entry.offset % 8 != 0 || entry.offset >= SEGMENT_SIZE)
            return section_damaged(fs, "the undo log leads out of the segment");
        put_back(fs, entry);
    }
    STORE(header->section.undo_count, 0);
    rollbacks_even(header);
    return 0;
}

static void sequence_odd(const struct header *header)
{
    __atomic_store_n(&ATOMIC(header->section.sequence), header->section.sequence | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void sequence_even(const struct header *header)
{
    STORE(header->section.sequence, (header->section.sequence | 1) + 1);
}

/* Sleep until the lock may be free, with a line to syslog every LOCK_WARNING.  -EIO: the process is to end. */
static int wait_for_lock(struct fastspool *fs, struct mutex_wait *wait)
{
    uint64_t before = wait->since ? (clock_monotonic() - wait->since) / LOCK_WARNING : 0;

    mutex_sleep(fs, wait);
    uint64_t waited = clock_monotonic() - wait->since;
    if (waited / LOCK_WARNING > before)
        syslog(
            LOG_MAIL | LOG_WARNING,
            "fastspool: %s: waiting for the store's lock for %llu s; thread %u has held it without a change for %u s",
            fs->spool, (unsigned long long)(waited / NS_PER_S), wait->holder,
            (unsigned)(wait->looks * MUTEX_LOOK / NS_PER_S));
    return waited > LOCK_WARNING && fs->is_ending && fs->is_ending(fs) ? -EIO : 0;
}

static int lock_fails(struct fastspool *fs, int error)
{
    syslog(LOG_MAIL | LOG_ERR, "fastspool: %s: %s", fs->spool,
           error == -EXDEV ? "this process has come into another PID namespace than the store's"
           : error == -EDEADLK
               ? "a signal handler used the store while its thread was inside: see \"Signals\" in fastspool.h"
               : "the kernel has no robust futexes, which the store's lock needs");
    return -EIO;
}

/* Roll back the section of a dead holder. */
static int repair(struct fastspool *fs)
{
    int undone = (int)LOAD(fs->header->section.undo_count), failed = roll_back(fs);

    sequence_even(fs->header);
    history_note(fs->header, HISTORY_ROLLBACK, HISTORY_NO_NAME, failed ? failed : undone);
    return failed;
}

static void unlock(struct fastspool *fs)
{
    mutex_release(fs);
    guard_leave();
}

/* Inside the guard, behind a first try whose @result was none: the lock is taken, its last holder is dead, or it can't
 * be had.  As lock().  (By itself, so that the way of nearly all calls saves no registers for it.) */
static __attribute__((noinline)) int lock_slowly(struct fastspool *fs, int result)
{
    struct mutex_wait wait = {0};

    while (result == MUTEX_BUSY) {
        guard_leave();
        result = wait_for_lock(fs, &wait);
        if (result < 0)
            return result;
        guard_enter();
        result = mutex_try(fs, &wait);
    }
    if (result < 0) {
        guard_leave();
        return lock_fails(fs, result);
    }
    result = result == MUTEX_TAKEN_OVER ? repair(fs) : 0;
    if (result < 0)
        unlock(fs);
    return result;
}

/* Enter the guard and take the lock.  If its last holder died inside a section, roll that section back first.  On
 * failure neither is held. */
static inline __attribute__((always_inline)) int lock(struct fastspool *fs)
{
    static const struct mutex_wait none;

    guard_enter();
    int result = mutex_try(fs, &none);
    if (result != MUTEX_TAKEN)
        result = lock_slowly(fs, result);
    if (result < 0)
        return result;
    result = LOAD(fs->header->state) == SEGMENT_FAILED ? -EIO : span_follow(fs);
    if (result < 0)
        unlock(fs);
    return result;
}

void section_log_full(const struct fastspool *fs)
{
    assert(section_inside == fs);
    if (!damaged)
        section_damaged(fs, "a section changes more than the undo log can hold");
}

int section_want(enum table_id table)
{
    assert(section_inside);
    wanted = table;
    return -EAGAIN;
}

/* The body has ended, and all its changes with it: @result.  (By itself, as few do.) */
static __attribute__((noinline)) int take_back(struct fastspool *fs, int result)
{
    roll_back(fs);
    if (damaged)
        return -EIO;
    return result == -EAGAIN && wanted != TABLE_NONE ? SECTION_WANTS - (int)wanted : result;
}

int section_try(struct fastspool *fs, const char *name, section_body *body, void *argument)
{
    const struct header *header = fs->header;
    int result = lock(fs);

    if (result < 0)
        return result;
    wanted = TABLE_NONE;
    damaged = false;
    sequence_odd(header);
    section_inside = fs;
    result = body(fs, argument);
    section_inside = NULL;
    if (result < 0 || damaged)
        result = take_back(fs, result);
    else
        STORE(header->section.undo_count, 0);
    history_note(header, HISTORY_SECTION, name, result > SECTION_WANTS ? result : -EAGAIN);
    sequence_even(header);
    unlock(fs);
    return result;
}

int section_run_named(struct fastspool *fs, const char *name, section_body *body, void *argument)
{
    int result = section_try(fs, name, body, argument);

    assert(result > SECTION_WANTS);
    return result;
}

/* (By itself: readers without the lock save no registers for it.) */
static __attribute__((noinline)) int read_locked(struct fastspool *fs, struct section_read *read)
{
    int result = lock(fs);

    read->locked = result == 0;
    return result == -ENOMEM ? result : 0;
}

int section_read_begin(struct fastspool *fs, struct section_read *read)
{
    for (; read->tries < SECTION_READ_TRIES; read->tries++) {
        for (int i = 0; i < READS_PER_TRY; i++) {
            read->sequence = LOAD(fs->header->section.sequence);
            if ((read->sequence & 1) == 0)
                return span_follow(fs); /* after the sequence: the tables are as large as what it published needs */
            atomic_pause();
        }
    }
    return read_locked(fs, read);
}

bool section_read_retry(struct fastspool *fs, struct section_read *read)
{
    if (read->locked) {
        unlock(fs);
        return false;
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    read->tries++;
    return read->tries <= SECTION_READ_TRIES &&
           __atomic_load_n(&fs->header->section.sequence, __ATOMIC_RELAXED) != read->sequence;
}

uint64_t section_load(struct fastspool *fs, const uint64_t *word)
{
    struct section_read read = SECTION_READ;
    uint64_t value;

    do {
        (void)section_read_begin(fs, &read); /* of the header alone */
        value = LOAD(*word);
    } while (section_read_retry(fs, &read));
    return value;
}

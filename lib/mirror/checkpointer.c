/* SPDX-License-Identifier: MIT
 *
 * The checkpointer.
 *
 * The happy path: make a spare file where there is none; sleep until woken, or for a second; make a checkpoint where
 * one is due.
 *
 * Failure modes:
 *  - No spare file can be made: the commit that needs the file reports it.
 *  - A checkpoint finds the disk full: once more, after two empty transactions that let LMDB use freed pages.
 *  - A checkpoint fails: syslog, header.disk.checkpoint_error, and another try after a second.  Commits go on until the
 *    journal is full; then this error is theirs.
 *  - STATE/lock was removed: the database may be that of a store that was made beside this one, and stays as it is.
 */
#include "mirror/checkpointer.h"

#include "base/clock.h"
#include "base/error.h"
#include "fastspool.h"
#include "mirror/checkpoint.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/thread.h"
#include "spool/presence.h"
#include "store/store.h"

#include <errno.h>
#include <syslog.h>
#include <time.h>

static int try_checkpoint(struct checkpointer *c, bool turn_over, char error[FASTSPOOL_ERROR_MAX])
{
    struct database *database;
    int result = shared_database_enter(c->database, &database, error);

    if (result < 0)
        return result;
    if (turn_over)
        result = database_turn_over(database, error);
    if (result == 0)
        result = checkpoint_run(database, c->journal, error);
    shared_database_leave(c->database, result < 0);
    return result;
}

/* May a checkpoint be tried? */
static int check(const struct checkpointer *c, char *error)
{
    const char *why = journal_files_lost(&c->journal->pool) ? "the journal is not whole"
                      : !presence_is_valid(c->fs->presence_fd, c->journal->pool.above)
                          ? "the lock of the state was removed or replaced"
                          : NULL;

    return why ? error_set(error, -ESTALE, "%s", why) : 0;
}

static void checkpoint(struct checkpointer *c)
{
    char error[FASTSPOOL_ERROR_MAX];

    pthread_mutex_lock(&c->mutex);
    c->begun++;
    pthread_mutex_unlock(&c->mutex);
    pthread_mutex_lock(&c->running);
    int result = check(c, error);
    if (result == 0)
        result = try_checkpoint(c, false, error);
    if (error_is_full(result) || result == -EIO) /* LMDB calls a write that a full disk cut short EIO */
        result = try_checkpoint(c, true, error);
    if (result == -EBADMSG)
        result = -EIO; /* what an fsync returns for damage */
    if (result < 0 && journal_files_lost(&c->journal->pool))
        result = -ESTALE; /* memory alone has it, until the next commit */
    pthread_mutex_unlock(&c->running);
    pthread_mutex_lock(&c->mutex);
    if (result < 0 && c->error != result)
        syslog(LOG_MAIL | LOG_ERR, "%s: checkpoint: %s", c->fs->spool, error);
    if (result == 0 && c->error)
        syslog(LOG_MAIL | LOG_NOTICE, "%s: checkpoints succeed again", c->fs->spool);
    c->error = result;
    STORE(c->fs->header->disk.checkpoint_error, result);
    c->ended = c->begun;
    pthread_cond_broadcast(&c->done);
    pthread_mutex_unlock(&c->mutex);
}

static void *run(void *argument)
{
    struct checkpointer *c = argument;
    bool ending = false;

    if (LOAD(c->fs->header->disk.checkpoint_error)) /* of the mirror before: it may be over */
        checkpoint(c);
    while (!ending) {
        struct timespec until;
        journal_files_prepare(&c->journal->pool); /* on failure, the commit that needs the file reports it */
        pthread_mutex_lock(&c->mutex);
        pthread_cond_broadcast(&c->done);       /* a spare file may do what a checkpoint was awaited for */
        clock_gettime(CLOCK_MONOTONIC, &until); /* the machine's time may be set back */
        until.tv_sec++;
        int timeout = journal_files_due(&c->journal->pool) && c->error == 0 ? ETIMEDOUT : 0;
        do /* after an error, wait out the second however often a checkpoint is wanted */
            timeout =
                timeout || c->ending ? ETIMEDOUT : pthread_cond_clockwait(&c->wake, &c->mutex, CLOCK_MONOTONIC, &until);
        while (timeout == 0 && c->error && !c->ending);
        ending = c->ending;
        pthread_mutex_unlock(&c->mutex);
        if (ending || journal_files_due(&c->journal->pool))
            checkpoint(c);
    }
    return NULL;
}

int checkpointer_start(struct checkpointer *c)
{
    pthread_mutex_init(&c->running, NULL);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->wake, NULL);
    pthread_cond_init(&c->done, NULL);
    int result = thread_start(&c->thread, run, c);
    STORE(c->ready, result == 0);
    return result;
}

static void wake(struct checkpointer *c, bool ending)
{
    pthread_mutex_lock(&c->mutex);
    c->ending |= ending;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mutex);
}

void checkpointer_wake(struct checkpointer *c)
{
    wake(c, false);
}

void checkpointer_end(struct checkpointer *c)
{
    struct timespec until;

    STORE(c->ready, 0);
    wake(c, true);
    do { /* a mirror that works gives signs of life: this thread, which gives them, waits */
        STORE(c->fs->header->mirror.beat, clock_monotonic());
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
    } while (pthread_clockjoin_np(c->thread, NULL, CLOCK_MONOTONIC, &until) == ETIMEDOUT);
}

void checkpointer_want(void *checkpointer)
{
    struct checkpointer *c = checkpointer;

    if (!LOAD(c->ready))
        return;
    journal_files_want_checkpoint(&c->journal->pool);
    checkpointer_wake(c);
}

void checkpointer_hold(struct checkpointer *c)
{
    pthread_mutex_lock(&c->running);
}

void checkpointer_release(struct checkpointer *c, bool whole)
{
    pthread_mutex_unlock(&c->running);
    pthread_mutex_lock(&c->mutex);
    if (whole)
        c->error = 0;
    if (whole)
        STORE(c->fs->header->disk.checkpoint_error, 0);
    pthread_mutex_unlock(&c->mutex);
}

int checkpointer_wait_for_room(struct checkpointer *c)
{
    pthread_mutex_lock(&c->mutex);
    while (journal_files_full(&c->journal->pool) && c->error == 0)
        pthread_cond_wait(&c->done, &c->mutex);
    int result = journal_files_full(&c->journal->pool) ? c->error : 0;
    pthread_mutex_unlock(&c->mutex);
    return result;
}

int checkpointer_wait_for_files(struct checkpointer *c)
{
    pthread_mutex_lock(&c->mutex);
    unsigned next = c->begun + 1;
    pthread_cond_signal(&c->wake);
    while (c->error == 0 && c->ended < next && (c->begun != c->ended || journal_files_due(&c->journal->pool)))
        pthread_cond_wait(&c->done, &c->mutex);
    int result = c->error;
    pthread_mutex_unlock(&c->mutex);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * Whose store it is: of those who live, or nobody's.
 *
 * The happy path:
 *   - Somebody lives, as the lock of STATE/lock says (presence.c): open what they use, and join them.
 *   - Nobody lives: one process claims the store.  What the dead have left in memory it takes over.  After a reboot
 *     there is nothing: it makes an empty store.
 *
 * Failure modes:
 *   - Somebody lives, and this process can't see the memory (a /dev/shm of its own), or lives in another PID namespace:
 *     it is refused, and nothing is removed or replaced.
 *   - Nobody but a mirror lives, and this process can't reach its memory: the mirror ends (presence_wait()).
 *   - Those who live are about to end: it waits some seconds.
 *   - They have given the memory back between its open and the announcement: it looks again, and makes a store.
 *   - This process may not claim: it is a trusted user's, or the disk is read-only.  It joins the dead, if they have
 *     left a store that can be used.
 *   - The segment is another version's: it is replaced only if the disk has all of it.
 */
#include "spool/claim.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/places.h"
#include "spool/memory.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "store/await.h"
#include "store/release.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define LOOK     (10 * NS_PER_MS) /* between two looks at those who live */
#define PATIENCE (4 * NS_PER_S)   /* with them: a mirror looks at its store once a second */

int claim_terminated(const struct fastspool *fs, char *error)
{
    return error_set(error, -EINTR, "%s: a signal has ended the wait for its store", fs->spool);
}

static bool is_unusable(int result)
{
    return result == -ENOENT || result == -ESTALE || result == -EXDEV || result == -EADDRINUSE;
}

/* As on NFS without its lock service, or in a sandbox. */
static int refuse_locks(const struct fastspool *fs, int result, char *error)
{
    return error_set(error, result,
                     "%s: %s/" PLACES_LOCK
                     " can't be locked (F_OFD_SETLK: %s): put the state on a file system with record locks",
                     fs->spool, fs->state, strerrordesc_np(-result));
}

static int announce(const struct fastspool *fs, char *error)
{
    int result = presence_announce(fs->presence_fd);
    return result < 0 && result != -EAGAIN ? refuse_locks(fs, result, error) : result;
}

/* Join those who live: they keep the store from being removed or replaced.  -EAGAIN: it has just been removed or
 * replaced: by `fastspool stop`, or by a mirror that lived alone. */
static int join(struct fastspool *fs, int state_fd, const struct stat *spool, struct record *record, char *error)
{
    struct record now;
    int result = memory_open(fs, state_fd, spool, record, error);

    if (result == 0 && !segment_is_within_reach(fs))
        result = -EXDEV;
    if (result == 0 && !record_is_of(record, spool, fs->spool))
        result = -EADDRINUSE;
    if (result == 0)
        result = announce(fs, error);
    if (result == 0 && (record_read(state_fd, &now) < 0 || strcmp(now.runtime, record->runtime) != 0 ||
                        !segment_is_there(fs) || !presence_is_still(record->held, state_fd)))
        result = -EAGAIN;
    if (result < 0) {
        presence_withdraw(fs->presence_fd);
        memory_close(fs);
    }
    return result;
}

/* With the claim: the segment of the dead is another version's, as @error says.  -ENOENT: the disk has all of it, and
 * this process may make a new one, to recover it from there.  Else -EPROTO, with another sentence where memory alone
 * has a part of it. */
static int check_other_version(const struct fastspool *fs, const struct stat *spool, bool create, char *error)
{
    char why[FASTSPOOL_ERROR_MAX];
    struct release release;

    if (release_open(fs->runtime, spool, &release, why) < 0)
        return -EPROTO;
    bool written = LOAD(*release.unwritten) == 0;
    uint32_t version = release.version;
    release_close(&release);
    if (!written)
        return error_set(error, -EPROTO,
                         "%s: its store, of layout version %u, has changes that are not on the disk, as its mirror was "
                         "killed: install the version before this one, start Exim, and run `fastspool stop` until its "
                         "exit status is 0; then this one brings all of it back",
                         fs->spool, version);
    return create ? -ENOENT : -EPROTO;
}

/* With the claim: does the store of the dead lie in memory?  A disk's file may be older than the machine's start, and
 * half written: -ENOENT. */
static int check_memory(struct fastspool *fs, char *error)
{
    int result = segment_is_memory(fs);

    if (result < 0)
        return error_set(error, result, "%s: it can't be told whether its store %s is memory (fstatfs: %s)", fs->spool,
                         fs->runtime, strerrordesc_np(-result));
    if (result == 0)
        memory_close(fs);
    return result ? 0 : -ENOENT;
}

/* With the claim: the store of the dead, or a new one. */
static int take_over(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                     const struct stat *spool, bool create, char *error)
{
    struct record record;
    int result = memory_open(fs, state_fd, spool, &record, error);

    if (result == -EPROTO)
        result = check_other_version(fs, spool, create, error);
    if (result == 0 && create)
        result = check_memory(fs, error);
    int is_viewed = result == 0 ? memory_is_viewed(fs, error) : 0;
    if (is_viewed < 0)
        result = is_viewed;
    if (result == 0)
        segment_inherit(fs, is_viewed > 0);
    if (result == 0 && !record_spool(&record, spool, fs->spool) && memory_describe(fs, spool, &record, error) == 0)
        result = memory_publish(fs, state_fd, &record, error);
    if ((result == -ENOENT || result == -ESTALE) && create)
        result = memory_make(fs, config, state_fd, spool, &record, error);
    if (result == 0)
        result = announce(fs, error);
    if (result < 0) {
        presence_withdraw(fs->presence_fd);
        memory_close(fs);
    }
    return result;
}

/* Those who live use what this process can't. */
static int refuse(const struct fastspool *fs, int result, const struct record *record, char *error)
{
    int locks = presence_check(fs->presence_fd);

    if (locks < 0)
        return refuse_locks(fs, locks, error);
    switch (result) {
    case -EAGAIN:
        return error_set(error, -EBUSY, "%s: another process has been making the store for %d s", fs->spool,
                         (int)(PATIENCE / NS_PER_S));
    case -EXDEV:
        return error_set(error, -EXDEV,
                         "%s: its store is in use in another PID namespace: all processes of a spool must live in one",
                         fs->spool);
    case -EADDRINUSE:
        return error_set(error, -EBUSY, "%s: the state directory %s is in use for another spool, %s", fs->spool,
                         fs->state, record->spool);
    case -ESTALE:
        return error_set(error, -EBUSY,
                         "%s: %s was replaced while the store was in use: end all processes that use the spool",
                         fs->spool, fs->state);
    default:
        return error_set(
            error, -EBUSY,
            "%s: its store is in use, but its memory, %s, can't be seen from here: it was removed, or this "
            "process has another file system there",
            fs->spool, record->runtime[0] ? record->runtime : "of which there is no record");
    }
}

/* Nobody lives, and this process can't take over: it is a trusted user's, or the disk is read-only. */
static int join_the_dead(struct fastspool *fs, int state_fd, const struct stat *spool, bool create, char *error)
{
    struct record record;
    int result = join(fs, state_fd, spool, &record, error);

    if (!is_unusable(result))
        return result;
    return create ? error_set(error, -EROFS, "%s: a store can't be made: %s/" PLACES_LOCK " can't be written",
                              fs->spool, fs->state)
                  : -ENOENT;
}

/* Those who live may be about to end: their service was stopped, or their memory is gone and the mirror has not looked
 * yet.  So a refusal takes some seconds.  @waited: others see that this process waits, until it says otherwise. */
static int find_store(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                      const struct stat *spool, bool create, bool *waited, char *error)
{
    struct record record = {0};
    uint64_t since = clock_monotonic();
    int result;

    do {
        if (presence_of_others(fs->presence_fd) == PRESENCE_NONE) {
            result = presence_claim(fs->presence_fd);
            if (result == 0 && presence_is_valid(fs->presence_fd, state_fd))
                return take_over(fs, config, state_fd, spool, create, error);
            if (result == 0)
                return error_set(error, -EBUSY, "%s: %s was replaced meanwhile", fs->spool, fs->state);
            if (result == -EBADF) /* it is open for reading alone */
                result = join_the_dead(fs, state_fd, spool, create, error);
            else if (result != -EAGAIN)
                result = refuse_locks(fs, result, error);
            if (result != -EAGAIN)
                return result;
        } else {
            result = join(fs, state_fd, spool, &record, error);
            if (result != -EAGAIN && !is_unusable(result))
                return result;
        }
        presence_wait(fs->presence_fd);
        *waited = true;
        clock_sleep(LOOK);
        if (await_terminated(NULL))
            return claim_terminated(fs, error);
    } while (clock_monotonic() - since < PATIENCE);
    return refuse(fs, result, &record, error);
}

int claim_store(struct fastspool *fs, const struct fastspool_config *config, int state_fd, const struct stat *spool,
                bool create, char *error)
{
    bool waited = false;

    fs->presence_fd = presence_open(state_fd, create);
    if (fs->presence_fd == -ENOENT)
        return -ENOENT;
    if (fs->presence_fd < 0)
        return error_set(error, fs->presence_fd, "cannot open %s/" PLACES_LOCK ": %s", fs->state,
                         strerrordesc_np(-fs->presence_fd));
    int result = find_store(fs, config, state_fd, spool, create, &waited, error);
    if (result == 0 && waited)
        presence_wait_ends(fs->presence_fd);
    return result;
}

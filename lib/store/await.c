/* SPDX-License-Identifier: MIT
 *
 * Waiting for the mirror.
 *
 * The happy path: the mirror counts its work in a futex, and wakes the waiters.
 *
 * Failure modes:
 *   - The mirror dies: a waiter checks ten times a second whether a mirror lives, and starts another one.
 *   - No mirror comes up: -EIO after AWAIT_GIVE_UP.
 *   - A mirror lives and makes no progress: the waiter waits on.  So it does where another process has the mirror's
 *     lock, by mistake or on purpose: that looks the same from here.
 *   - There is no sign of life for AWAIT_GIVE_UP, in any of these: of all waiters of all processes the first one to see
 *     it writes a line to syslog.  The next line is for the next time that a mirror falls silent.
 *   - It can't be said whether one lives: the waiter has one started, which ends where another one lives, and waits on.
 */
#include "store/await.h"

#include "base/clock.h"
#include "base/futex.h"
#include "store/store.h"

#include <errno.h>
#include <signal.h>
#include <syslog.h>

int await_lives(struct fastspool *fs)
{
    return fs->keeper ? fs->keeper->lives(fs) : 0;
}

void await_start(struct fastspool *fs)
{
    if (fs->keeper && fs->keeper->lives(fs) <= 0)
        fs->keeper->start(fs);
}

bool await_terminated(const sigset_t *own)
{
    static const int ending[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
    struct sigaction action;
    sigset_t pending;

    if (sigpending(&pending) < 0)
        return false;
    for (size_t i = 0; i < sizeof(ending) / sizeof(*ending); i++) {
        if (sigismember(&pending, ending[i]) && !(own && sigismember(own, ending[i])) &&
            sigaction(ending[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            return true;
    }
    return false;
}

/* `fastspool status` finds out who has the lock: that takes a look at all processes. */
static void tell_silence(const struct fastspool *fs, uint64_t now)
{
    uint64_t beat = LOAD(fs->header->mirror.beat), told = LOAD(fs->header->mirror.told);
    int saved = errno;

    if (told == beat || !__atomic_compare_exchange_n(&ATOMIC(fs->header->mirror.told), &told, beat, false,
                                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    syslog(LOG_MAIL | LOG_ERR,
           "fastspool: %s: no sign of life of the mirror for %llu s, and mail waits or is refused: it is stopped, "
           "can't be "
           "started, or gets no answer of its disk, or another process has its lock, %s/" PLACES_MIRROR_LOCK
           ": run `fastspool status` as root, which says what it is, and what to do",
           fs->spool, (unsigned long long)((now - beat) / NS_PER_S), fs->state);
    errno = saved;
}

/* One that was started just now has not begun. */
static bool is_silent(const struct fastspool *fs, uint64_t now)
{
    return now > LOAD(fs->header->mirror.beat) + AWAIT_GIVE_UP &&
           now > LOAD(fs->header->mirror.starting) + AWAIT_GIVE_UP;
}

int await_awake(struct fastspool *fs, const uint32_t *event, uint32_t value, uint64_t *lived)
{
    bool came = LOAD(*event) != value;
    int lives = came ? 1 : await_lives(fs);
    uint64_t now = clock_monotonic();

    if (lives == 0 && now - *lived > AWAIT_GIVE_UP) {
        tell_silence(fs, now);
        return -EIO;
    }
    if (lives != 0)
        *lived = now;
    if (lives <= 0)
        await_start(fs);
    else if (!came && is_silent(fs, now))
        tell_silence(fs, now);
    return 0;
}

int await_event(struct fastspool *fs, const uint32_t *event, uint32_t value, uint32_t *wanted, uint64_t *lived)
{
    futex_wait(event, value, AWAIT_LOOK);
    int result = await_awake(fs, event, value, lived);
    if (result == 0 && LOAD(*event) == value)
        futex_count(wanted);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * Waiting for the mirror.
 *
 * The happy path: the mirror counts its work in a futex, and wakes the waiters.
 *
 * Failure modes:
 *   - The mirror dies: a waiter checks ten times a second whether a mirror lives, and starts another one.
 *   - No mirror comes up: -EIO after AWAIT_GIVE_UP.
 *   - A mirror lives and makes no progress: the waiter waits on.
 *   - It can't be said whether one lives: the waiter has one started, which ends where another one lives, and waits on.
 */
#include "store/await.h"

#include "base/clock.h"
#include "base/futex.h"
#include "store/store.h"

#include <errno.h>
#include <signal.h>

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

int await_awake(struct fastspool *fs, const uint32_t *event, uint32_t value, uint64_t *lived)
{
    int lives = LOAD(*event) != value ? 1 : await_lives(fs);
    if (lives != 0)
        *lived = clock_monotonic();
    else if (clock_monotonic() - *lived > AWAIT_GIVE_UP)
        return -EIO;
    if (lives <= 0)
        await_start(fs);
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

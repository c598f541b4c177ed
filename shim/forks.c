/* SPDX-License-Identifier: MIT
 *
 * Forks, and the one lock of the shim.
 *
 * Happy path:
 *   - A process holds the lock while it decides whether it is served, and while it attaches.  All else that threads
 *     share is atomic.
 *   - A fork waits for the lock, so no child inherits it from a thread that the child doesn't have.  Where there is one
 *     thread, nobody can have it, and the fork does without: its word would be a page that parent and child copy.
 *   - No handler runs while the lock is held, by forks too: one that needed it would wait for its own thread.  All
 *     signals are blocked, or in a fork and while it decides postponed, where that takes no system call (signals.c).
 *   - No thread is cancelled while it has the lock, though it opens and closes files: the cancellation waits for a call
 *     of the program's.
 *   - The child drops what only its parent may use: pooled descriptions and record locks.
 *   - libc calls the handlers for fork, not for _Fork.  So _Fork is wrapped here.
 *   - vfork is fork: a child that shares its parent's memory would change the parent's table of descriptors.
 *
 * Failure modes:
 *   - The child of a bare clone(2) or SYS_fork is not seen (docs/limits.md).
 *   - Without memory the handlers can't be registered.  The next call tries again.
 */
#include "forks.h"

#include "attachment.h"
#include "base/atomic.h"
#include "fastspool.h"
#include "signals.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <pthread.h>

static pthread_mutex_t deciding = PTHREAD_MUTEX_INITIALIZER;
static __thread bool inside;          /* this thread decides or attaches; its own calls meanwhile are not served */
static __thread struct outside forks; /* what the fork of this thread restores */
static void (*ahead)(void);           /* see forks_call_ahead() */

/* @sections: may run meanwhile, which hold signals off by themselves. */
static void hold(struct outside *outside, bool sections)
{
    sigset_t all;

    outside->place = &errno;
    outside->error = errno;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &outside->cancels);
    outside->postpones = !sections && signals_hold_for_free(); /* only where this is the one thread */
    if (outside->postpones)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &outside->mask);
    pthread_mutex_lock(&deciding);
}

static void release(const struct outside *outside)
{
    const struct outside as_before = *outside; /* @outside may be `forks`, and a handler that runs next may fork */

    if (as_before.postpones) {
        signals_release();
    } else {
        pthread_mutex_unlock(&deciding);
        pthread_sigmask(SIG_SETMASK, &as_before.mask, NULL);
    }
    pthread_setcancelstate(as_before.cancels, NULL);
    *as_before.place = as_before.error;
}

/* ---- around a fork ---- */

static void before(void)
{
    struct outside outside; /* not `forks`: a handler that runs first may fork, too */

    if (LOAD(ahead))
        ahead();
    if (attachment_any())
        signals_ask();
    hold(&outside, false);
    forks = outside;
    attachment_each(inside_shared);
}

/* Other threads have opened files since before(), which both processes have, too. */
static void share_what_came(void)
{
    if (!forks.postpones)
        attachment_each(inside_shared);
}

static void after_in_parent(void)
{
    share_what_came();
    release(&forks);
}

static void after_in_child(void)
{
    attachment_each(fastspool_after_fork_child);
    share_what_came();
    signals_after_fork();
    release(&forks);
}

/* Before any thread can hold the lock: at load, or at the first need, if another library's constructor is earlier. */
static __attribute__((constructor)) void register_handlers(void)
{
    static bool registered;

    if (!__atomic_exchange_n(&registered, true, __ATOMIC_ACQ_REL) &&
        pthread_atfork(before, after_in_parent, after_in_child) != 0)
        STORE(registered, false);
}

EXPORT pid_t _Fork(void)
{
    BOUND();
    before();
    pid_t child = real._Fork();
    int error = errno;
    if (child == 0)
        after_in_child();
    else
        after_in_parent();
    if (child < 0)
        errno = error;
    return child;
}

EXPORT pid_t vfork(void)
{
    return fork();
}

void forks_call_ahead(void (*of_a_fork)(void))
{
    STORE(ahead, of_a_fork);
}

/* ---- one at a time ---- */

bool forks_begin(struct outside *outside, bool sections)
{
    if (inside)
        return false;
    register_handlers();
    if (!sections)
        signals_ask(); /* what it asks for, the first section would */
    hold(outside, sections);
    inside = true;
    return true;
}

void forks_end(const struct outside *outside)
{
    inside = false;
    release(outside);
}

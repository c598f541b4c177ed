/* SPDX-License-Identifier: MIT
 *
 * Forks: the locks of the shim, and what a fork means for them and for the store.
 *
 * There is one lock.  It is held while a process decides whether it is served and while it attaches; everything else
 * that threads share is atomic.  A fork waits for it, so that no child is born with a lock that a thread holds which
 * the child doesn't have.  All signals are held off while it is held, by forks too: a handler that needed it would wait
 * for its own thread.
 *
 * The child gives up what only its parent may use: descriptions that were opened ahead, and record locks.
 *
 * libc calls the handlers for fork, not for _Fork, so that one is wrapped here.  vfork is fork, because a child that
 * shares its parent's memory would change the parent's table of descriptors.
 *
 * Failure modes: the child of a bare clone(2) or SYS_fork is not seen (README, Limits).  Handlers that can't be
 * registered, for want of memory, are the next call's to register.
 */
#include "forks.h"

#include "attachment.h"
#include "base/atomic.h"
#include "fastspool.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <pthread.h>

static pthread_mutex_t deciding = PTHREAD_MUTEX_INITIALIZER;
static __thread bool inside;          /* this thread decides or attaches: what it calls meanwhile is nobody's spool */
static __thread struct outside forks; /* as it was outside of the fork that this thread makes */

static void hold(struct outside *outside)
{
    sigset_t all;

    outside->error = errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &outside->mask);
    pthread_mutex_lock(&deciding);
}

static void release(const struct outside *outside)
{
    const struct outside as_before = *outside; /* a handler that comes in may fork, and use the same place */

    pthread_mutex_unlock(&deciding);
    pthread_sigmask(SIG_SETMASK, &as_before.mask, NULL);
    errno = as_before.error;
}

/* ---- around a fork ---- */

static void before(void)
{
    struct outside outside; /* a handler that comes in first may fork, too */

    hold(&outside);
    forks = outside;
    if (attachment())
        inside_shared(attachment());
}

static void after_in_parent(void)
{
    release(&forks);
}

static void after_in_child(void)
{
    if (attachment())
        fastspool_after_fork_child(attachment());
    release(&forks);
}

/* Before any thread can hold the lock: at load, or, where another library's constructor is faster than ours, at the
 * first need. */
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

/* ---- one at a time ---- */

bool forks_begin(struct outside *outside)
{
    if (inside)
        return false;
    register_handlers();
    hold(outside);
    inside = true;
    return true;
}

void forks_end(const struct outside *outside)
{
    inside = false;
    release(outside);
}

/* SPDX-License-Identifier: MIT
 *
 * Signals: what surrounds each critical section of the store.
 *
 * Happy path:
 *   - No signal handler runs inside: Exim's handlers unlink files and leave by longjmp.  All signals are blocked before
 *     the lock is taken, and restored after it is released (some 400 ns; the lock itself takes 9).
 *   - No user may stop the process that holds the lock: one with an ordinary user's real or saved uid has no store
 *     (serve.c, identity.c).
 *
 * Failure modes:
 *   - None.  lib/store/section.c repairs what a process leaves that is killed inside.
 */
#include "signals.h"

#include "real.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's form of a signal mask, for the system call itself: sigprocmask(3) costs a fifth more. */
typedef uint64_t kernel_mask;

static __thread kernel_mask before; /* the mask outside; written with all blocked, so no handler sees it change */

void signals_hold(void)
{
    const kernel_mask all = ~UINT64_C(0);
    kernel_mask outside;
    int saved = errno;

    /* Nothing may change before all are blocked: a handler that runs in between may leave by longjmp. */
    real.syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &outside, sizeof(all));
    before = outside;
    errno = saved;
}

void signals_release(void)
{
    const kernel_mask outside = before;
    int saved = errno;

    real.syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, NULL, sizeof(outside));
    errno = saved;
}

/* SPDX-License-Identifier: MIT
 *
 * Signals: what surrounds each critical section of the store.
 *
 * Happy path:
 *   - No signal handler runs inside: Exim's handlers unlink files and leave by longjmp.  All signals are blocked before
 *     the lock is taken, and restored after it is released (some 400 ns; the lock itself takes 9).
 *   - No user may stop the process that holds the lock.  A user may send SIGSTOP to a process with the user's own real
 *     uid, and a set-user-ID program has that.  Inside, such a process's real uid is the effective or saved one.  The
 *     system call itself sets it, for this thread.
 *
 * Failure modes:
 *   - None.  lib/store/section.c repairs what a process leaves that is killed inside.
 */
#include "signals.h"

#include "attachment.h"
#include "base/atomic.h"
#include "store/inside.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's form of a signal mask, for the system call itself: sigprocmask(3) costs a fifth more. */
typedef uint64_t kernel_mask;

static __thread kernel_mask before; /* the mask outside; written with all blocked, so no handler sees it change */
static __thread uid_t hidden;       /* the real uid while another one replaces it */
static __thread bool hiding;

static uint32_t foreign; /* may the real uid not hold the lock?  0: unknown, 1: it may not, 2: it may */

static bool may_hold(uid_t uid)
{
    const struct fastspool *fs = attachment();
    return !fs || inside_may_hold(fs, uid);
}

static bool is_foreign(void)
{
    if (LOAD(foreign) == 0 && attachment())
        STORE(foreign, may_hold(getuid()) ? 2 : 1);
    return LOAD(foreign) == 1;
}

void signals_user_changed(void)
{
    STORE(foreign, 0);
}

/* getresuid(2) is called only if an ordinary user started the program, which then starts slowly anyway. */
static void hide_real_uid(void)
{
    uid_t ruid, euid, suid;

    if (!is_foreign() || getresuid(&ruid, &euid, &suid) < 0 || may_hold(ruid))
        return;
    uid_t cover = may_hold(euid) ? euid : suid;
    hidden = ruid;
    hiding = syscall(SYS_setresuid, cover, -1, -1) == 0;
}

static void show_real_uid(void)
{
    if (hiding)
        syscall(SYS_setresuid, hidden, -1, -1);
    hiding = false;
}

void signals_hold(void)
{
    const kernel_mask all = ~UINT64_C(0);
    kernel_mask outside;
    int saved = errno;

    /* Nothing may change before all are blocked: a handler that runs in between may leave by longjmp. */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &outside, sizeof(all));
    before = outside;
    hide_real_uid();
    errno = saved;
}

void signals_release(void)
{
    const kernel_mask outside = before;
    int saved = errno;

    show_real_uid();
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &outside, NULL, sizeof(outside));
    errno = saved;
}

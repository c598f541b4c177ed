/* SPDX-License-Identifier: MIT
 *
 * What the process does around each critical section of the store.
 *
 * No signal handler may run inside: Exim's handlers unlink files and leave by longjmp.  So all signals are blocked
 * before the lock is taken and restored after it is released (some 400 ns; the lock itself takes 9).
 *
 * And nobody may stop the holder of the lock: a user may send SIGSTOP to a process whose real uid is his, as that of a
 * set-user-ID program is.  While such a process is inside, its real uid is made the effective (or saved) one, by the
 * system call itself, for this thread.
 *
 * Failure modes: none; a process that is killed inside is the store's business (lib/section.c).
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

/* The kernel's own form of a signal mask.  The system call itself: sigprocmask(3) around it costs a fifth more. */
typedef uint64_t kernel_mask;

static __thread kernel_mask before; /* the mask outside; written while all are blocked: no handler sees it change */
static __thread uid_t hidden;       /* the real uid while another one stands in its place */
static __thread bool hiding;

static uint32_t foreign; /* is the real uid neither root's nor the owner's?  0: not looked yet, 1: yes, 2: no */

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

/* getresuid(2) is asked only where somebody else started the program: then this is no cheap process anyway. */
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

    /* Nothing of ours may change before all are blocked: a handler that comes in between may leave by longjmp. */
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

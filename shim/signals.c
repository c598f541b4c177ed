/* SPDX-License-Identifier: MIT
 *
 * What the process does around each critical section of the store.
 *
 * No signal handler may run inside: Exim's handlers unlink files and leave by longjmp.  So all signals are blocked
 * before the lock is taken and restored after it is released (490 ns; the lock itself takes 9).
 *
 * And nobody may stop the holder of the lock: a user may send SIGSTOP to a process whose real uid is his, as that of a
 * set-user-ID program is.  While such a process is inside, its real uid is made the effective (or saved) one, by the
 * system call itself, for this thread.
 *
 * Failure modes: none; a process that is killed inside is the store's business (lib/section.c).
 */
#include "shim.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

static __thread sigset_t before; /* the mask outside; written while all are blocked, so that no handler sees it change */
static __thread uid_t hidden; /* the real uid while another one stands in its place */
static __thread bool hiding;

static bool may_hold(uid_t uid)
{
    const struct fastspool *fs = serve_attached();
    return uid == 0 || !fs || uid == fs->header->owner;
}

/* getresuid(2) is asked only where somebody else started the program: then this is no cheap process anyway. */
static void hide_real_uid(void)
{
    uid_t ruid, euid, suid;

    if (!identity_is_foreign() || getresuid(&ruid, &euid, &suid) < 0 || may_hold(ruid))
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

static void enter(void)
{
    sigset_t all, outside;
    int saved = errno;

    /* Nothing of ours may change before all are blocked: a handler that comes in between may leave by longjmp. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &outside);
    before = outside;
    hide_real_uid();
    errno = saved;
}

static void leave(void)
{
    const sigset_t outside = before;
    int saved = errno;

    show_real_uid();
    pthread_sigmask(SIG_SETMASK, &outside, NULL);
    errno = saved;
}

const struct section_guard signals_guard = {enter, leave};

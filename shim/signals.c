/* SPDX-License-Identifier: MIT
 *
 * Signals: no handler of the program's runs inside a critical section of the store.  Exim's handlers unlink files and
 * leave by longjmp.
 *
 * Happy path:
 *   - The program's handlers stand in a table.  The kernel has relay() in their place, with the program's own flags and
 *     mask.  sigaction(2) and its kin answer with the program's.
 *   - Outside a section relay() calls the program's handler.
 *   - Inside one it blocks all signals, sends this one to the thread again, with all that came with it, and returns to
 *     the section with all signals still blocked.  The end of the section restores the mask, and the kernel delivers.
 *   - So a section without a signal makes no system call: 2 ns instead of 400 (docs/benchmarks.md).
 *   - A handler that replaces another one, with the same flags and mask, needs none either.
 *
 * The other way: a system call blocks all signals before the lock is taken, another restores the mask after it is
 * released.  A process goes this way
 *   - with a controlling terminal: its stop (SIGTSTP) has no handler, and would find the process with the lock;
 *   - with several threads: pthread_cancel(3) is a signal of libc's own, which leaves a section where it is;
 *   - once it has set a handler by syscall(2), which is not in the table.
 *
 * Failure modes:
 *   - A signal without a handler ends the process inside a section: the next section repairs that, as after SIGKILL.
 *   - A signal without a handler stops it there, as SIGSTOP always could: a waiter kills it (lib/store/holder.h).
 *   - No more signals may be queued (RLIMIT_SIGPENDING): it is sent again without what came with it.
 *   - A fault inside: it happens again with all signals blocked, and the kernel ends the process.
 *   - A library behind this one sets a handler by libc's own sigaction: it is not in the table (docs/limits.md).
 */
#include "signals.h"

#include "base/atomic.h"
#include "base/guard.h"
#include "wrapper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* The kernel's form of a signal mask, for the system call itself: sigprocmask(3) costs a fifth more. */
typedef uint64_t kernel_mask;

static const kernel_mask all = ~UINT64_C(0);

static __thread bool inside;         /* a section, or about to begin or end one; signals are not blocked */
static __thread bool blocked;        /* all signals are: the other way */
static __thread bool relayed;        /* signals wait for the section's end, all blocked */
static __thread kernel_mask outside; /* the mask to restore; written with all signals blocked */

/* ---- the table ---- */

typedef void handler(int, siginfo_t *, void *);

static struct entry {
    handler *call; /* the last one; NULL: there has been none */
    bool siginfo;  /* SA_SIGINFO as the program set it; the kernel has it with every handler */
    bool settled;  /* the kernel has relay() with these, and nothing changes that but a call of the program's */
    int flags;
    kernel_mask mask;
} table[NSIG];

static kernel_mask interrupting; /* by siginterrupt(3): signal() makes these interrupt system calls */
static bool incomplete;          /* there are handlers that are not in the table */

static kernel_mask bit(int number)
{
    return UINT64_C(1) << (number - 1);
}

static bool is_signal(int number)
{
    return number > 0 && number < NSIG;
}

static bool is_handler(sighandler_t what)
{
    return what != SIG_DFL && what != SIG_IGN && what != SIG_ERR && what != SIG_HOLD;
}

/* ---- a signal ---- */

static handler relay;

/* The kernel takes a handler with SA_RESETHAND away when it delivers, and this delivery is yet to come. */
static void set_again(int number)
{
    struct sigaction action;

    if (real.sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
        action.sa_sigaction = relay;
        real.sigaction(number, &action, NULL);
    }
}

static void send_again(int number, siginfo_t *info)
{
    pid_t process = getpid(), thread = (pid_t)real.syscall(SYS_gettid);

    if (real.syscall(SYS_rt_tgsigqueueinfo, process, thread, number, info) < 0)
        real.syscall(SYS_tgkill, process, thread, number);
}

/* Another signal may come before all are blocked.  Then its relay is through before this one goes on: the mask that is
 * written last is that of the section, which this one has interrupted. */
static void postpone(int number, siginfo_t *info, ucontext_t *context)
{
    int saved = errno;

    real.syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
    set_again(number);
    send_again(number, info);
    memcpy(&outside, &context->uc_sigmask, sizeof(outside));
    memcpy(&context->uc_sigmask, &all, sizeof(all));
    relayed = true;
    errno = saved;
}

/* What the kernel calls.  It passes all three arguments to every handler, and so does this. */
static void relay(int number, siginfo_t *info, void *context)
{
    if (inside)
        postpone(number, info, context);
    else
        LOAD(table[number].call)(number, info, context);
}

/* ---- around a section ---- */

enum { NOT_ASKED, NONE, SOME };
static int terminal; /* does the process have a controlling terminal? */

static bool has_terminal(void)
{
    if (LOAD(terminal) == NOT_ASKED) {
        int saved = errno, fd = real.open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
        STORE(terminal, fd < 0 && errno == ENXIO ? NONE : SOME);
        if (fd >= 0)
            real.close(fd);
        errno = saved;
    }
    return LOAD(terminal) == SOME;
}

/* Else each child of a daemon that has had no section would ask. */
void signals_ask(void)
{
    (void)has_terminal();
}

/* A child that leaves its parent's session leaves the terminal. */
void signals_after_fork(void)
{
    if (LOAD(terminal) == SOME)
        STORE(terminal, NOT_ASKED);
}

static void block(void)
{
    kernel_mask now;
    int saved = errno;

    /* Nothing may change before all are blocked: a handler that runs in between may leave by longjmp. */
    real.syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &now, sizeof(all));
    outside = now;
    blocked = true;
    errno = saved;
}

static void restore(void)
{
    const kernel_mask mask = outside; /* a handler that runs next may write to it */
    int saved = errno;

    blocked = relayed = false;
    real.syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
    errno = saved;
}

static void postpone_from_here(void)
{
    inside = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void signals_hold(void)
{
    if (!__libc_single_threaded || LOAD(incomplete) || has_terminal())
        block();
    else
        postpone_from_here();
}

bool signals_hold_for_free(void)
{
    if (!__libc_single_threaded || LOAD(incomplete) || LOAD(terminal) != NONE)
        return false;
    postpone_from_here();
    return true;
}

void signals_release(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    inside = false;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (blocked || relayed)
        restore();
}

/* (Not `const`, as it is declared for programs that set theirs at run time.) */
__attribute__((section(".data.rel.ro"))) struct section_guard section_guard = {signals_hold, signals_release};

void signals_unknown(void)
{
    STORE(incomplete, true);
}

/* ---- libc's functions ---- */

static kernel_mask mask_of(const struct sigaction *action)
{
    kernel_mask mask;

    memcpy(&mask, &action->sa_mask, sizeof(mask));
    return mask;
}

/* Does the kernel have just this, but for the handler's address?  Then a call would change nothing.  (Exim sets its
 * handler of SIGALRM ten times a message.)  What a handler of SA_RESETHAND leaves is the kernel's to know, and with
 * threads the order of two calls. */
static bool is_settled(int number, int flags, kernel_mask mask)
{
    const struct entry *entry = &table[number];
    return entry->settled && entry->flags == flags && entry->mask == mask && __libc_single_threaded &&
           !LOAD(incomplete);
}

static void settle(int number, const struct sigaction *kernels)
{
    struct entry *entry = &table[number];

    entry->settled = kernels && !(kernels->sa_flags & SA_RESETHAND);
    if (entry->settled) {
        entry->flags = kernels->sa_flags;
        entry->mask = mask_of(kernels);
    }
}

EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    struct sigaction kernels;
    struct entry before = {0};
    bool known = is_signal(number), relays = known && action && is_handler(action->sa_handler);

    BOUND();
    if (known)
        before = (struct entry){.call = LOAD(table[number].call), .siginfo = LOAD(table[number].siginfo)};
    if (known && action)
        STORE(table[number].siginfo, (action->sa_flags & SA_SIGINFO) != 0);
    if (relays) {
        STORE(table[number].call, action->sa_sigaction);
        if (!old && is_settled(number, action->sa_flags | SA_SIGINFO, mask_of(action)))
            return 0;
        kernels = *action; /* 152 bytes, so not before */
        kernels.sa_sigaction = relay;
        kernels.sa_flags |= SA_SIGINFO;
    }
    int result = real.sigaction(number, relays ? &kernels : action, old);
    if (result < 0 && known) {
        STORE(table[number].siginfo, before.siginfo);
        STORE(table[number].call, before.call);
    }
    if (result == 0 && known && action)
        settle(number, relays ? &kernels : NULL);
    if (result == 0 && old && old->sa_sigaction == relay)
        old->sa_sigaction = before.call;
    if (result == 0 && old && !before.siginfo)
        old->sa_flags &= ~SA_SIGINFO;
    return result;
}
EXPORT_ALIAS(__sigaction, sigaction);

/* A handler by one of the older functions.  Returns what was there before, or SIG_ERR. */
static sighandler_t set(int number, sighandler_t what, kernel_mask mask, int flags)
{
    struct sigaction action = {.sa_handler = what, .sa_flags = flags}, old;

    if (what == SIG_ERR || !is_signal(number)) {
        errno = EINVAL;
        return SIG_ERR;
    }
    memcpy(&action.sa_mask, &mask, sizeof(mask));
    return sigaction(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}

EXPORT sighandler_t signal(int number, sighandler_t what)
{
    bool interrupts = is_signal(number) && (LOAD(interrupting) & bit(number));
    return set(number, what, is_signal(number) ? bit(number) : 0, interrupts ? 0 : SA_RESTART);
}
EXPORT_ALIAS(bsd_signal, signal);
EXPORT_ALIAS(ssignal, signal);

EXPORT sighandler_t sysv_signal(int number, sighandler_t what)
{
    return set(number, what, 0, SA_RESETHAND | SA_NODEFER);
}
EXPORT_ALIAS(__sysv_signal, sysv_signal);

EXPORT int siginterrupt(int number, int interrupt)
{
    BOUND();
    int result = real.siginterrupt(number, interrupt);

    if (is_signal(number))
        settle(number, NULL);
    if (result == 0 && interrupt)
        __atomic_or_fetch(&interrupting, bit(number), __ATOMIC_ACQ_REL);
    else if (result == 0)
        __atomic_and_fetch(&interrupting, ~bit(number), __ATOMIC_ACQ_REL);
    return result;
}

EXPORT sighandler_t sigset(int number, sighandler_t what)
{
    struct sigaction before;
    sigset_t one, mask;

    BOUND();
    if (sigaction(number, NULL, &before) < 0)
        return SIG_ERR;
    if (what == SIG_HOLD)
        return real.sigset(number, SIG_HOLD) == SIG_HOLD ? SIG_HOLD : before.sa_handler;
    if (set(number, what, 0, 0) == SIG_ERR)
        return SIG_ERR;
    sigemptyset(&one);
    sigaddset(&one, number);
    pthread_sigmask(SIG_UNBLOCK, &one, &mask);
    return sigismember(&mask, number) ? SIG_HOLD : before.sa_handler;
}

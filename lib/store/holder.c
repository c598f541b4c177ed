/* SPDX-License-Identifier: MIT
 *
 * The thread that the lock's word names.
 *
 * The mail user can write the word.  So a process acts on the number only after it has asked the kernel.
 *
 * The happy path: the thread does not exist, and the lock is free to take.  Or it lives, and soon the lock moves.
 *
 * Failure modes: the lock has not moved for some seconds.
 *   - The holder is stopped, frozen, or traced.  A thread is inside if list_op_pending of its robust list, in its own
 *     memory, names the lock of this segment (mutex.c).  It is killed, and the next holder rolls its section back.
 *   - The word names a thread that is not inside.  Whoever wrote it, that thread is left alone.
 *   - This process may not look into the thread's memory (another user's, or a container without CAP_SYS_PTRACE).  Then
 *     it sends the signal with the rights of the spool's owner alone.  The mail user, who could write any number here,
 *     can kill the same processes himself.  Root's own rights are never used on the word's say-so.
 *   - The signal can't be sent, either: the waiter waits on.  A waiter of root's with the right to look ends the wait.
 *   - The thread's memory is a page of a FUSE or of userfaultfd, and a look into it takes as long as its owner likes,
 *     with signals held off.  So a child looks, and is killed after half a second: then it may not look.
 *   - The thread ends while the child looks, and another process gets its number: the child's signal goes to the thread
 *     that it began to look at (pidfd_open(2)).
 *   - The owner stops the child that sends it: the child is killed, and the waiter waits on.
 */
#include "store/holder.h"

#include "base/clock.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define CHILD_WAITS 500 /* of a millisecond, for a child of some system calls */

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* since Linux 6.9 */
#endif

/* Before Linux 6.9 there is none for a thread that is not its process's first. */
static int open_thread(uint32_t thread)
{
    int fd = (int)syscall(SYS_pidfd_open, thread, PIDFD_THREAD);
    return fd >= 0 ? fd : (int)syscall(SYS_pidfd_open, thread, 0);
}

/* Has the thread ended, and waits for its parent? */
static bool has_ended(uint32_t thread)
{
    int fd = open_thread(thread);
    struct pollfd end = {.fd = fd, .events = POLLIN};
    bool ended = fd >= 0 && poll(&end, 1, 0) == 1;
    if (fd >= 0)
        close(fd);
    return ended;
}

bool holder_exists(uint32_t thread, bool closely)
{
    int saved = errno;
    bool exists = syscall(SYS_tkill, thread, 0) == 0 || errno != ESRCH;

    exists = exists && !(closely && has_ended(thread));
    errno = saved;
    return exists;
}

/* ---- the thread's own memory ---- */

/* Copy from the thread's memory.  0 or -errno. */
static int peek(uint32_t thread, uintptr_t from, void *to, size_t size)
{
    struct iovec here = {to, size}, there = {(void *)from, size}; /* NOLINT: an address of the other process */
    ssize_t got = process_vm_readv((pid_t)thread, &here, 1, &there, 1, 0);

    return got == (ssize_t)size ? 0 : got < 0 ? -errno : -EFAULT;
}

/* 1: the thread is inside, or just taking or giving back the lock; 0: it is not; -EPERM: this process may not look. */
static int is_inside(const struct fastspool *fs, uint32_t thread)
{
    struct robust_list_head *head = NULL, list;
    uint64_t seed = 0;
    size_t size;

    if (syscall(SYS_get_robust_list, thread, &head, &size) < 0)
        return errno == ESRCH ? 0 : -EPERM;
    int result = head ? peek(thread, (uintptr_t)head, &list, sizeof(list)) : -EFAULT;
    if (result == 0) {
        uintptr_t word = (uintptr_t)list.list_op_pending + (uintptr_t)list.futex_offset;
        result = peek(thread, word - offsetof(struct header, section.lock) + offsetof(struct header, hash_seed), &seed,
                      sizeof(seed));
    }
    if (result == -EFAULT || result == -ESRCH) /* it has no list, waits for no lock, or has just ended */
        return 0;
    return result < 0 ? -EPERM : seed == fs->header->hash_seed;
}

/* ---- the end of a holder ---- */

/* Wait for @child, which may be stopped.  Its status, -1: it had to be killed. */
static int end_of(pid_t child)
{
    int status;

    for (int waits = 0; child > 0 && waits < CHILD_WAITS; waits++) {
        pid_t got = waitpid(child, &status, __WCLONE | WNOHANG);
        if (got != 0)
            return got > 0 ? status : -1;
        clock_sleep(NS_PER_MS);
    }
    if (child > 0 && syscall(SYS_kill, child, SIGKILL) == 0)
        waitpid(child, NULL, __WCLONE);
    return -1;
}

/* A child without the program's handlers, or -1. */
static pid_t begin_child(void)
{
    uint64_t all = ~UINT64_C(0), old;

    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
    pid_t child = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (child != 0)
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old));
    return child;
}

/* What a child says of the thread, as its exit status. */
enum { OUTSIDE = 1, KILLED, UNKNOWN };

static int look(const struct fastspool *fs, uint32_t thread)
{
    int fd = open_thread(thread), inside = is_inside(fs, thread);
    bool killed = inside > 0 && fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0;

    return inside == 0 ? OUTSIDE : killed ? KILLED : UNKNOWN;
}

static int look_in_child(const struct fastspool *fs, uint32_t thread)
{
    pid_t child = begin_child();

    if (child == 0)
        _exit(look(fs, thread));
    int status = end_of(child);
    return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : UNKNOWN;
}

/* Send SIGKILL with the rights of the spool's owner, of another user's process with its effective ones.  A child does
 * it, because the mail user may send signals to a process while it has his real uid. */
static bool kill_as_owner(const struct fastspool *fs, uint32_t thread)
{
    uid_t uid = geteuid() == 0 ? fs->owner : geteuid();

    if (uid == 0)
        return false;
    pid_t child = begin_child();
    if (child == 0)
        _exit(syscall(SYS_setresuid, uid, uid, uid) < 0 || syscall(SYS_tkill, thread, SIGKILL) < 0);
    return end_of(child) == 0;
}

bool holder_is_outside(const struct fastspool *fs, uint32_t thread)
{
    int saved = errno, found = look_in_child(fs, thread);
    bool killed = found == KILLED || (found == UNKNOWN && kill_as_owner(fs, thread));

    if (killed)
        syslog(LOG_MAIL | LOG_WARNING,
               "fastspool: %s: thread %u has held the store's lock without a change for seconds, and was killed",
               fs->spool, thread);
    errno = saved;
    return found == OUTSIDE;
}

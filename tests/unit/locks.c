/* SPDX-License-Identifier: MIT
 *
 * Noted locks: without a system call while nobody else wants one, and for everybody else a lock like the kernel's.
 * (What processes see of each other's, with the library and by the view, is compared with ext4 in tests/view/locks.c.)
 */
#include "../asleep.h"
#include "base/atomic.h"
#include "base/guard.h"
#include "fastspool.h"
#include "fixture.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/mutex.h"
#include "store/noted.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(locks, .init = fixture_setup, .fini = fixture_teardown);

static int opened(const char *path, int flags)
{
    int d = fastspool_open(fs, path, flags, 0640);
    cr_assert_geq(d, 0);
    return d;
}

static int lock_by(int d, int command, short type, off_t from, off_t size)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = size};
    return fastspool_lock(fs, d, command, &lock);
}

static int lock(int d, short type, off_t from, off_t size)
{
    return lock_by(d, F_SETLK, type, from, size);
}

static bool noted(int d)
{
    return LOAD(description_at(fs, (uint32_t)d)->locker) == (uint32_t)getpid();
}

/* ---- another process ---- */

static int calls[2], answers[2];
static pid_t other;

enum { LOCK, UNLOCK, READ_LOCK, WAIT, WAIT_FOR_G, GET, CLOSE };

#define WHOLE 1000000 /* what GET says of a lock of the whole file; of another one: its start * 1000 + its length */

struct call {
    int what;
    off_t from, size;
};

static int do_call(int d, const struct call *call)
{
    struct flock found = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = call->from, .l_len = call->size};

    if (call->what == LOCK)
        return lock(d, F_WRLCK, call->from, call->size);
    if (call->what == READ_LOCK)
        return lock(d, F_RDLCK, call->from, call->size);
    if (call->what == UNLOCK)
        return lock(d, F_UNLCK, call->from, call->size);
    if (call->what == WAIT)
        return lock_by(d, F_SETLKW, F_WRLCK, call->from, call->size);
    if (call->what == WAIT_FOR_G)
        return lock_by(opened("g", O_RDWR), F_SETLKW, F_WRLCK, call->from, call->size);
    if (call->what == CLOSE)
        return fastspool_close(fs, d);
    int result = fastspool_lock(fs, d, F_GETLK, &found);
    if (result < 0 || found.l_type == F_UNLCK)
        return result;
    return found.l_start == 0 && found.l_len == 0 ? WHOLE : (int)(found.l_start * 1000 + found.l_len);
}

/* Start a process that has @path open, and does what call() says. */
static void start_other(const char *path)
{
    cr_assert(pipe(calls) == 0 && pipe(answers) == 0);
    other = fork();
    if (other == 0) {
        struct call call;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fs = fixture_attach();
        int d = opened(path, O_RDWR);
        while (read(calls[0], &call, sizeof(call)) == sizeof(call)) {
            int result = do_call(d, &call);
            if (write(answers[1], &result, sizeof(result)) != sizeof(result))
                break;
        }
        _exit(0);
    }
}

static void ask(int what, off_t from, off_t size)
{
    struct call call = {what, from, size};
    cr_assert_eq(write(calls[1], &call, sizeof(call)), sizeof(call));
}

static int answer(void)
{
    int result;
    cr_assert_eq(read(answers[0], &result, sizeof(result)), sizeof(result));
    return result;
}

static int call(int what, off_t from, off_t size)
{
    ask(what, from, size);
    return answer();
}

static void end_other(void)
{
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
}

/* Wait until a process sleeps in a system call for a lock. */
static void until_it_waits(pid_t pid)
{
    while (!asleep_in(pid, SYS_fcntl))
        usleep(1000);
}

/* ---- the tests ---- */

static void live(void)
{
    static char bytes[4096];
    struct stat st;
    int d = opened("d", O_RDWR | O_CREAT | O_EXCL);

    cr_assert_eq(lock(d, F_WRLCK, 0, 19), 0);
    cr_assert_eq(fastspool_write(fs, d, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    cr_assert_eq(fastspool_fsync(fs, d), 0);
    int h = opened("hdr", O_RDWR | O_CREAT | O_EXCL);
    cr_assert_eq(fastspool_write(fs, h, bytes, 600), 600);
    cr_assert_eq(fastspool_close(fs, h), 0);
    cr_assert_eq(fastspool_rename(fs, "hdr", "h", 0), 0);
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(fastspool_close(fs, d), 0);
    d = opened("d", O_RDWR);
    cr_assert_eq(lock(d, F_WRLCK, 0, 19), 0);
    cr_assert_eq(fastspool_lseek(fs, d, 19, SEEK_SET), 19);
    cr_assert_eq(fastspool_read(fs, d, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes) - 19);
    cr_assert_eq(lock(d, F_UNLCK, 0, 0), 0);
    cr_assert_eq(lock(d, F_UNLCK, 0, 0), 0);
    cr_assert_eq(lock(d, F_WRLCK, 0, 19), 0);
    cr_assert_eq(fastspool_unlink(fs, "d"), 0);
    cr_assert_eq(fastspool_unlink(fs, "h"), 0);
    cr_assert_eq(fastspool_close(fs, d), 0);
}

/* The victim is stopped at each entry to a system call, and at each return, from its first getpgrp() to its second. */
static int count_system_calls(pid_t victim)
{
    int status, marks = 0, stops = 0;
    struct __ptrace_syscall_info info;

    cr_assert_eq(waitpid(victim, &status, 0), victim);
    ptrace(PTRACE_SETOPTIONS, victim, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    for (;;) {
        cr_assert_eq(ptrace(PTRACE_SYSCALL, victim, NULL, NULL), 0);
        cr_assert_eq(waitpid(victim, &status, 0), victim);
        cr_assert(WIFSTOPPED(status), "the victim has ended");
        cr_assert(ptrace(PTRACE_GET_SYSCALL_INFO, victim, sizeof(info), &info) > 0);
        if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
            continue;
        if (info.entry.nr == SYS_getpgrp && ++marks == 2)
            return stops;
        stops += marks == 1 && info.entry.nr != SYS_getpgrp;
        if (marks == 1 && info.entry.nr != SYS_getpgrp)
            cr_log_error("system call %d", (int)info.entry.nr);
    }
}

/* Create, write, lock, rename, read, remove: no system call, once the process has done it before. */
Test(locks, no_system_call)
{
    pid_t victim = fork();
    if (victim == 0) {
        fs = fixture_attach();
        checking_every(0); /* a check takes memory */
        live();
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        syscall(SYS_getpgrp);
        live();
        syscall(SYS_getpgrp);
        _exit(0);
    }
    cr_assert_eq(count_system_calls(victim), 0);
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
}

/* A close ends what is noted by its description in one section. */
Test(locks, close_is_one_section)
{
    int d = opened("f", O_RDWR | O_CREAT);

    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert(noted(d));
    const uint64_t before = fs->header->history_count;
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(fs->header->history_count, before + 1);
    cr_assert_not(noted(d));
}

/* It does so, too, where another process holds the description and keeps it open. */
Test(locks, close_of_a_shared_one)
{
    int d = opened("f", O_RDWR | O_CREAT);

    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    descriptions_shared(fs);
    pid_t holder = fork();
    if (holder == 0) {
        pause();
        _exit(0);
    }
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(description_at(fs, (uint32_t)d)->state, DESCRIPTION_OPEN);
    cr_assert_not(noted(d));
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
}

/* Another command than the three is refused, and does nothing: F_OFD_SETLK would be another owner's lock. */
Test(locks, other_commands)
{
    static const int others[] = {F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_DUPFD, F_GETFD, -1};
    int d = opened("f", O_RDWR | O_CREAT), owner = fastspool_lock_owner(fs);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        cr_expect_eq(fastspool_lock(fs, d, others[i], &whole), -EINVAL, "command %d", others[i]);
        cr_expect_eq(fastspool_lock_for(fs, d, owner, others[i], &whole), -EINVAL, "command %d", others[i]);
    }
    cr_assert_not(noted(d));
}

/* A lock that another process, or an owner of a server's, has noted or been given by the kernel excludes a noted one.
 */
Test(locks, exclude_each_other)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int d = opened("f", O_RDWR | O_CREAT), owner = fastspool_lock_owner(fs);

    start_other("f");
    cr_assert_eq(lock(d, F_WRLCK, 0, 19), 0);
    cr_assert(noted(d));
    cr_assert_eq(call(LOCK, 18, 1), -EAGAIN);
    cr_assert_eq(call(READ_LOCK, 0, 1), -EAGAIN);
    cr_assert_eq(call(GET, 0, 0), 19);
    cr_assert_eq(call(GET, 19, 0), 0);
    cr_assert_eq(fastspool_lock_for(fs, d, owner, F_SETLK, &whole), -EAGAIN);
    cr_assert_eq(call(LOCK, 19, 1), 0); /* beside it */
    cr_assert_eq(lock(d, F_WRLCK, 0, 20), -EAGAIN);
    cr_assert_eq(call(LOCK, 18, 1), -EAGAIN);
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(call(LOCK, 0, 19), 0);
    d = opened("f", O_RDWR);
    cr_assert_eq(lock(d, F_WRLCK, 0, 1), -EAGAIN);
    cr_assert_eq(call(CLOSE, 0, 0), 0);
    cr_assert_eq(lock(d, F_WRLCK, 0, 1), 0);
    cr_assert_eq(lock(d, F_UNLCK, 0, 1), 0);
    cr_assert_eq(fastspool_lock_for(fs, d, owner, F_SETLK, &whole), 0);
    cr_assert_eq(lock(d, F_WRLCK, 0, 1), -EAGAIN);
    end_other();
}

/* What the process has noted follows its further calls: a part is unlocked, a part is for reading from now on, another
 * description of the file is closed. */
Test(locks, changes_of_ones_own)
{
    int d = opened("f", O_RDWR | O_CREAT);

    start_other("f");
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert(noted(d));
    cr_assert_eq(lock(d, F_UNLCK, 0, 5), 0);
    cr_assert(!noted(d));
    cr_assert_eq(call(GET, 0, 0), 5005);
    cr_assert_eq(call(LOCK, 9, 1), -EAGAIN);
    cr_assert_eq(lock(d, F_UNLCK, 0, 0), 0);
    cr_assert_eq(call(GET, 0, 0), 0);

    int g = opened("g", O_RDWR | O_CREAT), again = opened("g", O_RDWR);
    end_other();
    start_other("g");
    cr_assert_eq(lock(g, F_WRLCK, 0, 10), 0);
    cr_assert_eq(lock(again, F_RDLCK, 0, 5), 0);
    cr_assert_eq(call(READ_LOCK, 0, 5), 0);
    cr_assert_eq(call(READ_LOCK, 5, 1), -EAGAIN);
    cr_assert_eq(fastspool_close(fs, again), 0);
    cr_assert_eq(call(LOCK, 5, 5), 0);
    end_other();
}

Test(locks, close_of_another_description)
{
    int d = opened("f", O_RDWR | O_CREAT), again = opened("f", O_RDONLY);

    start_other("f");
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert_eq(fastspool_close(fs, again), 0);
    cr_assert_eq(call(LOCK, 0, 10), 0);
    end_other();
}

/* The kernel makes one lock of the end of a file and the beginning of the next one: F_GETLK tells of the file's part.
 */
Test(locks, neighbours)
{
    static const char *const names[] = {"f", "g", "h"};
    int d[3];

    for (int i = 0; i < 3; i++)
        d[i] = opened(names[i], O_RDWR | O_CREAT);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(description_at(fs, (uint32_t)d[i])->inode + 1, description_at(fs, (uint32_t)d[i + 1])->inode);
    cr_assert_eq(lock(d[0], F_RDLCK, 20, 0), 0);
    cr_assert_eq(lock(d[1], F_RDLCK, 0, 0), 0);
    cr_assert_eq(lock(d[2], F_RDLCK, 0, 10), 0);
    for (int i = 0; i < 3; i++) {
        start_other(names[i]);
        cr_assert_eq(call(GET, 0, 0), i == 0 ? 20 * 1000 : i == 1 ? WHOLE : 10);
        end_other();
    }
    cr_assert_eq(lock(d[1], F_UNLCK, 0, 0), 0);
    start_other("f");
    cr_assert_eq(call(GET, 0, 0), 20 * 1000);
    end_other();
}

/* The holder dies: its lock is gone, for one who asks and for one who waits. */
Test(locks, death)
{
    int d = opened("f", O_RDWR | O_CREAT);

    start_other("f");
    cr_assert_eq(call(LOCK, 0, 10), 0);
    cr_assert_eq(lock(d, F_WRLCK, 5, 1), -EAGAIN);
    end_other();
    cr_assert_eq(lock(d, F_WRLCK, 5, 1), 0);
    cr_assert(noted(d));
    cr_assert_eq(lock(d, F_UNLCK, 5, 1), 0);

    start_other("f");
    cr_assert_eq(call(LOCK, 0, 10), 0);
    pid_t waiter = fork();
    if (waiter == 0) {
        fs = fixture_attach();
        _exit(lock_by(opened("f", O_RDWR), F_SETLKW, F_WRLCK, 0, 1) != 0);
    }
    until_it_waits(waiter);
    end_other();
    int status;
    waitpid(waiter, &status, 0);
    cr_assert_eq(status, 0);
}

/* Whoever waits goes on with the end of the lock, by an unlock or a close; what else its holder had noted stays. */
Test(locks, waiting)
{
    int d = opened("f", O_RDWR | O_CREAT), kept = opened("kept", O_RDWR | O_CREAT);

    start_other("f");
    for (int by_close = 0; by_close < 2; by_close++) {
        cr_assert_eq(lock(kept, F_WRLCK, 0, 10), 0);
        cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
        ask(WAIT, 5, 1);
        until_it_waits(other);
        cr_assert_eq(by_close ? fastspool_close(fs, d) : lock(d, F_UNLCK, 0, 0), 0);
        cr_assert_eq(answer(), 0);
        cr_assert_eq(call(UNLOCK, 0, 0), 0);
    }
    end_other();
    start_other("kept");
    cr_assert_eq(call(LOCK, 0, 10), -EAGAIN);
    end_other();
}

/* So it does where the process has no descriptor left to ask by who else holds the description. */
Test(locks, waiting_without_descriptors, .timeout = 60)
{
    struct rlimit usual, none;
    int d = opened("f", O_RDWR | O_CREAT);

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = usual.rlim_max};
    start_other("f");
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    ask(WAIT, 5, 1);
    until_it_waits(other);
    descriptions_shared(fs);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    cr_expect_eq(fastspool_close(fs, d), -EMFILE);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
    cr_assert_eq(answer(), 0);
    end_other();
}

static int unlocked; /* by another thread */

static void unlock_meanwhile(void)
{
    section_guard.enter = NULL;
    cr_assert_eq(lock(unlocked, F_UNLCK, 0, 0), 0);
}

/* Another thread unlocks what is waited for, just before a close ends its note.  That takes the note to the kernel, and
 * the close ends it there. */
Test(locks, close_beside_an_unlock)
{
    int d = opened("f", O_RDWR | O_CREAT);

    opened("f", O_RDONLY);
    unlocked = opened("g", O_RDWR | O_CREAT);
    start_other("g");
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert_eq(lock(unlocked, F_WRLCK, 0, 10), 0);
    ask(WAIT, 5, 1);
    until_it_waits(other);
    section_guard.enter = unlock_meanwhile;
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(answer(), 0);
    end_other();
    start_other("f");
    cr_assert_eq(call(LOCK, 0, 10), 0);
    end_other();
}

/* Each waits for what the other has noted: the kernel finds it, and the second gets EDEADLK. */
Test(locks, deadlock)
{
    int d = opened("f", O_RDWR | O_CREAT), mine = opened("g", O_RDWR | O_CREAT);

    start_other("f");
    cr_assert_eq(call(LOCK, 0, 1), 0);
    cr_assert_eq(lock(mine, F_WRLCK, 0, 1), 0);
    ask(WAIT_FOR_G, 0, 1);
    until_it_waits(other);
    cr_assert_eq(lock_by(d, F_SETLKW, F_WRLCK, 0, 1), -EDEADLK);
    cr_assert_eq(fastspool_close(fs, mine), 0);
    cr_assert_eq(answer(), 0);
    end_other();
}

/* A note of a dead process, and a new process with its pid: not taken for the new one's, and no lock for ever. */
Test(locks, pid_again)
{
    int d = opened("f", O_RDWR | O_CREAT), g = opened("g", O_RDWR | O_CREAT);

    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    STORE(fs->noting, 0); /* as in a new process */
    cr_assert_eq(lock(g, F_WRLCK, 0, 10), 0);
    start_other("f");
    cr_assert_eq(call(LOCK, 0, 10), 0);
    end_other();
}

/* Another thread is about to note for the first time: this one's locks are the kernel's, and nothing is removed. */
Test(locks, threads)
{
    int d = opened("f", O_RDWR | O_CREAT), g = opened("g", O_RDWR | O_CREAT);

    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    STORE(fs->noting, 0);
    STORE(fs->noting_begins, mutex_life());
    cr_assert_eq(lock(g, F_WRLCK, 0, 10), 0);
    cr_assert(!noted(g) && noted(d));
    start_other("g");
    cr_assert_eq(call(LOCK, 0, 10), -EAGAIN);
    end_other();
    STORE(fs->noting_begins, mutex_life() + 1); /* a parent's, at the fork */
    int h = opened("h", O_RDWR | O_CREAT);
    cr_assert_eq(lock(h, F_WRLCK, 0, 10), 0);
    cr_assert(noted(h));
}

/* A child has none of its parent's, and the parent keeps its own when the child closes and ends. */
Test(locks, fork)
{
    int d = opened("f", O_RDWR | O_CREAT), status;

    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    descriptions_shared(fs);
    pid_t child = fork();
    if (child == 0) {
        fastspool_after_fork_child(fs);
        bool right =
            lock(d, F_WRLCK, 0, 1) == -EAGAIN && lock(d, F_UNLCK, 0, 0) == 0 && lock(d, F_WRLCK, 0, 1) == -EAGAIN;
        _exit(!right || fastspool_close(fs, d) != 0);
    }
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    cr_assert(noted(d));
    start_other("f");
    cr_assert_eq(call(LOCK, 0, 10), -EAGAIN);
    end_other();
}

/* Nothing of it is left on an inode that the next file gets. */
Test(locks, a_new_file)
{
    int d = opened("f", O_RDWR | O_CREAT);

    cr_assert_eq(lock(d, F_RDLCK, 0, 10), 0);
    uint32_t inode = description_at(fs, (uint32_t)d)->inode;
    cr_assert(inode_at(fs, inode)->flags & INODE_LOCKS_KERNELS);
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert(!(inode_at(fs, inode)->flags & INODE_LOCKS_KERNELS));
    d = opened("f", O_RDWR);
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert(noted(d));
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(inode_at(fs, inode)->flags & (INODE_NOTED | INODE_AWAITED), 0);
}

/* The mail user writes a note that leads nowhere, or to nobody. */
Test(locks, forged)
{
    int d = opened("f", O_RDWR | O_CREAT);
    const struct description *description = description_at(fs, (uint32_t)d);

    WRITABLE(inode_at(fs, description->inode)->flags) |= INODE_NOTED; /* no description has one */
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    cr_assert_eq(lock(d, F_UNLCK, 0, 0), 0);
    WRITABLE(inode_at(fs, description->inode)->flags) |= INODE_NOTED;
    WRITABLE(description->locker) = UINT32_MAX;
    WRITABLE(description->lock_to) = UINT64_MAX;
    int e = opened("f", O_RDWR);
    cr_assert_eq(lock(e, F_WRLCK, 0, 10), 0);
}

/* He writes that this process has noted bytes of a file that can't be, or no bytes: the kernel gets no lock of other
 * files for that. */
Test(locks, forged_elsewhere)
{
    int d = opened("f", O_RDWR | O_CREAT), e = opened("g", O_RDWR | O_CREAT), h = opened("h", O_RDWR | O_CREAT);
    const struct description *forged = description_at(fs, (uint32_t)e), *others = description_at(fs, (uint32_t)h);
    const uint32_t inode = forged->inode;

    checking_every(0); /* he damages the segment */
    cr_assert_eq(lock(d, F_WRLCK, 0, 10), 0);
    WRITABLE(forged->locker) = (uint32_t)getpid();
    WRITABLE(forged->lock_from) = WRITABLE(forged->lock_to) = 5;
    WRITABLE(inode_at(fs, inode)->flags) |= INODE_NOTED;
    cr_assert_eq(lock(e, F_RDLCK, 0, 10), 0);
    start_other("h");
    cr_expect_eq(call(READ_LOCK, 0, 10), 0);
    end_other();
    cr_assert_eq(lock(e, F_UNLCK, 0, 0), 0);

    WRITABLE(forged->locker) = (uint32_t)getpid();
    WRITABLE(forged->lock_from) = 0;
    WRITABLE(forged->inode) = UINT32_C(1) << 31 | others->inode;
    start_other("f");
    ask(WAIT, 5, 1);
    until_it_waits(other);
    cr_assert_eq(lock(d, F_UNLCK, 0, 0), 0);
    cr_assert_eq(answer(), 0);
    end_other();
    start_other("h");
    cr_expect_eq(call(READ_LOCK, 0, 10), 0);
    end_other();
    WRITABLE(forged->inode) = inode;
    WRITABLE(forged->locker) = 0;
}

/* SPDX-License-Identifier: MIT
 *
 * The lock: deaths of its holder, told to the kernel and not; words that nobody has locked; holders that do not move.
 */
#include "store/mutex.h"
#include "base/clock.h"
#include "base/guard.h"
#include "counting.h"
#include "filter.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#define OTHER_USER 12345
#define SOON       (4 * NS_PER_S) /* less than it takes until a holder counts as stuck */

TestSuite(mutex, .init = counting_setup, .fini = fixture_teardown, .timeout = 600);

/* ---- deaths ---- */

static void die(void *argument)
{
    (void)argument;
    kill(getpid(), SIGKILL);
}

static void leave(void *argument)
{
    (void)argument;
    _exit(0);
}

static void execute(void *argument)
{
    (void)argument;
    execl("/bin/true", "true", NULL);
}

static void end_thread(void *argument)
{
    (void)argument;
    syscall(SYS_exit, 0);
}

static void *in_a_thread(void *argument)
{
    run_section(*(happening **)argument, NULL);
    return NULL;
}

/* A child that comes into a section, in which @event ends it. */
static void die_by(happening *event, bool thread)
{
    pid_t pid = fork();

    if (pid == 0) {
        pthread_t other;
        if (!thread)
            run_section(event, NULL);
        else if (pthread_create(&other, NULL, in_a_thread, &event) == 0)
            pthread_join(other, NULL);
        _exit(0);
    }
    end_of(pid);
}

/* The kernel tells each death, however the holder dies: 200 of 200.  The next section rolls back. */
Test(mutex, deaths_are_told)
{
    static happening *const ways[] = {die, execute, leave, end_thread};
    int told = 0;

    for (int i = 0; i < 200; i++) {
        die_by(ways[i % 4], i % 4 == 3 || i % 8 == 0);
        told += lock_word() == FUTEX_OWNER_DIED;
        cr_assert_eq(run_section(NULL, NULL), 0);
        words_are((uint64_t)i + 1);
    }
    cr_assert_eq(told, 200);
}

/* A holder that a bare clone has made, without a list of robust locks, dies: it is told, too. */
Test(mutex, bare_clone)
{
    run_section(NULL, NULL);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        run_section(die, NULL);
        _exit(0);
    }
    end_of(pid);
    cr_assert_eq(lock_word(), FUTEX_OWNER_DIED);
    cr_assert_eq(run_section(NULL, NULL), 0);
    words_are(2);
}

/* A process is killed after each of its instructions from before a section to behind it.  The kernel has always told,
 * the next section runs at once, and the words have changed together or not at all. */
Test(mutex, every_instruction)
{
    uint64_t done = 0;
    int status, steps = 1;

    do {
        pid_t pid = fork();
        if (pid == 0) {
            ptrace(PTRACE_TRACEME, 0, NULL, NULL);
            run_section(NULL, NULL); /* the first one asks for the thread id */
            raise(SIGSTOP);
            run_section(NULL, NULL);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        for (int i = 0; i < steps && WIFSTOPPED(status); i++) {
            ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
            waitpid(pid, &status, 0);
        }
        if (WIFSTOPPED(status)) {
            kill(pid, SIGKILL);
            end_of(pid);
        }
        cr_assert(lock_word() == 0 || lock_word() == FUTEX_OWNER_DIED, "after %d instructions: %x", steps, lock_word());
        cr_assert_eq(run_section(NULL, NULL), 0);
        uint64_t now = *word(0);
        cr_assert(now == done + 2 || now == done + 3, "after %d instructions: %llu sections of 2 or 3", steps,
                  (unsigned long long)(now - done));
        words_are(now);
        done = now;
        steps += getenv("FASTSPOOL_TEST_LONG") ? 1 : 7 + steps / 20;
    } while (!WIFEXITED(status));
    cr_assert_gt(steps, 100);
}

/* ---- deaths that the kernel does not tell ---- */

static void die_untold(void *argument)
{
    struct robust_list_head *head;
    size_t size;

    (void)argument;
    syscall(SYS_get_robust_list, 0, &head, &size);
    head->list_op_pending = NULL;
    kill(getpid(), SIGKILL);
}

/* The next section does not wait for a thread that does not exist, be it still a zombie. */
Test(mutex, untold)
{
    for (int i = 0; i < 10; i++) {
        siginfo_t info;
        pid_t pid = fork();
        if (pid == 0)
            run_section(die_untold, NULL);
        cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        cr_assert_eq(lock_word(), (uint32_t)pid);
        if (i % 2)
            end_of(pid);
        uint64_t start = clock_monotonic();
        cr_assert_eq(run_section(NULL, NULL), 0);
        cr_assert_lt(clock_monotonic() - start, SOON);
        words_are((uint64_t)i + 1);
        if (i % 2 == 0)
            end_of(pid);
    }
}

/* A thread executes a program inside a section: it gets its process's id before the kernel looks at its locks. */
Test(mutex, exec_of_a_thread)
{
    for (int i = 0; i < 10; i++) {
        die_by(execute, true);
        uint64_t start = clock_monotonic();
        cr_assert_eq(run_section(NULL, NULL), 0);
        cr_assert_lt(clock_monotonic() - start, SOON);
        words_are((uint64_t)i + 1);
    }
}

/* ---- the program's own robust mutexes ---- */

static pthread_mutex_t *own_mutex(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t *mutex = mmap(NULL, sizeof(*mutex), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(mutex, MAP_FAILED);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    cr_assert_eq(pthread_mutex_init(mutex, &attributes), 0);
    return mutex;
}

/* A process dies inside a section, and holds two mutexes of its own: all three deaths are told. */
Test(mutex, death_with_the_programs_mutexes)
{
    pthread_mutex_t *mutex[] = {own_mutex(), own_mutex()};

    for (int i = 0; i < 50; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_mutex_lock(mutex[0]);
            pthread_mutex_lock(mutex[1]);
            run_section(die, NULL);
        }
        end_of(pid);
        cr_assert_eq(lock_word(), FUTEX_OWNER_DIED);
        for (int m = 0; m < 2; m++) {
            cr_assert_eq(pthread_mutex_lock(mutex[m]), EOWNERDEAD);
            cr_assert_eq(pthread_mutex_consistent(mutex[m]), 0);
            cr_assert_eq(pthread_mutex_unlock(mutex[m]), 0);
        }
        cr_assert_eq(run_section(NULL, NULL), 0);
        words_are((uint64_t)i + 1);
    }
}

static volatile sig_atomic_t handled;

static void on_alarm(int signal_number)
{
    (void)signal_number;
    run_section(NULL, NULL);
    handled++;
}

/* A handler that interrupts libc while it takes and gives back a robust mutex runs sections.  The mutex goes on
 * working, and in the end both deaths are told. */
Test(mutex, handler_in_the_programs_mutex)
{
    pthread_mutex_t *mutex = own_mutex();
    pid_t pid = fork();

    if (pid == 0) {
        struct itimerval often = {{0, 50}, {0, 50}}, never = {0};
        signal(SIGALRM, on_alarm);
        setitimer(ITIMER_REAL, &often, NULL);
        while (handled < 2000) {
            for (int i = 0; i < 1000; i++) {
                if (pthread_mutex_lock(mutex) != 0 || pthread_mutex_unlock(mutex) != 0)
                    _exit(1);
            }
        }
        setitimer(ITIMER_REAL, &never, NULL);
        pthread_mutex_lock(mutex);
        run_section(die, NULL);
    }
    int status = end_of(pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
    cr_assert_eq(lock_word(), FUTEX_OWNER_DIED);
    cr_assert_eq(pthread_mutex_lock(mutex), EOWNERDEAD);
    cr_assert_eq(run_section(NULL, NULL), 0);
    cr_assert_geq(*word(0), 2001);
}

/* What libc has announced when a handler comes stays announced behind a section. */
Test(mutex, pending_is_restored)
{
    struct robust_list_head *head;
    struct robust_list entry;
    size_t size;

    cr_assert_eq(syscall(SYS_get_robust_list, 0, &head, &size), 0);
    head->list_op_pending = &entry;
    cr_assert_eq(run_section(NULL, NULL), 0);
    cr_assert_eq(head->list_op_pending, &entry);
    head->list_op_pending = NULL;
    words_are(1);
}

/* ---- words that nobody has locked ---- */

/* A child that ends with the test, also while it is stopped. */
static pid_t bound_child(void)
{
    pid_t pid = fork();

    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static pid_t when_stopped(pid_t pid)
{
    siginfo_t info;

    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT), 0);
    return pid;
}

static pid_t stopped_child(happening *event)
{
    pid_t pid = bound_child();

    if (pid == 0) {
        run_section(event, NULL);
        _exit(0);
    }
    return when_stopped(pid);
}

static void stop(void *argument)
{
    (void)argument;
    kill(getpid(), SIGSTOP);
}

/* A child that is stopped outside sections.  @stranger: another program, which has not mapped the store. */
static pid_t innocent_child(bool stranger)
{
    pid_t pid = bound_child();

    if (pid == 0) {
        if (stranger)
            execl("/bin/sh", "sh", "-c", "kill -STOP $$", NULL);
        else
            stop(NULL);
        _exit(stranger);
    }
    return when_stopped(pid);
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    end_of(pid);
}

/* A word that names no thread, or the one that waits, keeps nobody waiting. */
Test(mutex, nonsense)
{
    const uint32_t words[] = {FUTEX_WAITERS,
                              FUTEX_OWNER_DIED,
                              FUTEX_WAITERS | FUTEX_OWNER_DIED,
                              FUTEX_TID_MASK,
                              UINT32_MAX,
                              0x3ffffff0 | FUTEX_WAITERS,
                              (uint32_t)gettid(),
                              (uint32_t)gettid() | FUTEX_WAITERS};
    uint64_t start = clock_monotonic(), count = sizeof(words) / sizeof(*words);

    for (size_t i = 0; i < count; i++) {
        STORE(fs->header->section.lock, words[i]);
        cr_assert_eq(run_section(NULL, NULL), 0);
        cr_assert_eq(lock_word(), 0, "after %x: %x", words[i], lock_word());
    }
    words_are(count);
    cr_assert_lt(clock_monotonic() - start, SOON);
}

/* A word that names a living process, which is not inside: the lock is taken over after some seconds, and the process
 * is left alone, be it a stranger or one that has the store mapped. */
Test(mutex, the_innocent_live)
{
    for (uint64_t stranger = 0; stranger < 2; stranger++) {
        pid_t innocent = innocent_child(stranger);
        STORE(fs->header->section.lock, (uint32_t)innocent);
        cr_assert_eq(run_section(NULL, NULL), 0);
        words_are(stranger + 1);
        cr_assert_eq(kill(innocent, SIGCONT), 0);
        int status = end_of(innocent);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    }
}

/* ---- holders that do not move ---- */

/* A holder that is stopped is killed after some seconds, and its section rolled back. */
Test(mutex, stopped_holder)
{
    pid_t pid = stopped_child(stop);

    cr_assert_eq(run_section(NULL, NULL), 0);
    words_are(1);
    int status = end_of(pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
}

static void pause_for_longer(void *argument)
{
    (void)argument;
    for (int i = 0; i < 8; i++) {
        clock_sleep(NS_PER_S);
        STORE(fs->header->section.sequence, fs->header->section.sequence + 2);
    }
}

/* A holder that moves is not killed, however long it takes. */
Test(mutex, slow_holder)
{
    siginfo_t info;
    pid_t pid = fork();

    if (pid == 0)
        _exit(run_section(pause_for_longer, NULL) != 0);
    while (lock_word() == 0)
        clock_sleep(NS_PER_MS);
    cr_assert_eq(run_section(NULL, NULL), 0);
    words_are(2);
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
    cr_assert_eq(info.si_code, CLD_EXITED);
}

/* Without CAP_SYS_PTRACE root can't look into other users' processes. */
static void drop_ptrace(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        _exit(2);
    data[0].effective &= ~(1u << CAP_SYS_PTRACE);
    data[0].permitted &= ~(1u << CAP_SYS_PTRACE);
    if (syscall(SYS_capset, &header, data) < 0)
        _exit(2);
}

static void become(uid_t user)
{
    if (setresuid(user, user, user) < 0)
        _exit(2);
}

static void stop_as_other(void *argument)
{
    become(*(uid_t *)argument);
    stop(NULL);
}

/* A child whose user is @user, stopped inside. */
static pid_t stopped_child_of(uid_t user)
{
    siginfo_t info;
    pid_t pid = fork();

    if (pid == 0) {
        run_section(stop_as_other, &user);
        _exit(0);
    }
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT), 0);
    return pid;
}

/* Root that can't look kills with the rights of the spool's owner: the owner's process, which is inside. */
Test(mutex, killed_with_the_owners_rights)
{
    pid_t holder = stopped_child_of(OTHER_USER), waiter = fork();

    if (waiter == 0) {
        drop_ptrace();
        fs->owner = OTHER_USER;
        _exit(run_section(NULL, NULL) != 0);
    }
    int status = end_of(waiter);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    status = end_of(holder);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
    words_are(1);
}

static uint64_t held_mask;

static void hold(void)
{
    const uint64_t all = ~UINT64_C(0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &held_mask, sizeof(all));
}

static void release(void)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &held_mask, NULL, sizeof(held_mask));
}

/* From now on who becomes another user stands still, as if that user had stopped him. */
static void stop_who_becomes_another(void)
{
    if (filter_call(SYS_setresuid, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER) < 0)
        _exit(2);
}

/* Wait for the lock as @user, with signals blocked inside as the preloaded library does, for longer than a holder may
 * stand still.  Then SIGTERM ends the wait. */
static void wait_and_terminate(uid_t user, uid_t owner, void (*prepare)(void))
{
    int status = 0;
    pid_t waiter = fork();

    if (waiter == 0) {
        section_guard = (struct section_guard){hold, release};
        drop_ptrace();
        if (prepare)
            prepare();
        fs->owner = owner;
        if (user)
            become(user);
        run_section(NULL, NULL);
        _exit(0);
    }
    for (int i = 0; i < 60; i++) {
        clock_sleep(100 * NS_PER_MS);
        cr_assert_eq(waitpid(waiter, NULL, WNOHANG), 0, "the wait has ended by itself");
    }
    kill(waiter, SIGTERM);
    for (int i = 0; i < 200 && waitpid(waiter, &status, WNOHANG) == 0; i++)
        clock_sleep(100 * NS_PER_MS);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "status %x", status);
}

/* The word names a process of root's that is not inside.  A root process that can't look does not kill it with root's
 * rights, nor does one of another user; both wait, and SIGTERM ends the wait. */
Test(mutex, not_killed_with_roots_rights)
{
    pid_t innocent = innocent_child(false); /* has one capability more than the waiter, which so can't look */

    STORE(fs->header->section.lock, (uint32_t)innocent);
    wait_and_terminate(0, OTHER_USER, NULL);
    wait_and_terminate(OTHER_USER, OTHER_USER, NULL);
    cr_assert_eq(waitpid(innocent, NULL, WNOHANG), 0);
    end_child(innocent);
}

/* Whose rights are borrowed to kill may stop the child that has them. */
Test(mutex, killer_is_stopped)
{
    pid_t innocent = innocent_child(false);

    STORE(fs->header->section.lock, (uint32_t)innocent);
    wait_and_terminate(0, OTHER_USER, stop_who_becomes_another);
    end_child(innocent);
}

/* ---- holders whose memory makes who looks wait ---- */

#define FAULTS 100 /* descriptor of the child's */

/* Memory of a child, of which nobody fills @page.  Who looks whether the child is inside reads there what tells the
 * segment, and finds what the owner of the page puts there, when he likes. */
static struct {
    char *page;
    struct robust_list_head list, none;
} trap;

static pid_t trapping_child(uid_t user)
{
    trap.page = mmap(NULL, BLOCK_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    trap.list = (struct robust_list_head){
        {&trap.list.list},
        0,
        (struct robust_list *)(trap.page + offsetof(struct header, section.lock) - offsetof(struct header, hash_seed))};
    trap.none.list.next = &trap.none.list;
    pid_t pid = bound_child();
    if (pid == 0) {
        struct uffdio_api api = {.api = UFFD_API};
        struct uffdio_register range = {{(uintptr_t)trap.page, BLOCK_SIZE}, UFFDIO_REGISTER_MODE_MISSING, 0};
        int faults = (int)syscall(SYS_userfaultfd, O_NONBLOCK);
        if (ioctl(faults, UFFDIO_API, &api) < 0 || ioctl(faults, UFFDIO_REGISTER, &range) < 0 ||
            dup2(faults, FAULTS) < 0 || syscall(SYS_set_robust_list, &trap.list, sizeof(trap.list)) < 0)
            _exit(2);
        become(user);
        stop(NULL);
        syscall(SYS_set_robust_list, &trap.none, sizeof(trap.none));
        _exit(0);
    }
    return when_stopped(pid);
}

static pid_t waiter_of(uid_t owner)
{
    pid_t waiter = bound_child();

    if (waiter == 0) {
        section_guard = (struct section_guard){hold, release};
        fs->owner = owner;
        _exit(run_section(NULL, NULL) != 0);
    }
    return waiter;
}

/* The page is never filled: then nobody can look, and the owner's rights kill the owner's process. */
Test(mutex, look_never_ends)
{
    pid_t liar = trapping_child(OTHER_USER);

    STORE(fs->header->section.lock, (uint32_t)liar);
    int status = end_of(waiter_of(OTHER_USER));
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    status = end_of(liar);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
    words_are(1);
}

/* A process of root's whose number is @number, which has just become free.  A test beside this one may start a process
 * in between, which has it for a time. */
static pid_t child_with_number(pid_t number)
{
    pid_t pid = -1;

    for (int tries = 0; tries < 3000 && pid != number; tries++) {
        FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "we");
        fprintf(last, "%ld", (long)number - 1);
        fclose(last);
        pid = bound_child();
        if (pid == 0) {
            for (;;)
                pause();
        }
        if (pid != number) {
            end_child(pid);
            clock_sleep(10 * NS_PER_MS);
        }
    }
    return pid;
}

/* The page says "inside" when its process has ended and another one has the number: that one is left alone. */
Test(mutex, number_is_used_again)
{
    static uint64_t seed[BLOCK_SIZE / sizeof(uint64_t)];
    struct uffd_msg fault;

    pid_t liar = trapping_child(OTHER_USER);
    seed[0] = fs->header->hash_seed;
    int process = (int)syscall(SYS_pidfd_open, liar, 0), faults = (int)syscall(SYS_pidfd_getfd, process, FAULTS, 0);
    struct uffdio_copy answer = {.dst = (uintptr_t)trap.page, .src = (uintptr_t)seed, .len = BLOCK_SIZE};
    STORE(fs->header->section.lock, (uint32_t)liar);
    pid_t waiter = waiter_of(OTHER_USER);
    while (read(faults, &fault, sizeof(fault)) != sizeof(fault))
        clock_sleep(NS_PER_MS);
    kill(liar, SIGCONT);
    end_of(liar);
    pid_t innocent = child_with_number(liar);
    cr_assert_eq(innocent, liar, "the number is not free");
    ioctl(faults, UFFDIO_COPY, &answer); /* fails where the look has ended meanwhile */
    int status = end_of(waiter);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    cr_assert_eq(waitpid(innocent, NULL, WNOHANG), 0, "it was killed");
    end_child(innocent);
}

/* SPDX-License-Identifier: MIT
 *
 * Signals and the store.
 *
 *      signals SPOOL rules     what the program sees of its handlers, a line a rule
 *      signals SPOOL STRIDE    a signal at each STRIDEth instruction of a write to a spool file, and of a fork
 *
 * The first prints the same with the library and without.  In the second a child writes, step by step, and after each
 * number of steps in turn it gets a signal.  Whatever the handler does, the write has happened completely or not at
 * all, and the store can be used.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char spool[200];

static const char *at(const char *name)
{
    static char paths[4][300];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/input/%s", spool, name);
    return path;
}

static int child_status(pid_t pid)
{
    int status = -1;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* Use the store: a handler may, and so must the process after it. */
static bool use_spool(const char *name)
{
    struct stat st;
    int fd = open(at(name), O_RDWR | O_CREAT, 0640);
    bool works = fd >= 0 && write(fd, "x", 1) == 1 && fstat(fd, &st) == 0 && st.st_size == 1;

    if (fd >= 0)
        close(fd);
    return unlink(at(name)) == 0 && works;
}

/* ---- rules ---- */

static volatile sig_atomic_t calls, last_code, last_value, nested, deepest, mask_inside;

static void note(int number)
{
    sigset_t mask;

    sigprocmask(SIG_BLOCK, NULL, &mask);
    mask_inside = (sigismember(&mask, number) == 1) + 2 * (sigismember(&mask, SIGHUP) == 1);
    calls++;
}

static void plain(int number)
{
    note(number);
}

static void informed(int number, siginfo_t *info, void *context)
{
    (void)context;
    note(number);
    last_code = info->si_code;
    last_value = info->si_value.sival_int;
}

static void again(int number)
{
    nested++;
    if (nested > deepest)
        deepest = nested;
    if (++calls < 3)
        raise(number);
    nested--;
}

static const char *name_of(const struct sigaction *action)
{
    if (action->sa_flags & SA_SIGINFO)
        return action->sa_sigaction == informed ? "informed" : "another one with SA_SIGINFO";
    return action->sa_handler == SIG_DFL   ? "default"
           : action->sa_handler == SIG_IGN ? "ignore"
           : action->sa_handler == plain   ? "plain"
           : action->sa_handler == again   ? "again"
                                           : "another one";
}

static void tell(const char *rule, int number)
{
    struct sigaction now;

    sigaction(number, NULL, &now);
    printf("%s: %s, flags %x, blocks HUP %d; called %d, code %d, value %d, mask %d\n", rule, name_of(&now),
           (unsigned)now.sa_flags, sigismember(&now.sa_mask, SIGHUP), calls, last_code, last_value, mask_inside);
    calls = last_code = last_value = mask_inside = 0;
}

static void install(int number, void *what, int flags)
{
    struct sigaction action = {.sa_flags = flags};

    action.sa_handler = what;
    sigaddset(&action.sa_mask, SIGHUP);
    sigaction(number, &action, NULL);
}

static const char *as_text(sighandler_t what)
{
    return what == SIG_ERR    ? "SIG_ERR"
           : what == SIG_DFL  ? "SIG_DFL"
           : what == SIG_IGN  ? "SIG_IGN"
           : what == SIG_HOLD ? "SIG_HOLD"
           : what == plain    ? "plain"
           : what == again    ? "again"
                              : "another one";
}

static void handlers(void)
{
    const union sigval value = {.sival_int = 77};

    tell("nothing set", SIGUSR1);
    install(SIGUSR1, plain, SA_RESTART);
    raise(SIGUSR1);
    tell("plain", SIGUSR1);
    install(SIGUSR1, informed, SA_SIGINFO);
    sigqueue(getpid(), SIGUSR1, value);
    tell("with information", SIGUSR1);
    install(SIGUSR1, plain, SA_RESETHAND);
    raise(SIGUSR1);
    tell("once", SIGUSR1);
    install(SIGUSR1, again, SA_NODEFER);
    raise(SIGUSR1);
    printf("deepest %d\n", deepest);
    tell("nested", SIGUSR1);
    deepest = 0;
    install(SIGUSR1, again, 0);
    raise(SIGUSR1);
    printf("deepest %d\n", deepest);
    tell("one after the other", SIGUSR1);
    install(SIGUSR1, SIG_IGN, 0);
    raise(SIGUSR1);
    tell("ignored", SIGUSR1);
    install(SIGUSR1, SIG_DFL, 0);
    tell("default", SIGUSR1);
}

/* Handlers that are set again, where something else has changed in between, or nothing has. */
static void set_again(void)
{
    struct sigaction other = {.sa_handler = plain};

    install(SIGUSR1, plain, SA_RESTART);
    install(SIGUSR1, plain, SA_RESTART);
    raise(SIGUSR1);
    tell("set twice", SIGUSR1);
    install(SIGUSR1, informed, SA_RESTART | SA_SIGINFO);
    raise(SIGUSR1);
    tell("another handler", SIGUSR1);
    install(SIGUSR1, plain, SA_RESTART);
    raise(SIGUSR1);
    tell("the first one, without information", SIGUSR1);
    sigaction(SIGUSR1, &other, NULL);
    raise(SIGUSR1);
    tell("other flags and mask", SIGUSR1);
    install(SIGUSR1, plain, 0);
    raise(SIGUSR1);
    tell("another mask", SIGUSR1);
    install(SIGUSR1, SIG_IGN, 0);
    install(SIGUSR1, plain, 0);
    raise(SIGUSR1);
    tell("ignored meanwhile", SIGUSR1);
    install(SIGUSR1, plain, SA_RESTART);
    siginterrupt(SIGUSR1, 1);
    install(SIGUSR1, plain, SA_RESTART);
    tell("interrupting meanwhile", SIGUSR1);
    siginterrupt(SIGUSR1, 0);
    for (int i = 0; i < 2; i++) {
        install(SIGUSR1, plain, SA_RESETHAND);
        raise(SIGUSR1);
    }
    tell("once, twice", SIGUSR1);
    install(SIGUSR1, plain, 0);
    install(SIGUSR1, plain, SA_RESETHAND);
    raise(SIGUSR1);
    install(SIGUSR1, plain, 0);
    raise(SIGUSR1);
    tell("for good, once, for good", SIGUSR1);
    install(SIGUSR1, SIG_DFL, 0);
    pid_t child = fork();
    if (child == 0) {
        struct {
            void *handler;
            unsigned long flags;
            void *restorer;
            uint64_t mask;
        } none = {0};

        install(SIGUSR1, plain, 0);
        syscall(SYS_rt_sigaction, SIGUSR1, &none, NULL, sizeof(none.mask));
        install(SIGUSR1, plain, 0);
        raise(SIGUSR1);
        _exit(calls);
    }
    printf("set by the system call meanwhile: %x\n", (unsigned)child_status(child));
}

static void older_functions(void)
{
    printf("signal: %s", as_text(signal(SIGUSR1, plain)));
    printf(", %s", as_text(signal(SIGUSR1, SIG_IGN)));
    printf(", %s", as_text(signal(SIGUSR1, again)));
    printf(", %s\n", as_text(signal(SIGUSR1, plain)));
    tell("by signal", SIGUSR1);
    siginterrupt(SIGUSR1, 1);
    tell("interrupting", SIGUSR1);
    signal(SIGUSR1, plain);
    tell("by signal, interrupting", SIGUSR1);
    siginterrupt(SIGUSR1, 0);
    tell("not interrupting", SIGUSR1);
    printf("sysv_signal: %s\n", as_text(sysv_signal(SIGUSR1, again)));
    tell("by sysv_signal", SIGUSR1);
    printf("sigset: %s", as_text(sigset(SIGUSR1, plain)));
    printf(", %s", as_text(sigset(SIGUSR1, SIG_HOLD)));
    printf(", %s", as_text(sigset(SIGUSR1, SIG_HOLD)));
    printf(", %s", as_text(sigset(SIGUSR1, SIG_DFL)));
    printf(", %s\n", as_text(sigset(SIGUSR1, SIG_DFL)));
    printf("signal of nothing: %s", as_text(signal(SIGKILL, plain)));
    printf(", %s", as_text(signal(0, plain)));
    printf(", %s", as_text(signal(1000, plain)));
    printf(", %s\n", as_text(signal(SIGUSR1, SIG_ERR)));
    struct sigaction action = {.sa_handler = plain};
    printf("sigaction of nothing: %d, %d, %d, %d\n", sigaction(SIGSTOP, &action, NULL), sigaction(-1, &action, NULL),
           sigaction(65, NULL, &action), sigaction(32, &action, NULL));
}

static void until_the_parent_sleeps(void)
{
    char path[40], state = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)getppid());
    while (state != 'S') {
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%*d %*s %c", &state) != 1)
            _exit(2);
        fclose(file);
    }
}

/* A child that sends SIGALRM when this process sleeps, and writes a byte to @end, if there is one, when it sleeps
 * again. */
static pid_t interrupter(int end)
{
    pid_t child = fork();

    if (child == 0) {
        until_the_parent_sleeps();
        kill(getppid(), SIGALRM);
        if (end >= 0)
            until_the_parent_sleeps();
        _exit(end >= 0 && write(end, "y", 1) != 1);
    }
    return child;
}

static void system_calls(void)
{
    const struct timespec long_time = {60, 0};
    struct pollfd none = {.fd = -1};
    sigset_t one, mask, outside;
    siginfo_t info;
    int ends[2];
    char byte;

    if (pipe(ends) < 0)
        return;
    install(SIGALRM, plain, 0);
    pid_t child = interrupter(-1);
    ssize_t result = read(ends[0], &byte, 1);
    printf("read: %zd, %s %d", result, strerror(errno), child_status(child));
    install(SIGALRM, plain, SA_RESTART);
    child = interrupter(-1);
    result = poll(&none, 1, 60000);
    printf("; poll: %zd, %s %d", result, strerror(errno), child_status(child));
    child = interrupter(ends[1]);
    result = read(ends[0], &byte, 1);
    printf("; read again: %zd %d\n", result, child_status(child));
    tell("while it waits", SIGALRM);
    sigemptyset(&one);
    sigaddset(&one, SIGALRM);
    sigprocmask(SIG_BLOCK, &one, &outside);
    raise(SIGALRM);
    printf("sigtimedwait: %d", sigtimedwait(&one, &info, &long_time));
    int fd = signalfd(-1, &one, 0);
    struct signalfd_siginfo read_info;
    raise(SIGALRM);
    printf("; signalfd: %zd", read(fd, &read_info, sizeof(read_info)));
    mask = outside;
    raise(SIGALRM);
    printf("; sigsuspend: %d, %s\n", sigsuspend(&mask), strerror(errno));
    sigprocmask(SIG_SETMASK, &outside, NULL);
    tell("after waits", SIGALRM);
    close(fd);
    close(ends[0]);
    close(ends[1]);
}

/* SigCgt and SigIgn of a program that the shell runs: none may have come along. */
static void other_programs(void)
{
    char shell[] = "sh", option[] = "-c", script[] = "grep -E 'Sig(Cgt|Ign|Blk)' /proc/self/status";
    char *const arguments[] = {shell, option, script, NULL};
    extern char **environ;
    pid_t child;

    install(SIGUSR1, informed, SA_SIGINFO);
    install(SIGUSR2, SIG_IGN, 0);
    fflush(stdout);
    printf("system: %d\n", system(script));
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0)
        printf("posix_spawn: %d\n", child_status(child));
    fflush(stdout);
    child = fork();
    if (child == 0) {
        tell("in a child", SIGUSR1);
        fflush(stdout);
        execv("/bin/sh", arguments);
    }
    printf("execv: %d\n", child_status(child));
    tell("afterwards", SIGUSR1);
    tell("afterwards", SIGUSR2);
    child = fork();
    if (child == 0) {
        install(SIGUSR1, plain, SA_RESETHAND);
        raise(SIGUSR1);
        raise(SIGUSR1);
        _exit(0);
    }
    printf("twice: %d\n", child_status(child));
    child = fork();
    if (child == 0) {
        install(SIGABRT, plain, 0);
        abort();
    }
    printf("abort: %x\n", (unsigned)child_status(child) & 0x7f);
}

static int rules(void)
{
    if (!use_spool("rules"))
        return 1;
    handlers();
    set_again();
    older_functions();
    system_calls();
    other_programs();
    printf("spool: %d\n", use_spool("rules"));
    return 0;
}

/* ---- steps ---- */

enum { NUMBERS = 3 };

struct shared {
    bool written;
    int calls[NUMBERS], wrong;
};

static struct shared *shared;
static sigjmp_buf escape;
static int first_value;
static bool blocks; /* the kernel blocks a signal while its handler runs */

static bool is_mask_right(int number, bool blocked)
{
    sigset_t mask;

    sigprocmask(SIG_BLOCK, NULL, &mask);
    return sigismember(&mask, number) == blocked && !sigismember(&mask, SIGHUP) && !sigismember(&mask, SIGTERM);
}

/* The values of one number come in their order, each once, with the sender's id. */
static void count(int number, siginfo_t *info, void *context)
{
    (void)context;
    int expected = first_value + (number - SIGRTMIN) * 100 + shared->calls[number - SIGRTMIN]++;
    bool right = info->si_value.sival_int == expected && info->si_code == SI_QUEUE && info->si_pid == getppid() &&
                 is_mask_right(number, blocks);
    shared->wrong += !right;
}

static void count_and_use(int number, siginfo_t *info, void *context)
{
    count(number, info, context);
    shared->wrong += !use_spool("handler");
}

static void count_and_jump(int number, siginfo_t *info, void *context)
{
    count_and_use(number, info, context);
    siglongjmp(escape, 1);
}

static bool fork_well(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(!use_spool("child") || !is_mask_right(SIGRTMIN, false));
    return child_status(child) == 0;
}

static void count_and_fork(int number, siginfo_t *info, void *context)
{
    count(number, info, context);
    pid_t child = fork();
    if (child == 0)
        _exit(!use_spool("child"));
    shared->wrong += child_status(child) != 0;
}

static const struct scenario {
    const char *name;
    void (*handler)(int, siginfo_t *, void *);
    int flags, numbers, each;
    bool is_default_after, forks;
} scenarios[] = {
    {"the handler uses the spool", count_and_use, 0, 1, 1, false, false},
    {"the handler jumps", count_and_jump, 0, 1, 1, false, false},
    {"the handler forks", count_and_fork, 0, 1, 1, false, false},
    {"the handler is taken away", count, SA_RESETHAND, 1, 1, true, false},
    {"three signals of one number", count, SA_RESTART, 1, 3, false, false},
    {"the handler may interrupt itself", count_and_use, SA_NODEFER, 1, 1, false, false},
    {"a fork before the write", count_and_use, 0, 1, 2, false, true},
    {"signals of three numbers", count_and_use, 0, NUMBERS, 2, false, false},
};

static void write_once(int fd, const struct scenario *scenario)
{
    struct sigaction action = {.sa_sigaction = scenario->handler, .sa_flags = SA_SIGINFO | scenario->flags};

    blocks = !(scenario->flags & SA_NODEFER);
    for (int i = 0; i < scenario->numbers; i++)
        sigaction(SIGRTMIN + i, &action, NULL);
    if (sigsetjmp(escape, 1) == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        shared->wrong += scenario->forks && !fork_well();
        shared->wrong += pwrite(fd, "abcdefgh", 8, 0) != 8;
    }
    shared->written = true;
}

static int calls_of_all(void)
{
    return shared->calls[0] + shared->calls[1] + shared->calls[2];
}

/* In the child.  0: all is well. */
static int victim(const struct scenario *scenario)
{
    struct sigaction now;
    struct stat st;
    char bytes[9] = "";
    int signals = scenario->numbers * scenario->each;

    unlink(at("victim"));
    int fd = open(at("victim"), O_RDWR | O_CREAT | O_EXCL, 0640);
    write_once(fd, scenario);
    while (calls_of_all() < signals) /* they came after the write */
        poll(NULL, 0, 1);
    bool whole = fstat(fd, &st) == 0 && (st.st_size == 0 || (st.st_size == 8 && pread(fd, bytes, 8, 0) == 8));
    whole = whole && (st.st_size == 0 ? scenario->handler == count_and_jump : strcmp(bytes, "abcdefgh") == 0);
    sigaction(SIGRTMIN, NULL, &now);
    bool is_default = now.sa_handler == SIG_DFL, same_mask = is_mask_right(SIGRTMIN, false);
    if (shared->wrong || calls_of_all() != signals || !whole || is_default != scenario->is_default_after || !same_mask)
        fprintf(stderr, "%d wrong, %d of %d calls, %s, %s, %s mask\n", shared->wrong, calls_of_all(), signals,
                whole ? "whole" : "in part", is_default ? "default" : "caught", same_mask ? "same" : "another");
    else if (use_spool("victim2"))
        return 0;
    return 1;
}

/* Let the child make @steps instructions, with the signals that come meanwhile. */
static void walk(pid_t pid, int steps, int *status)
{
    for (int i = 0; i < steps && !shared->written && WIFSTOPPED(*status); i++) {
        int number = WSTOPSIG(*status);
        ptrace(PTRACE_SINGLESTEP, pid, NULL, (long)(number >= SIGRTMIN ? number : 0));
        waitpid(pid, status, 0);
    }
}

/* After @steps instructions come the signals of the first number, and after @apart more those of the next.  Returns
 * whether the write was over before. */
static bool at_step(const struct scenario *scenario, int steps, int apart, int *failed)
{
    int status;

    *shared = (struct shared){0};
    first_value = steps;
    pid_t pid = fork();
    if (pid == 0)
        _exit(victim(scenario));
    waitpid(pid, &status, 0);
    walk(pid, steps, &status);
    bool over = shared->written;
    for (int number = 0; number < scenario->numbers; number++) {
        if (number > 0)
            walk(pid, apart, &status);
        for (int i = 0; i < scenario->each; i++)
            sigqueue(pid, SIGRTMIN + number, (union sigval){.sival_int = steps + number * 100 + i});
    }
    ptrace(PTRACE_DETACH, pid, NULL, (long)(WSTOPSIG(status) >= SIGRTMIN ? WSTOPSIG(status) : 0));
    status = child_status(pid);
    if (status != 0) {
        fprintf(stderr, "%s, after %d instructions, %d apart: status %x\n", scenario->name, steps, apart,
                (unsigned)status);
        ++*failed;
    }
    return over;
}

static int all_steps(int stride)
{
    const size_t count = sizeof(scenarios) / sizeof(*scenarios);
    int failed = 0, steps = 0;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stride <= 0 || shared == MAP_FAILED || !use_spool("steps"))
        return 1;
    for (size_t i = 0; i < count; i++) {
        steps = (int)i;
        while (failed < 5 && !at_step(&scenarios[i], steps, 0, &failed))
            steps += stride;
        printf("%s: %d instructions\n", scenarios[i].name, steps);
        failed += steps < 500;
    }
    for (int apart = 1; apart < 200 && failed < 5; apart += 1 + stride / 10) /* inside, while one is put off */
        at_step(&scenarios[count - 1], steps * 2 / 3, apart, &failed);
    return failed != 0;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    snprintf(spool, sizeof(spool), "%s", argv[1]);
    return strcmp(argv[2], "rules") == 0 ? rules() : all_steps(atoi(argv[2]));
}

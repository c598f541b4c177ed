/* SPDX-License-Identifier: MIT
 *
 * A process that locks dies at each step: whoever else wants the lock gets it within a second.
 *
 *      lockers DIRECTORY VICTIM OTHER [--spoil]
 *
 * VICTIM and OTHER are `kernel` or `library`: how each of the two gets at the file.  A process of the library executes
 * this program with LD_PRELOAD; the configuration has to name it as `program`.
 *
 * Happy path: for each operation the victim is traced, and killed at its first system call, then at the entry and at
 * the return of each next one, and while it waits in one; and at moments that nobody chose.  Each time twice: the other
 * process wants the lock after the death, and it waits for it already.
 *
 * Failure modes:
 *   - A victim that holds nothing yet and waits for nobody: the other's wait ends at once.
 *   - --spoil leaves the victim alive for a while: each operation must be found to fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WITHIN  1000 /* ms: the other gets the lock */
#define WAITS   30   /* ms in one system call: it waits */
#define STEPS   1000 /* no operation has as many */
#define ASYNC   60   /* deaths at moments that nobody chose, of each operation */
#define LIFE    20   /* s of any process here */
#define ADVANCE 3000 /* us that the other waits before a death */

static char program[4096], path[4096];
static bool spoil;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1000 + (double)time.tv_nsec / 1e6;
}

static int lock(int fd, int command, short type, off_t start, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    return fcntl(fd, command, &lock);
}

/* ---- the victim ---- */

static int opened(int flags)
{
    int fd = open(path, flags);

    if (fd < 0)
        _exit(3);
    return fd;
}

static void lock_and_close(void)
{
    int fd = opened(O_RDWR);
    lock(fd, F_SETLK, F_WRLCK, 0, 0);
    close(fd);
}

static void lock_and_unlock(void)
{
    int fd = opened(O_RDWR);
    lock(fd, F_SETLK, F_WRLCK, 0, 10);
    lock(fd, F_SETLK, F_WRLCK, 20, 10);
    lock(fd, F_SETLK, F_UNLCK, 5, 20);
    lock(fd, F_SETLK, F_UNLCK, 0, 0);
}

static void read_lock(void)
{
    int fd = opened(O_RDWR), other = opened(O_RDONLY);
    lock(fd, F_SETLK, F_RDLCK, 0, 0);
    lock(fd, F_SETLK, F_WRLCK, 3, 3);
    close(other);
}

static void lock_of_a_duplicate(void)
{
    int fd = opened(O_RDWR), copy = dup(fd);
    lock(copy, F_SETLK, F_WRLCK, 0, 0);
    close(fd);
    close(copy);
}

static void wait_for_lock(void)
{
    int fd = opened(O_RDWR);
    lock(fd, F_SETLKW, F_WRLCK, 0, 0);
    close(fd);
}

static void wait_for_read_lock(void)
{
    int fd = opened(O_RDWR);
    lock(fd, F_SETLKW, F_RDLCK, 0, 0);
    lock(fd, F_SETLK, F_UNLCK, 0, 0);
    close(fd);
}

static void lock_and_fork(void)
{
    int fd = opened(O_RDWR);
    lock(fd, F_SETLK, F_WRLCK, 0, 0);
    if (fork() == 0) { /* it has the descriptor, but no lock */
        alarm(2);
        pause();
    }
    close(fd);
}

static void lock_of_the_description(void)
{
    int fd = opened(O_RDWR);
    lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0);
    close(fd);
}

static const struct operation {
    const char *name;
    void (*run)(void);
    bool waits;       /* the other holds the lock when it begins */
    bool kernel_only; /* the library has none */
} operations[] = {
    {"lock and close", lock_and_close, false, false},
    {"lock and unlock", lock_and_unlock, false, false},
    {"read lock", read_lock, false, false},
    {"lock of a duplicate", lock_of_a_duplicate, false, false},
    {"wait", wait_for_lock, true, false},
    {"wait for a read lock", wait_for_read_lock, true, false},
    {"lock and fork", lock_and_fork, false, false},
    {"lock of the description", lock_of_the_description, false, true},
};

#define OPERATIONS (sizeof(operations) / sizeof(*operations))

static void live_as_victim(const struct operation *operation)
{
    alarm(LIFE);
    close(opened(O_RDWR)); /* the library attaches */
    raise(SIGSTOP);
    operation->run();
    _exit(0);
}

/* ---- the other ---- */

static int commands, answers; /* the other's pipes, in each of both processes its own ends */

/* One letter at a time.  h: hold it all.  u: give it up.  g: get it, at once or within WITHIN.  w: wait for it.  The
 * answer is + or -. */
static void live_as_other(void)
{
    int fd = opened(O_RDWR);

    for (char command; alarm(LIFE), read(commands, &command, 1) == 1;) {
        double until = now() + WITHIN;
        int result = command == 'w'   ? lock(fd, F_SETLKW, F_WRLCK, 0, 0)
                     : command == 'u' ? lock(fd, F_SETLK, F_UNLCK, 0, 0)
                                      : lock(fd, F_SETLK, F_WRLCK, 0, 0);
        while (command == 'g' && result < 0 && now() < until) {
            usleep(500);
            result = lock(fd, F_SETLK, F_WRLCK, 0, 0);
        }
        if (write(answers, result < 0 ? "-" : "+", 1) != 1)
            break;
    }
    _exit(0);
}

static void say(char command)
{
    if (write(commands, &command, 1) != 1)
        exit(2);
}

/* True: it has done so within @milliseconds. */
static bool hear(int milliseconds)
{
    struct pollfd ready = {.fd = answers, .events = POLLIN};
    char answer = '-';

    return poll(&ready, 1, milliseconds) == 1 && read(answers, &answer, 1) == 1 && answer == '+';
}

static bool tell(char command)
{
    say(command);
    return hear(2 * WITHIN);
}

/* ---- processes ---- */

/* In a child: this program again, by way of @kind. */
static void execute(const char *kind, const char *role, const char *argument)
{
    if (strcmp(kind, "library") == 0)
        setenv("LD_PRELOAD", "libfastspool.so", 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(program, program, role, argument, path, (char *)NULL);
    _exit(8);
}

static void start_other(const char *kind)
{
    int to[2], from[2];

    if (pipe(to) < 0 || pipe(from) < 0)
        exit(2);
    fflush(stdout);
    if (fork() == 0) {
        char ends[32];
        snprintf(ends, sizeof(ends), "%d %d", to[0], from[1]);
        close(to[1]);
        close(from[0]);
        execute(kind, "--other", ends);
    }
    close(to[0]);
    close(from[1]);
    commands = to[1];
    answers = from[0];
    fcntl(commands, F_SETFD, FD_CLOEXEC);
    fcntl(answers, F_SETFD, FD_CLOEXEC);
}

static pid_t start_victim(const char *kind, const char *number)
{
    fflush(stdout);
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execute(kind, "--victim", number);
    }
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) != SIGSTOP)
        ptrace(PTRACE_CONT, pid, NULL, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
    if (!WIFSTOPPED(status)) {
        fprintf(stderr, "lockers: a victim did not begin, status %x\n", (unsigned)status);
        exit(2);
    }
    return pid;
}

/* Let the victim go on to its next stop.  1: it stopped.  0: it waits.  -1: it has ended. */
static int go_on(pid_t pid, int milliseconds)
{
    double until = now() + milliseconds;
    int status;

    for (pid_t done; (done = waitpid(pid, &status, WNOHANG)) <= 0;) {
        if (done < 0)
            return -1;
        if (now() > until)
            return 0;
        usleep(50);
    }
    return WIFSTOPPED(status) ? 1 : -1;
}

/* ---- one death ---- */

struct result {
    unsigned deaths, failed;
    double slowest; /* ms */
};

/* Kill the victim, while the other waits already if @before: then it must get the lock. */
static void die(pid_t pid, bool before, bool *holds, struct result *result)
{
    int status;

    if (*holds && !tell('u'))
        result->failed++;
    *holds = false;
    if (before) {
        say('w');
        usleep(ADVANCE);
    }
    if (!spoil)
        kill(pid, SIGKILL);
    double since = now();
    if (!before)
        say('g');
    bool got = hear(before ? WITHIN : WITHIN + 500);
    double took = now() - since;
    if (spoil)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
        ;
    if (!got && before)
        hear(-1);
    result->deaths++;
    result->failed += !got;
    result->slowest = took > result->slowest ? took : result->slowest;
    tell('u');
}

/* Lead the victim to @step.  False: it has ended before. */
static bool lead(pid_t pid, unsigned step, bool *holds)
{
    for (unsigned at = 0; at < step; at++) {
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        int state = go_on(pid, WAITS);
        if (state == 0 && ++at == step)
            return true; /* it waits */
        if (state == 0 && *holds) {
            tell('u');
            *holds = false;
        }
        if (state == 0)
            state = go_on(pid, WITHIN);
        if (state == 0)
            fprintf(stderr, "lockers: a victim waits for ever\n");
        if (state <= 0)
            return false;
    }
    return true;
}

static void die_at_each_step(const char *kind, const char *number, const struct operation *operation,
                             struct result *result)
{
    bool more = true;

    for (unsigned step = 0; more && step < STEPS; step++) {
        for (int before = 0; before < 2; before++) {
            bool holds = operation->waits && tell('h');
            pid_t pid = start_victim(kind, number);
            more = lead(pid, step, &holds);
            die(pid, before, &holds, result);
        }
    }
}

static void die_at_any_time(const char *kind, const char *number, const struct operation *operation,
                            struct result *result)
{
    for (unsigned i = 0; i < ASYNC; i++) {
        bool holds = operation->waits && tell('h');
        pid_t pid = start_victim(kind, number);
        ptrace(PTRACE_DETACH, pid, NULL, NULL);
        kill(pid, SIGCONT);
        if (holds && i % 2 == 0) { /* it gets the lock, and dies about then */
            usleep(1000);
            tell('u');
            holds = false;
        }
        usleep((useconds_t)(rand() % 1500));
        die(pid, i % 4 < 2, &holds, result);
    }
}

static int play(const char *kind, const char *other, size_t number)
{
    const struct operation *operation = &operations[number];
    struct result result = {0};
    char text[12];

    if (operation->kernel_only && strcmp(kind, "library") == 0)
        return 0;
    snprintf(text, sizeof(text), "%zu", number);
    die_at_each_step(kind, text, operation, &result);
    unsigned steps = result.deaths / 2;
    if (!spoil)
        die_at_any_time(kind, text, operation, &result);
    printf("%s - %s by the %s, for the %s: %u steps, %u deaths, %u of them in the way; %.0f ms at most\n",
           result.failed ? "not ok" : "ok", operation->name, kind, other, steps, result.deaths, result.failed,
           result.slowest);
    return result.failed > 0;
}

int main(int argc, char **argv)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    int bad = 0;

    if (argc >= 4)
        snprintf(path, sizeof(path), "%s", argv[3]);
    if (argc >= 4 && strcmp(argv[1], "--victim") == 0)
        live_as_victim(&operations[atoi(argv[2])]);
    if (argc >= 4 && strcmp(argv[1], "--other") == 0 && sscanf(argv[2], "%d %d", &commands, &answers) == 2)
        live_as_other();
    if (length < 0 || argc < 4) {
        fprintf(stderr, "usage: lockers DIRECTORY kernel|library kernel|library [--spoil]\n");
        return 2;
    }
    spoil = argc > 4 && strcmp(argv[4], "--spoil") == 0;
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(path, sizeof(path), "%s/f", argv[1]);
    close(open(path, O_RDWR | O_CREAT, 0644));
    start_other(argv[3]);
    for (size_t i = 0; i < OPERATIONS; i++)
        bad += play(argv[2], argv[3], i);
    return bad > 0;
}

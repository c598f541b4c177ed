/* SPDX-License-Identifier: MIT
 *
 * Running other programs: what one prints, and what the loader maps into a set-user-ID one.
 *
 * The loader's rules for secure execution are many, and some are the distribution's.  So they are not repeated here:
 * the program runs, and its memory is looked at.  Its standard output is a pipe that is full, so it stands at its
 * first line, with everything loaded.
 *
 * Failure modes:
 *   - The program ends before it prints: it can't be said.
 *   - It does nothing for ten seconds: the same.  It is killed.
 *   - This process may not look into another user's: that is said at once.  It may be let see what is mapped, and not
 *     where the program stands: then it is said after a second without the library.
 */
#include "command.h"

#include "base/clock.h"
#include "decided.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE (10 * NS_PER_S)
#define LOADED   (3 * NS_PER_S) /* by then a program stands */

struct start {
    const char *const *arguments;
    const char *preload;
    int out;   /* its standard output; -1: it keeps all three */
    bool drop; /* become @uid and @gid for good */
    uid_t uid;
    gid_t gid;
};

static void become(const struct start *start)
{
    char *arguments[16] = {0};

    for (size_t i = 0; start->arguments[i] && i < 15; i++)
        arguments[i] = strdup(start->arguments[i]);
    if (start->out >= 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(start->out, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
    }
    if (chdir("/") < 0)
        _exit(127);
    if (start->preload)
        setenv("LD_PRELOAD", start->preload, 1);
    else
        unsetenv("LD_PRELOAD");
    /* In a session without the terminal: another user could take the process over, and type into it. */
    if (start->drop && (setsid() < 0 || setgroups(0, NULL) < 0 || setgid(start->gid) < 0 || setuid(start->uid) < 0))
        _exit(127);
    execvp(arguments[0], arguments);
    _exit(127);
}

static pid_t begin(const struct start *start)
{
    pid_t pid = fork();

    if (pid == 0)
        become(start);
    return pid;
}

/* Waits for its end.  The exit status, or -1. */
static int end_of(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int command_run(const char *const arguments[], const char *preload, char output[COMMAND_OUTPUT])
{
    int ends[2];
    char rest[256];
    size_t length = 0;

    output[0] = '\0';
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    struct start start = {.arguments = arguments, .preload = preload, .out = ends[1]};
    pid_t pid = begin(&start);
    close(ends[1]);
    for (ssize_t got = 1; pid > 0 && got > 0; length += got > 0 && length < COMMAND_OUTPUT - 1 ? (size_t)got : 0) {
        bool full = length == COMMAND_OUTPUT - 1;
        got = read(ends[0], full ? rest : output + length, full ? sizeof(rest) : COMMAND_OUTPUT - 1 - length);
    }
    close(ends[0]);
    if (length > 0 && output[length - 1] == '\n')
        length--;
    output[length] = '\0';
    return pid < 0 ? -1 : end_of(pid);
}

int command_show(const char *const arguments[], const char *preload)
{
    struct start start = {.arguments = arguments, .preload = preload, .out = -1};

    fflush(stdout);
    pid_t pid = begin(&start);
    void (*before)(int) = signal(SIGINT, SIG_IGN); /* ^C is the program's, which says what it has done */
    int result = pid < 0 ? -1 : end_of(pid);
    signal(SIGINT, before);
    return result;
}

/* ---- in secure execution ---- */

/* A pipe that takes nothing more. */
static int full_pipe(int ends[2])
{
    static const char filler[4096];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    while (write(ends[1], filler, sizeof(filler)) > 0)
        ;
    fcntl(ends[1], F_SETFL, 0);
    return 0;
}

/* Begin, and wait until the program is in the process: until then that has the memory of this one, which may have the
 * library itself, as what a service starts has. */
static pid_t begin_whole(const struct start *start)
{
    int ends[2];
    char none;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = begin(start);
    int error = errno;
    close(ends[1]);
    while (pid > 0 && read(ends[0], &none, 1) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    errno = error;
    return pid;
}

/* Does @pid stand in a write to its standard output?  1: it does; 0: not yet; -EPERM: this process can't know. */
static int stands(pid_t pid)
{
    char path[48], text[64] = "";
    long number = -1;
    unsigned long fd = 0;

    snprintf(path, sizeof(path), "/proc/%ld/syscall", (long)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
    int result = size < 0 && errno == EPERM ? -EPERM : 0;
    if (file >= 0)
        close(file);
    if (result < 0)
        return result;
    return size > 0 && sscanf(text, "%ld %lx", &number, &fd) == 2 && number == SYS_write && fd == STDOUT_FILENO;
}

/* Root without CAP_SYS_PTRACE, as in a container, can't read another user's process. */
static bool is_closed(pid_t pid)
{
    char path[48];

    snprintf(path, sizeof(path), "/proc/%ld/maps", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool closed = fd < 0 && (errno == EACCES || errno == EPERM);
    if (fd >= 0)
        close(fd);
    return closed;
}

static int look_at(pid_t pid)
{
    siginfo_t info = {0};
    enum decision decision;

    for (uint64_t began = clock_monotonic(); clock_monotonic() - began < PATIENCE;) {
        if (is_closed(pid))
            return -EACCES;
        int standing = stands(pid);
        if (decided_has(pid, &decision))
            return 1;
        if (standing > 0)
            return 0;
        if (standing < 0 && clock_monotonic() - began > LOADED)
            return -EACCES;
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
            return -ECHILD;
        clock_sleep(NS_PER_MS);
    }
    return -ETIME;
}

int command_maps_library(const char *image, uid_t uid, gid_t gid, const char *preload)
{
    const char *const arguments[] = {image, "-bV", NULL};
    int ends[2], result = full_pipe(ends);

    if (result < 0)
        return result;
    struct start start = {
        .arguments = arguments, .preload = preload, .out = ends[1], .drop = true, .uid = uid, .gid = gid};
    pid_t pid = begin_whole(&start);
    result = pid < 0 ? -errno : look_at(pid);
    if (pid > 0) {
        kill(pid, SIGKILL);
        end_of(pid);
    }
    close(ends[0]);
    close(ends[1]);
    return result;
}

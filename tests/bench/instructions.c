/* SPDX-License-Identifier: MIT
 *
 * Count the instructions of a program, from its first to its last:
 *
 *      instructions [--steps] PROGRAM ARGUMENT...
 *
 * Prints the number.  The program's output goes to /dev/null.  What the kernel does is not counted, nor are children.
 *
 * Happy path: the processor counts (perf_event_open(2)), at no cost.
 *
 * Failure modes:
 *   - The processor has no counter, as most virtual machines: a sentence, and status 77.
 *   - --steps needs none: each step is a stop (ptrace(2)), of 1 to 20 us.  Other work does not change the number.
 *   - A program that can't be executed, or that ends with another status than 0, is a sentence and status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANNOT_EXECUTE 127
#define SKIPPED        77

static void failed(const char *what, const char *why)
{
    fprintf(stderr, "instructions: %s: %s\n", what, why);
    exit(1);
}

/* In the child, which waits until its parent has hold of it. */
static void execute(char **command)
{
    int nowhere = open("/dev/null", O_RDWR);

    if (nowhere < 0 || dup2(nowhere, STDIN_FILENO) < 0 || dup2(nowhere, STDOUT_FILENO) < 0 ||
        dup2(nowhere, STDERR_FILENO) < 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(CANNOT_EXECUTE);
    raise(SIGSTOP);
    execvp(command[0], command);
    _exit(CANNOT_EXECUTE);
}

static void check_end(const char *program, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_EXECUTE)
        failed(program, "it can't be executed and traced");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        failed(program, "it has ended with an error");
}

/* ---- by the processor ---- */

/* A counter of @pid that begins with its next program. */
static int open_counter(pid_t pid)
{
    struct perf_event_attr event = {.type = PERF_TYPE_HARDWARE,
                                    .config = PERF_COUNT_HW_INSTRUCTIONS,
                                    .size = sizeof(event),
                                    .disabled = 1,
                                    .enable_on_exec = 1,
                                    .pinned = 1,
                                    .exclude_kernel = 1,
                                    .exclude_hv = 1};

    return (int)syscall(SYS_perf_event_open, &event, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static uint64_t by_counter(pid_t pid, const char *program)
{
    int counter = open_counter(pid), status;
    uint64_t count;

    if (counter < 0) {
        fprintf(stderr, "instructions: this machine's processor counts none: %s; with --steps it takes minutes\n",
                strerror(errno));
        kill(pid, SIGKILL);
        exit(SKIPPED);
    }
    if (ptrace(PTRACE_DETACH, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid)
        failed("start", strerror(errno));
    check_end(program, status);
    if (read(counter, &count, sizeof(count)) != (ssize_t)sizeof(count))
        failed("counter", "something else used it meanwhile");
    return count;
}

/* ---- step by step ---- */

static uint64_t by_steps(pid_t pid, const char *program)
{
    uint64_t count = 0;
    int status;

    if (ptrace(PTRACE_CONT, pid, NULL, NULL) < 0) /* to the end of execve, which is a SIGTRAP */
        failed("start", strerror(errno));
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
        int signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        count += signal == 0;
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, signal) < 0)
            failed("single step", strerror(errno));
    }
    check_end(program, status);
    return count;
}

int main(int argc, char **argv)
{
    bool steps = argc > 1 && strcmp(argv[1], "--steps") == 0;
    char **command = argv + 1 + steps;
    int status;

    if (!command[0] || command[0][0] == '-') {
        fprintf(stderr, "usage: instructions [--steps] PROGRAM ARGUMENT...\n");
        return 2;
    }
    pid_t pid = fork();
    if (pid < 0)
        failed("fork", strerror(errno));
    if (pid == 0)
        execute(command);
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        failed(command[0], "it can't be executed and traced");
    printf("%llu\n", (unsigned long long)(steps ? by_steps(pid, command[0]) : by_counter(pid, command[0])));
    return 0;
}

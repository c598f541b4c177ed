/* SPDX-License-Identifier: MIT
 *
 * Count the instructions of a program, from its first to its last, as the processor makes them one by one:
 *
 *      instructions PROGRAM ARGUMENT...
 *
 * Prints the number.  The program's output goes to /dev/null.  Each step is a stop (ptrace(2)), so a million of them
 * takes some seconds, and other work on the machine does not change the number.  What the kernel does is not counted,
 * nor are children.
 *
 * Failure modes: a program that can't be executed, or that ends with another status than 0, is a sentence and status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANNOT_EXECUTE 127

static void failed(const char *what, const char *why)
{
    fprintf(stderr, "instructions: %s: %s\n", what, why);
    exit(1);
}

static void execute(char **command)
{
    int nowhere = open("/dev/null", O_RDWR);

    if (nowhere < 0 || dup2(nowhere, STDIN_FILENO) < 0 || dup2(nowhere, STDOUT_FILENO) < 0 ||
        dup2(nowhere, STDERR_FILENO) < 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(CANNOT_EXECUTE);
    execvp(command[0], command);
    _exit(CANNOT_EXECUTE);
}

int main(int argc, char **argv)
{
    unsigned long count = 0;
    int status;

    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: instructions PROGRAM ARGUMENT...\n");
        return 2;
    }
    pid_t pid = fork();
    if (pid < 0)
        failed("fork", strerror(errno));
    if (pid == 0)
        execute(argv + 1);
    while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
        int signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        count += signal == 0;
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, signal) < 0)
            failed("single step", strerror(errno));
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_EXECUTE)
        failed(argv[1], "it can't be executed and traced");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        failed(argv[1], "it has ended with an error");
    printf("%lu\n", count);
    return 0;
}

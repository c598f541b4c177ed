/* SPDX-License-Identifier: MIT
 *
 * An actor: a process that receives steps through a pipe, does them, and answers through another pipe.
 *
 * Happy path:
 * - The master forks the first actor.  Actors fork the others, which inherit all open descriptors.
 * - The master sends a step and waits for the answer before it sends the next.  So all processes act in one order.
 * - An actor can re-execute itself with its descriptors.  The pipes have fixed numbers, so the new image finds them.
 * - With two programs, odd actors run the other one.  A child of the other kind begins without descriptors: what the
 *   library hands on to a program without it is the same file, but its offset is no longer shared.
 * - An actor exits by exit() or _exit(), without closing anything first.
 *
 * Failure modes:
 * - An actor doesn't answer: the master exits with status 2.
 * - The master dies: its actors never see the end of their pipes, because they hold the other ends too.  An alarm ends
 *   them.
 */
#include "actor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIPES_AT 500 /* first descriptor of the pipes: far above a sequence's own, below the library's */
#define LIFETIME 60  /* seconds: an actor must not outlive a dead master for long */

static pid_t pids[ACTORS]; /* complete only in the master */

/* ---- both ends ---- */

static int command_end(int actor, int end)
{
    return PIPES_AT + 4 * actor + end;
}
static int answer_end(int actor, int end)
{
    return PIPES_AT + 4 * actor + 2 + end;
}

static void send_all(int fd, const void *bytes, size_t size)
{
    if (write(fd, bytes, size) != (ssize_t)size)
        _exit(9);
}

/* ---- an actor's life ---- */

static const char *programs[2]; /* of even and odd actors */

bool actor_find_program(void)
{
    programs[0] = programs[1] = realpath("/proc/self/exe", NULL);
    return programs[0] != NULL;
}

void actor_use_programs(const char *even, const char *odd)
{
    programs[0] = even ? even : programs[0];
    programs[1] = odd;
}

bool actor_of_other_kind(int one, int other)
{
    return one % 2 != other % 2 && strcmp(programs[0], programs[1]) != 0;
}

static void exec_again(int self)
{
    char number[4];

    snprintf(number, sizeof(number), "%d", self);
    execl(programs[self % 2], programs[self % 2], "--actor", number, programs[0], programs[1], (char *)NULL);
    _exit(8);
}

static pid_t fork_actor(int parent, int actor)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        if (actor_of_other_kind(parent, actor)) {
            close_range(3, PIPES_AT - 1, 0);
            exec_again(actor);
        }
        actor_live(actor);
    }
    return pid;
}

void actor_live(int self)
{
    struct step step;
    struct answer answer;

    signal(SIGCHLD, SIG_IGN);
    alarm(LIFETIME);
    while (read(command_end(self, 0), &step, sizeof(step)) == sizeof(step)) {
        if (step.operation == EXEC)
            exec_again(self);
        if (step.operation == EXIT && step.flags % 2)
            exit(0);
        if (step.operation == EXIT)
            _exit(0);
        if (step.operation == FORK) {
            memset(&answer, 0, sizeof(answer));
            answer.pid = fork_actor(self, step.to);
        } else {
            if (actor_of_other_kind(0, 1))
                step_refresh(&step);
            step_do(&step, &answer);
        }
        send_all(answer_end(self, 1), &answer, sizeof(answer));
    }
    _exit(0);
}

/* ---- the master's side ---- */

static int pidfds[ACTORS];

static void wait_for_end(int actor)
{
    struct pollfd end = {.fd = pidfds[actor], .events = POLLIN};

    while (poll(&end, 1, 60000) < 0 && errno == EINTR)
        ;
    close(pidfds[actor]);
}

static int open_pid(pid_t pid)
{
    int low = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = fcntl(low, F_DUPFD_CLOEXEC, PIPES_AT + 100);
    close(low);
    return fd;
}

static void receive(int actor, struct answer *answer)
{
    if (read(answer_end(actor, 0), answer, sizeof(*answer)) != sizeof(*answer)) {
        fprintf(stderr, "sequences: an actor does not answer\n");
        exit(2);
    }
}

void actor_dismiss(int actor, bool flush)
{
    struct step step = {.operation = EXIT, .flags = flush};

    send_all(command_end(actor, 1), &step, sizeof(step));
    wait_for_end(actor);
}

/* Append the number of the actor that holds the lock. */
static void name_holder(struct answer *answer)
{
    size_t length = strlen(answer->text);

    for (int a = 0; a < ACTORS; a++) {
        if (pids[a] == answer->pid) {
            snprintf(answer->text + length, sizeof(answer->text) - length, " of actor %d", a);
            return;
        }
    }
    snprintf(answer->text + length, sizeof(answer->text) - length, " of somebody else");
}

void actor_play(int actor, const struct step *step, struct answer *answer)
{
    struct step question = {.operation = GETFD, .fd = 0};

    if (step->operation == EXIT) {
        memset(answer, 0, sizeof(*answer));
        actor_dismiss(actor, step->flags % 2);
        return;
    }
    send_all(command_end(actor, 1), step, sizeof(*step));
    if (step->operation == EXEC)
        send_all(command_end(actor, 1), &question, sizeof(question)); /* the new image answers */
    receive(actor, answer);
    if (step->operation == FORK) {
        pidfds[step->to] = open_pid(answer->pid);
        pids[step->to] = answer->pid;
    }
    /* A lock of another kind of process has no pid that means something here (docs/limits.md). */
    if (step->operation == GETLK && answer->pid && !actor_of_other_kind(0, 1))
        name_holder(answer);
}

void actor_begin(void)
{
    memset(pids, 0, sizeof(pids));
    fflush(stdout);
    pids[0] = fork_actor(0, 0);
    pidfds[0] = open_pid(pids[0]);
}

void actor_make_pipes(void)
{
    signal(SIGPIPE, SIG_IGN);
    close_range(3, PIPES_AT + 4 * ACTORS, 0);
    for (int i = 0; i < 2 * ACTORS; i++) {
        int line_ends[2];
        if (pipe(line_ends) < 0 || dup2(line_ends[0], PIPES_AT + 2 * i) < 0 ||
            dup2(line_ends[1], PIPES_AT + 2 * i + 1) < 0) {
            perror("sequences: pipe");
            exit(2);
        }
        close(line_ends[0]);
        close(line_ends[1]);
    }
}

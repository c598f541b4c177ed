/* SPDX-License-Identifier: MIT
 *
 * What attaching costs: the system calls of a process that attaches beside one that lives, as each re-executed Exim
 * does.  The bounds are what it takes now; docs/benchmarks.md says for each call what it is for.
 *
 * Happy path: a child is traced between two stops of its own.
 */
#include "attaching.h"

#include <sys/ptrace.h>

/* What the sanitizer maps lies at a quarter of the places that a segment may get: each further try is two calls. */
#ifdef __SANITIZE_ADDRESS__
#define FURTHER_TRIES 30
#else
#define FURTHER_TRIES 0
#endif
#define JOINS (46 + FURTHER_TRIES)

static void setup_beside_one(void)
{
    setup();
    create();
}

static void teardown_both(void)
{
    fastspool_detach(fs);
    teardown();
}

TestSuite(attach_calls, .init = setup_beside_one, .fini = teardown_both);

/* The child goes on until it stops itself.  Returns how many system calls it has made; those of the stop, too. */
static int calls_until_stop(pid_t child)
{
    int entries_and_exits = 0, status;

    for (;;) {
        cr_assert_eq(ptrace(PTRACE_SYSCALL, child, 0, 0), 0);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFSTOPPED(status), "the child has ended");
        if (WSTOPSIG(status) == SIGSTOP)
            return entries_and_exits / 2;
        cr_assert_eq(WSTOPSIG(status), SIGTRAP | 0x80);
        entries_and_exits++;
    }
}

/* The system calls of @work in a process of its own. */
static int calls_of(int (*work)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) { /* without assertions: criterion expects none from a child */
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        raise(SIGSTOP);
        int result = work();
        raise(SIGSTOP);
        _exit(result != 0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD), 0);
    int of_a_stop = calls_until_stop(child), all = calls_until_stop(child);
    cr_assert_eq(ptrace(PTRACE_DETACH, child, 0, 0), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the work has failed");
    return all - of_a_stop;
}

static int join(void)
{
    struct fastspool *other;
    return attach_create(spool, &config, &other, error);
}

Test(attach_calls, join)
{
    int calls = calls_of(join);

    cr_assert_leq(calls, JOINS, "%d system calls", calls);
}

/* How much memory there is only who makes a store or starts a mirror has to know. */
Test(attach_calls, join_without_a_size)
{
    config.memory = 0;
    int calls = calls_of(join);

    cr_assert_leq(calls, JOINS, "%d system calls", calls);
}

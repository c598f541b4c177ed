/* SPDX-License-Identifier: MIT
 *
 * The lock in the child of a fork: whose thread id the word has, and which PID namespace that id is of.
 */
#include "base/clock.h"
#include "counting.h"
#include "fastspool.h"
#include "filter.h"
#include "store/mutex.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

TestSuite(mutex_forks, .init = counting_setup, .fini = fixture_teardown, .timeout = 600);

static void fork_beside(void *argument)
{
    int *told = argument;
    char byte = 0;

    if (write(told[1], &byte, 1) != 1) /* I am inside: fork now */
        _exit(3);
    clock_sleep(300 * NS_PER_MS);
}

static void *hold_for_a_while(void *argument)
{
    run_section(fork_beside, argument);
    return NULL;
}

/* A process forks while another thread of it is inside: parent and child both go on, the child after the thread. */
Test(mutex_forks, fork_beside_a_holder)
{
    pthread_t thread;
    int told[2];
    char byte;

    cr_assert_eq(pipe(told), 0);
    cr_assert_eq(pthread_create(&thread, NULL, hold_for_a_while, told), 0);
    cr_assert_eq(read(told[0], &byte, 1), 1);
    pid_t pid = fork();
    if (pid == 0)
        _exit(run_section(NULL, NULL) != 0);
    cr_assert_eq(end_of(pid), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    words_are(2);
}

static pid_t fork_and_tell(bool tells)
{
    pid_t pid = fork();

    if (pid == 0 && tells)
        fastspool_after_fork_child(fs);
    return pid;
}

static void exit_as(pid_t child)
{
    int status = end_of(child);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

/* A child comes into a new PID namespace with its own child, or with that one's.  They are told of their forks or not.
 * Exit status 0: the last one has no store. */
static pid_t child_of_other_namespace(bool tells, bool tells_last, bool with_one_more)
{
    pid_t pid = fork_and_tell(tells);

    if (pid == 0) {
        if (unshare(CLONE_NEWPID) < 0)
            _exit(77);
        pid_t inner = fork_and_tell(with_one_more ? tells : tells_last);
        if (inner == 0 && with_one_more && (inner = fork_and_tell(tells_last)) != 0)
            exit_as(inner);
        if (inner == 0)
            _exit(run_section(NULL, NULL) == -EIO ? 0 : 1);
        exit_as(inner);
    }
    return pid;
}

/* A thread id says nothing to other PID namespaces, so a process that has come into one has no store. */
Test(mutex_forks, other_pid_namespace)
{
    run_section(NULL, NULL);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(end_of(child_of_other_namespace(i & 1, i & 2, i & 4)), 0, "%d", i);
    words_are(1);
}

/* The same where the last one's parent and the process that has asked both have the number 1, each in its namespace. */
static void come_from_one_to_another(bool tells)
{
    pid_t pid = fork();

    if (pid == 0) {
        if (unshare(CLONE_NEWPID) < 0)
            _exit(77);
        pid_t first = fork();
        if (first == 0) {
            fs->pid_namespace = mutex_pid_namespace();
            if (getpid() != 1 || run_section(NULL, NULL) != 0)
                _exit(3);
            exit_as(child_of_other_namespace(tells, true, true));
        }
        exit_as(first);
    }
    cr_assert_eq(end_of(pid), 0);
}

Test(mutex_forks, pid_namespace_in_another)
{
    come_from_one_to_another(true);
    come_from_one_to_another(false);
    words_are(2);
}

/* The child of a process that knows its namespace need not ask for it, if it is told of the fork. */
Test(mutex_forks, child_knows_its_pid_namespace)
{
    run_section(NULL, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        if (filter_forbid(SYS_newfstatat) < 0)
            _exit(77);
        _exit(run_section(NULL, NULL) != 0);
    }
    cr_assert_eq(end_of(pid), 0);
    words_are(2);
}

/* SPDX-License-Identifier: MIT
 *
 * The lock in a rush: who had it last lets another process have a run of sections, and nobody waits longer than that.
 */
#include "base/atomic.h"
#include "base/clock.h"
#include "fixture.h"
#include "store/layout.h"
#include "store/mutex.h"
#include "store/section.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(rush, .init = fixture_setup, .fini = fixture_teardown);

static int nothing(struct fastspool *store, void *argument)
{
    (void)store;
    (void)argument;
    return 0;
}

/* A process that the lock's word names. */
static pid_t start_holder(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    return pid;
}

static void end_holder(pid_t pid)
{
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

/* While this is on, each look at the clock takes 100 ns, and another process has a section meanwhile. */
static struct {
    bool on;
    uint64_t now;
    uint32_t sections; /* that it has yet to begin */
} rush;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (!rush.on)
        return (int)syscall(SYS_clock_gettime, clock, time);
    if (rush.sections > 0) {
        rush.sections--;
        STORE(fs->header->section.sequence, fs->header->section.sequence + 2);
    }
    rush.now += 100;
    *time = clock_timespec(rush.now);
    return 0;
}

/* Try to take the lock from @holder, who has @sections one behind the other.  The time that this takes, ns. */
static uint64_t time_of_try(pid_t holder, uint32_t sections)
{
    struct mutex_wait wait = {0};

    STORE(fs->header->section.lock, (uint32_t)holder);
    rush.on = true;
    rush.now = 0;
    rush.sections = sections;
    int result = mutex_try(fs, &wait);
    rush.on = false;
    cr_assert_eq(result, MUTEX_BUSY);
    STORE(fs->header->section.lock, 0);
    return rush.now;
}

/* Who had the lock last lets a process that has section upon section have a run of them, and is back when that is over,
 * though the other one goes on. */
Test(rush, a_run_for_the_other)
{
    pid_t holder = start_holder();

    cr_assert_eq(section_run(fs, nothing, NULL), 0);
    uint64_t taken = time_of_try(holder, UINT32_MAX);
    cr_assert_geq(taken, MUTEX_RUN);
    cr_assert_lt(taken, 2 * MUTEX_RUN);
    end_holder(holder);
}

/* For one section of another process, be it over or not, and for the few that change a file, nobody waits longer than
 * they take. */
Test(rush, no_run_for_few_sections)
{
    pid_t holder = start_holder();

    for (uint32_t sections = 0; sections < 4; sections++) {
        cr_assert_eq(section_run(fs, nothing, NULL), 0);
        cr_assert_lt(time_of_try(holder, sections), MUTEX_RUN / 2);
    }
    end_holder(holder);
}

/* Who did not have the lock last tries at every instant. */
Test(rush, no_run_for_others)
{
    pid_t holder = start_holder();

    cr_assert_eq(section_run(fs, nothing, NULL), 0);
    STORE(fs->header->section.sequence, fs->header->section.sequence + 2);
    cr_assert_eq(time_of_try(holder, UINT32_MAX), 0);
    end_holder(holder);
}

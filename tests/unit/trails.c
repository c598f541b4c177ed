/* SPDX-License-Identifier: MIT
 *
 * The trails of a thread that uses two stores (walk.c): a signal handler may use one while a look at the other follows
 * a trail.  Two spools whose directories were made in one order have the same numbers for them.
 */
#include "durable.h"
#include "fastspool.h"
#include "store/directories.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <ucontext.h>

TestSuite(trails, .init = durable_setup, .fini = durable_teardown);

#ifdef __x86_64__
#define TRAP_FLAG 0x100
#ifdef __SANITIZE_ADDRESS__
#define SETTLED 40000 /* instructions: more than a look at a short path takes */
#define STRIDE  199   /* each of so many is enough of what is slow */
#else
#define SETTLED 2000
#define STRIDE  1
#endif

static struct fastspool *second;
static int steps_left;

/* After so many instructions use the second store, in a section. */
static void on_step(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;

    (void)signal_number;
    (void)info;
    if (--steps_left > 0)
        return;
    interrupted->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    cr_assert_eq(fastspool_chmod(second, "msglog/f", 0600), 0);
}

static void make_directories(struct fastspool *store)
{
    cr_assert_eq(fastspool_mkdir(store, "input", 0755), 0);
    cr_assert_eq(fastspool_mkdir(store, "msglog", 0755), 0);
    int d = fastspool_open(store, store == fs ? "input/f" : "msglog/f", O_WRONLY | O_CREAT, 0600);
    cr_assert_geq(d, 0);
    cr_assert_eq(fastspool_close(store, d), 0);
}

/* Look for input/f of the first store, and be interrupted after @steps instructions.  False: the look took fewer. */
static bool look_until(int steps)
{
    struct stat st;

    cr_assert_eq(fastspool_chmod(fs, "input/f", 0600), 0);
    fastspool_chmod(fs, "msglog/none", 0600); /* the trail that was used last, so the other one gives way */
    steps_left = steps;
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; orl %0, (%%rsp); popf; lea 128(%%rsp), %%rsp" ::"i"(TRAP_FLAG)
                     : "memory", "cc");
    int result = fastspool_stat(fs, "input/f", &st);
    bool interrupted = steps_left <= 0;
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; andl %0, (%%rsp); popf; lea 128(%%rsp), %%rsp" ::"i"(~TRAP_FLAG)
                     : "memory", "cc");
    cr_expect_eq(result, 0, "interrupted after %d instructions: %s", steps, strerror(-result));
    return interrupted;
}

/* Wherever a look is interrupted, it finds the file of its own store. */
Test(trails, of_another_store)
{
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    int steps = 1;

    second = second_store();
    cr_assert_eq(directories_make_root(second), 0);
    STORE(second->header->state, SEGMENT_READY);
    make_directories(fs);
    make_directories(second);
    cr_assert_eq(sigaction(SIGTRAP, &action, NULL), 0);
    while (steps < SETTLED && look_until(steps))
        steps += STRIDE;
    cr_assert(steps > 100 && steps < SETTLED, "a look took %d instructions", steps);
    remove_second(second);
}
#endif

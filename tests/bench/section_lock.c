/* SPDX-License-Identifier: MIT
 *
 * Time the lock of the critical sections:
 *
 *      section_lock [--rounds N]
 *
 * Prints nanoseconds per section, of the best round, because other jobs of the machine only add to them: of one process
 * alone, with an empty body; the same with all signals blocked around it, as the preloaded library does with a
 * terminal; of one process that runs sections of some twenty changes; and of 64 that all do, the time per section of
 * all of them together, its ratio, how long 999 of 1,000 sections took at most, and the longest one.  The last two are
 * of all rounds, and include the time in which the kernel lets others run.  All of it in a store of its own in
 * /dev/shm.
 *
 * Failure modes: a section that fails is printed and ends the program.
 */
#include "argument.h"
#include "base/clock.h"
#include "base/guard.h"
#include "fixture.h"
#include "store/section.h"
#include "store/table.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALONE     200000 /* sections of a round */
#define PROCESSES 64
#define TOGETHER  100000 /* sections of each of them: longer than the kernel lets one run at a time */
#define CHANGES   20
#define APART     1000 /* microseconds of a section that are told apart */

/* What a process has met, shared. */
struct met {
    uint64_t longest;      /* section, ns */
    uint32_t taken[APART]; /* sections of so many microseconds, the last: or more */
};
static struct met *met; /* of each process */
static int ready[2];    /* a pipe: a byte from each process that is about to begin */
static int begin[2];    /* a pipe: closed when all of them are to */

static int nothing(struct fastspool *store, void *argument)
{
    (void)store;
    (void)argument;
    return 0;
}

static int change(struct fastspool *store, void *argument)
{
    const uint64_t *words = (const uint64_t *)(store->base + BUCKETS_AT);

    (void)argument;
    for (int i = 0; i < CHANGES; i++)
        SET(store, words[8 * i], words[8 * i] + 1);
    return 0;
}

static void must(int result)
{
    if (result >= 0)
        return;
    fprintf(stderr, "section_lock: a section failed: %s\n", strerrordesc_np(-result));
    exit(1);
}

static uint64_t alone(void)
{
    uint64_t start = clock_precise();

    for (int i = 0; i < ALONE; i++)
        must(section_run(fs, nothing, NULL));
    return (clock_precise() - start) / ALONE;
}

static __thread uint64_t mask;

static void hold(void)
{
    const uint64_t all = ~UINT64_C(0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, sizeof(all));
}

static void release(void)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

/* Its first section is not counted: a forked process meets each page for the first time. */
static void worker(int number)
{
    char byte = 0;

    must(section_run(fs, change, NULL));
    close(begin[1]);
    if (write(ready[1], &byte, 1) != 1 || read(begin[0], &byte, 1) != 0)
        must(-EIO);
    for (int i = 0; i < TOGETHER; i++) {
        uint64_t start = clock_precise();
        must(section_run(fs, change, NULL));
        uint64_t taken = clock_precise() - start;
        met[number].taken[taken < APART * NS_PER_US ? taken / NS_PER_US : APART - 1]++;
        met[number].longest = taken > met[number].longest ? taken : met[number].longest;
    }
    _exit(0);
}

static uint64_t together(int processes)
{
    char byte;

    memset(met, 0, PROCESSES * sizeof(*met));
    if (pipe(ready) < 0 || pipe(begin) < 0)
        must(-errno);
    for (int i = 0; i < processes; i++) {
        if (fork() == 0)
            worker(i);
    }
    for (int i = 0; i < processes; i++) {
        if (read(ready[0], &byte, 1) != 1)
            must(-EIO);
    }
    uint64_t start = clock_precise();
    close(begin[1]);
    for (int i = 0, status; i < processes; i++) {
        if (wait(&status) < 0 || status != 0)
            must(-EIO);
    }
    uint64_t taken = (clock_precise() - start) / (uint64_t)(processes * TOGETHER);
    close(ready[0]);
    close(ready[1]);
    close(begin[0]);
    return taken;
}

/* Add what the processes have met. */
static void add_up(struct met *all)
{
    for (int i = 0; i < PROCESSES; i++) {
        all->longest = met[i].longest > all->longest ? met[i].longest : all->longest;
        for (int us = 0; us < APART; us++)
            all->taken[us] += met[i].taken[us];
    }
}

/* The microseconds that 999 of 1,000 sections took at most. */
static int usual(const struct met *all)
{
    uint64_t sum = 0, longer = 0;
    int us = APART;

    for (int i = 0; i < APART; i++)
        sum += all->taken[i];
    while (us > 1 && (longer + all->taken[us - 1]) * 1000 <= sum)
        longer += all->taken[--us];
    return us;
}

/* Other jobs would bend rounds that are so short.  The kernel shares the processors out among sessions first. */
static void go_first(void)
{
    FILE *file = setsid() > 0 ? fopen("/proc/self/autogroup", "we") : NULL;

    if (file) {
        fprintf(file, "-20");
        fclose(file);
    }
    (void)setpriority(PRIO_PROCESS, 0, -20);
}

static void keep_best(uint64_t *best, uint64_t value)
{
    *best = *best == 0 || value < *best ? value : *best;
}

int main(int argc, char **argv)
{
    static struct met all;
    uint64_t plain = 0, guarded = 0, one = 0, crowd = 0;
    unsigned long rounds = 9;

    if (argc != 1 && (argc != 3 || strcmp(argv[1], "--rounds") != 0)) {
        fprintf(stderr, "usage: section_lock [--rounds N]\n");
        return 2;
    }
    if (argc == 3)
        rounds = argument_number("--rounds", argv[2], 1, 1000);
    go_first();
    met = mmap(NULL, PROCESSES * sizeof(*met), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fixture_setup();
    must(table_grow(fs, TABLE_BUCKETS));
    for (unsigned long i = 0; i < rounds; i++) {
        section_guard = (struct section_guard){NULL, NULL};
        keep_best(&plain, alone());
        section_guard = (struct section_guard){hold, release};
        keep_best(&guarded, alone());
        section_guard = (struct section_guard){NULL, NULL};
        keep_best(&one, together(1));
        keep_best(&crowd, together(PROCESSES));
        add_up(&all);
    }
    printf(
        "empty %llu ns, with signals blocked %llu ns; of %d changes: 1 process %llu ns, %d processes %llu ns, %.2f "
        "of its throughput, 999 of 1,000 within %d us, the longest %.1f ms\n",
        (unsigned long long)plain, (unsigned long long)guarded, CHANGES, (unsigned long long)one, PROCESSES,
        (unsigned long long)crowd, (double)one / (double)crowd, usual(&all), (double)all.longest / NS_PER_MS);
    fixture_teardown();
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * The death of an import or an export at every step (moving.h): the process is killed there, or the power fails; Exims
 * deliver what they find then; and the move runs again.  Each message of scene() is delivered once.
 *
 * The test defines what differs: move(), scene(), the two Exims, and what is to be seen when all is over.
 */
#ifndef FASTSPOOL_DYING_H
#define FASTSPOOL_DYING_H

#include "moving.h"
#include "plain/census.h"

#include <stdlib.h>
#include <sys/wait.h>

/* How a power cut goes. */
struct cut {
    bool loses;       /* what the disk has not synced */
    bool later;       /* a side delivers before the move runs again: power_fails_at() says which */
    bool refused;     /* the other side refuses a batch, which goes back */
    bool interrupted; /* the move before this one has not got a commit after its decision */
};

static int move(void);   /* once: 0, or what has ended it early */
static void scene(void); /* messages, and a file of none */
static void deliver_on_disk(void);
static void deliver_in_store(void);
static bool power_fails_at(unsigned n, struct cut cut); /* at step @n of a move; false: it had no such step */
static void all_well(unsigned n, bool untouched); /* after step @n and another move.  @untouched: nobody delivered */

static const char *const headers[] = {"input/" A "-H", "input/8/" B "-H"};
static const char *const directories[] = {"input", "input/8", "msglog", "msglog/8"};
static unsigned delivered[2];

enum { NOBODY, ON_DISK, IN_STORE, BOTH };

static inline void deliver(int who)
{
    if (who == ON_DISK || who == BOTH)
        deliver_on_disk();
    if (who == IN_STORE || who == BOTH)
        deliver_in_store();
}

static inline void delivered_once(unsigned n)
{
    cr_assert(delivered[0] == 1 && delivered[1] == 1, "step %u: delivered %u and %u times", n, delivered[0],
              delivered[1]);
}

/* ---- a killed process ---- */

static inline int move_once(const void *unused)
{
    (void)unused;
    return move();
}

static inline bool killed_at(unsigned n)
{
    int status = die_before(n, move_once, NULL);

    cr_assert(WIFSIGNALED(status) || status == 0, "step %u: the move failed", n);
    return WIFSIGNALED(status);
}

/* Each message that is not delivered counts once, and is half moved if no Exim finds it. */
static inline void counted_once(unsigned n)
{
    struct census census;
    uint64_t found = 0, all = 2 - delivered[0] - delivered[1];

    census_take(&census, fs, false);
    for (int i = 0; i < 2; i++)
        found += store_has(headers[i]) || disk_has(headers[i]);
    cr_assert(census.disk >= 0 && census.store + (uint64_t)census.disk == all && census.half == all - found,
              "step %u: %u in the store, %d on the disk, %u half moved, and Exim finds %u", n, (unsigned)census.store,
              (int)census.disk, (unsigned)census.half, (unsigned)found);
}

/* A move has come to its end. */
static inline void nothing_remains(unsigned n)
{
    struct census census;

    census_take(&census, fs, false);
    cr_assert(census.half == 0 && census.remains == 0, "step %u: %u half moved, %u remain", n, (unsigned)census.half,
              (unsigned)census.remains);
}

static inline void begin_again(void)
{
    fixture_teardown();
    fixture_setup();
    checking_every(0);
    memset(delivered, 0, sizeof(delivered));
    scene();
}

static inline void die_everywhere(int who, bool twice)
{
    bool dead = true;
    unsigned n;

    for (n = 1; dead; n++) {
        begin_again();
        dead = killed_at(n);
        if (twice)
            killed_at(n % 23 + 1);
        counted_once(n);
        deliver(who);
        counted_once(n);
        run_all();
        nothing_remains(n);
        all_well(n, who == NOBODY);
    }
    cr_assert_gt(n, 60, "only %u steps", n);
}

/* ---- a power cut ---- */

static inline void save_disk(void)
{
    char command[512];

    snprintf(command, sizeof(command), "cd %s && rm -rf saved && cp -a spool saved", fixture_directory);
    cr_assert_eq(system(command), 0);
}

static inline void restore_disk(void)
{
    char command[512];

    snprintf(command, sizeof(command), "cd %s && rm -rf spool/* && cp -a saved/. spool", fixture_directory);
    cr_assert_eq(system(command), 0);
}

/* The move runs again after the cut at step @n. */
static inline void move_again(unsigned n, struct cut cut)
{
    run_all();
    all_well(n, !cut.later);
}

/* A cut takes 30 ms: with a @stride only some of the steps are tried, others each time.  @then: on the store that the
 * disk gives. */
static inline void cut_everywhere_then(struct cut cut, unsigned stride, void (*then)(unsigned n, struct cut cut))
{
    static unsigned first;
    bool failed = true;
    unsigned n;

    for (n = 1 + first++ % stride; failed; n += stride) {
        durable_teardown();
        durable_setup();
        checking_every(0);
        memset(delivered, 0, sizeof(delivered));
        scene();
        failed = power_fails_at(n, cut);
        struct fastspool *before = fs, *second = second_store();
        struct recovered recovered;
        cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
        STORE(second->header->state, SEGMENT_READY);
        paging_all(second);
        fs = second;
        then(n, cut);
        fs = before;
        remove_second(second);
    }
    cr_assert_gt(n, 30, "only %u steps", n);
}

static inline void cut_everywhere(struct cut cut, unsigned stride)
{
    cut_everywhere_then(cut, stride, move_again);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * The wait for a mirror that was started just now, where the mail user writes in the segment what he likes, has an end.
 */
#include "base/clock.h"

static uint64_t clock_shows, started;

static inline uint64_t play_clock(void);
static inline void play_sleep(uint64_t time);

#define clock_monotonic() play_clock()
#define clock_sleep(time) play_sleep(time)
#include "../../lib/spool/launch.c"
#undef clock_monotonic
#undef clock_sleep

#include <criterion/criterion.h>

static inline uint64_t play_clock(void)
{
    return clock_shows;
}

/* The mail user writes between two looks: one is just starting. */
static inline void play_sleep(uint64_t time)
{
    clock_shows += time;
    cr_assert_lt(clock_shows, 600 * NS_PER_S, "the wait has no end");
    started = clock_shows;
}

static int never(const char *state)
{
    (void)state;
    return 0;
}

Test(launch, start_that_never_comes)
{
    clock_shows = started = NS_PER_S;
    launch_settle(&started, never, "/");
    cr_assert_leq(clock_shows, NS_PER_S + LAUNCH_TIME + LOOK_EVERY);
}

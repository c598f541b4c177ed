/* SPDX-License-Identifier: MIT
 *
 * The mirror that a call has started for its own work, where the mail user writes in the segment what he likes: each
 * wait has an end.
 */
#include "../../tools/progress.h"
#include "base/clock.h"
#include "spool/launch.h"
#include "spool/presence.h"
#include "store/layout.h"

static uint64_t now;
static int lives;
static struct header header;

static inline uint64_t play_clock(void);
static inline void play_sleep(uint64_t time);

#define clock_monotonic()      play_clock()
#define clock_sleep(time)      play_sleep(time)
#define launch_lives(fs)       ((void)(fs), lives)
#define presence_wait(fd)      ((void)(fd))
#define presence_of_others(fd) ((void)(fd), PRESENCE_SHARED)
#include "../../tools/own.c"
#undef clock_monotonic
#undef clock_sleep

#include <criterion/criterion.h>

#define LONG (600 * NS_PER_S)

void progress_begin(const char *what)
{
    (void)what;
}

void progress_end(void)
{
}

static inline uint64_t play_clock(void)
{
    return now;
}

/* The mail user writes between two looks: the one that lives has given no sign since. */
static inline void play_sleep(uint64_t time)
{
    now += time;
    cr_assert_lt(now, LONG, "the wait has no end");
    header.mirror.beat = 1;
}

static struct fastspool store = {.header = &header, .spool = "/srv/spool"};

TestSuite(own, .timeout = 30);

Test(own, mirror_without_a_sign)
{
    now = NS_PER_S;
    lives = 1;
    wait_for_end(&store, -1);
    cr_assert_leq(now, NS_PER_S + PATIENCE + LOOK_EVERY);
}

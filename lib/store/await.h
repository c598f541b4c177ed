/* SPDX-License-Identifier: MIT
 *
 * Waiting for the mirror.  The store knows two things of it, by struct keeper: whether one lives, and how to have one.
 */
#ifndef FASTSPOOL_AWAIT_H
#define FASTSPOOL_AWAIT_H

#include "base/clock.h"

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** How a process keeps its store's mirror alive; struct fastspool names one (lib/spool/launch.c). */
struct keeper {
    bool (*lives)(struct fastspool *fs); /* does a mirror run?  errno stays */
    int (*start)(struct fastspool *fs);  /* start one, unless somebody has just done so; 0 or -errno */
};

/** Does a mirror run? */
bool await_lives(struct fastspool *fs);
/** Start a mirror where none runs. */
void await_start(struct fastspool *fs);

/** For a waiter on the mirror: sleep while *@event is @value, 100 ms at most; where no mirror lives start one, and
 * remind it (@wanted is its futex).  @lived: when one was last seen, CLOCK_MONOTONIC ns; at first: now.  -EIO: none has
 * come up for ten seconds. */
int await_event(struct fastspool *fs, const uint32_t *event, uint32_t value, uint32_t *wanted, uint64_t *lived);

/** A waiter's time between two looks at the mirror, and without any mirror after which it gives up. */
#define AWAIT_LOOK    (100 * NS_PER_MS)
#define AWAIT_GIVE_UP (10 * NS_PER_S)

#endif

/* SPDX-License-Identifier: MIT
 *
 * Waiting for the mirror.  Through struct keeper, the store can ask whether a mirror lives, and start one.
 */
#ifndef FASTSPOOL_AWAIT_H
#define FASTSPOOL_AWAIT_H

#include "base/clock.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** How a process finds and starts a mirror: fastspool.keeper (lib/spool/launch.c). */
struct keeper {
    int (*lives)(struct fastspool *fs); /* does a mirror live?  1, 0, or -errno: it can't be said; keeps errno */
    int (*start)(struct fastspool *fs); /* start one, unless another process has just done so; 0 or -errno */
};

/** Does a mirror live?  1, 0, or -errno: it can't be said.  0 without a keeper. */
int await_lives(struct fastspool *fs);
/** Start a mirror if none is known to live.  Nothing without a keeper. */
void await_start(struct fastspool *fs);

/** Does a signal that ends a program wait, because this thread holds it off?  A wait with signals held off looks here
 *  at least every AWAIT_LOOK, and gives up with -EINTR.  @own: what the program itself holds off, which does not count;
 *  NULL: nothing. */
bool await_terminated(const sigset_t *own);

/** Outside sections: sleep while *@event is @value, for AWAIT_LOOK at most.  If no mirror lives, start one.  If *@event
 *  is still @value, count *@wanted, the futex that the mirror waits on.  *@lived: CLOCK_MONOTONIC ns when a mirror was
 *  last seen alive; initialize it to now.  Returns 0, then check and call again; -EIO: no mirror lived for
 *  AWAIT_GIVE_UP. */
int await_event(struct fastspool *fs, const uint32_t *event, uint32_t value, uint32_t *wanted, uint64_t *lived);
/** The same without the sleep and the count, for a caller that has slept in a way of its own. */
int await_awake(struct fastspool *fs, const uint32_t *event, uint32_t value, uint64_t *lived);

/** Time between two checks of the mirror by a waiter, and time without a mirror after which the waiter gives up. */
#define AWAIT_LOOK    (100 * NS_PER_MS)
#define AWAIT_GIVE_UP (10 * NS_PER_S)

#endif

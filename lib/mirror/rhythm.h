/* SPDX-License-Identifier: MIT
 *
 * The rhythm of commits: how many waiters come, how long a commit takes, and so when the next one begins.
 *
 * Times are CLOCK_MONOTONIC ns, and the caller's: nothing here looks at a clock.  Counts of waiters wrap.
 */
#ifndef FASTSPOOL_RHYTHM_H
#define FASTSPOOL_RHYTHM_H

#include <stdint.h>

struct rhythm {
    uint32_t captured; /* the count when the last capture was taken */
    uint32_t known;    /* waiters for the capture before, also those that came while it was written */
    uint32_t most;     /* the highest `known` of late: one less after every MOST_FADES commits */
    uint32_t commits;
    uint64_t duration; /* of a commit: what half of them take of late, ns */
    uint32_t fast;     /* commits since the last one that stalled */
    uint64_t pace;     /* the least time from the last one to the next, unless all clients wait, ns */
    uint64_t ended;    /* when the last one did */
};

/** A commit that has @begun has ended @now.  The count of waiters was @before when its capture was taken, and is @after
 *  now. */
void rhythm_keep(struct rhythm *rhythm, uint32_t before, uint32_t after, uint64_t begun, uint64_t now);

/** How long the next commit waits for more than the @waiting that there are, ns, if fewer than *@enough have come by
 *  then.  0: it begins.  The @first of them was seen then. */
uint64_t rhythm_wait(const struct rhythm *rhythm, uint32_t waiting, uint64_t first, uint64_t now, uint32_t *enough);

/** The duration that half of the commits take, after one of @duration more, ns; @half: before it, 0: there was none. It
 *  moves by an eighth, however long the one took: where others use the processor, some commits take a hundred times as
 *  long, and a mean would be theirs. */
uint64_t rhythm_half(uint64_t half, uint64_t duration);

#endif

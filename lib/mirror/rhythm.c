/* SPDX-License-Identifier: MIT
 *
 * The rhythm of commits.
 *
 * The happy path: a commit begins once the other active clients have had their chance to join, for at most GATHER times
 * the usual duration of a commit.
 *
 * Measured on a disk of 200 write operations a second (acked, messages/s, without and with group commit): 8 connections
 * 148 and 666, 32 connections 394 and 1,078.  The latter waits for half of them; waiting for all 32 gave 830.
 */
#include "mirror/rhythm.h"

#include "base/clock.h"

#define FEW          8u
#define GATHER       16u               /* times the duration of a commit */
#define PATIENCE_MAX (100 * NS_PER_MS) /* one commit that hung must not make all later waiters wait */
#define MOST_FADES   64u               /* commits */

uint64_t rhythm_half(uint64_t half, uint64_t duration)
{
    const uint64_t step = half / 8 + 1;

    if (half == 0)
        return duration;
    return duration > half ? half + step : half > step ? half - step : half;
}

void rhythm_keep(struct rhythm *rhythm, uint32_t before, uint32_t after, uint64_t duration)
{
    rhythm->known = after - rhythm->captured;
    rhythm->captured = before;
    if (++rhythm->commits % MOST_FADES == 0 && rhythm->most > 0)
        rhythm->most--;
    if (rhythm->known > rhythm->most)
        rhythm->most = rhythm->known;
    rhythm->duration = rhythm_half(rhythm->duration, duration);
}

/* How many waiters are enough to commit.  Few active clients: all of them.  Many: half of them, so that the other half
 * keeps the processors busy while the disk writes. */
static uint32_t enough_of(const struct rhythm *rhythm)
{
    uint32_t few = rhythm->known < FEW ? rhythm->known : FEW;
    return few > rhythm->most / 2 ? few : rhythm->most / 2;
}

uint64_t rhythm_wait(const struct rhythm *rhythm, uint32_t waiting, uint64_t first, uint64_t now, uint32_t *enough)
{
    const uint64_t patience = rhythm->duration * GATHER < PATIENCE_MAX ? rhythm->duration * GATHER : PATIENCE_MAX;

    *enough = enough_of(rhythm);
    return waiting >= *enough || now - first >= patience ? 0 : first + patience - now;
}

/* SPDX-License-Identifier: MIT
 *
 * The rhythm of commits.
 *
 * The happy path: a commit begins once enough of the other active clients have joined: all where they are few, else
 * half of them, so that the other half keeps the processors busy while the disk writes.  It waits for them for at most
 * GATHER times what a commit usually takes.
 *
 * A commit that takes more than twice the usual time has stalled.  Many disks don't spread their commits evenly: what
 * limits the operations a second of a volume or a control group lets some through at once, and then none for up to a
 * tenth of a second.  Groups that are complete after a usual commit's time use these up in the first part of it, and
 * all clients stand for the rest.  So a stall says that the commits since the last stall came too fast, all together by
 * its length.  From then on each commit waits longer after the one before, by its share of that, or until all clients
 * have joined.  This pace fades from commit to commit.  So small stalls keep it at the disk's own pace, and it goes
 * where stalls are rare and have another reason.
 *
 * Failure modes:
 *  - A commit hangs for seconds, or now and then one waits for a processor: it counts as PATIENCE_MAX, and as if
 *    FAST_LEAST commits at least had been too fast, so no group is waited for much longer because of it.
 *  - Nobody else comes: the wait ends.  A client alone is all clients, and waits for nobody.
 *
 * Measured on a disk of 200 write operations a second (acked, messages/s, without and with group commit): 8 connections
 * 148 and 666, 32 connections 394 and 1,078.  The latter waits for half of them; waiting for all 32 gave 830.
 * The pace: docs/benchmarks.md, "Group commit on a disk that counts".
 */
#include "mirror/rhythm.h"

#include "base/clock.h"

#define FEW          8u
#define GATHER       16u               /* times the duration of a commit */
#define PATIENCE_MAX (100 * NS_PER_MS) /* one commit that hung must not make all later waiters wait */
#define MOST_FADES   64u               /* commits */
#define FADE         64u               /* of the pace, a commit takes this part */
#define FAST_LEAST   8u                /* commits that share a stall */

uint64_t rhythm_half(uint64_t half, uint64_t duration)
{
    const uint64_t step = half / 8 + 1;

    if (half == 0)
        return duration;
    return duration > half ? half + step : half > step ? half - step : half;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void rhythm_keep(struct rhythm *rhythm, uint32_t before, uint32_t after, uint64_t begun, uint64_t now)
{
    const uint64_t duration = now - begun;

    rhythm->known = after - rhythm->captured;
    rhythm->captured = before;
    if (++rhythm->commits % MOST_FADES == 0 && rhythm->most > 0)
        rhythm->most--;
    if (rhythm->known > rhythm->most)
        rhythm->most = rhythm->known;
    rhythm->duration = rhythm_half(rhythm->duration, duration);
    const uint64_t stall = duration > 2 * rhythm->duration ? duration - rhythm->duration : 0;
    rhythm->pace -= rhythm->pace / FADE;
    rhythm->fast++;
    if (stall > 0) {
        rhythm->pace += least(stall, PATIENCE_MAX) / (rhythm->fast > FAST_LEAST ? rhythm->fast : FAST_LEAST);
        rhythm->fast = 0;
    }
    rhythm->ended = now;
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
    const uint64_t paced = rhythm->ended + least(rhythm->pace, PATIENCE_MAX);
    const uint64_t patient = first + least(rhythm->duration * GATHER, PATIENCE_MAX);
    const uint64_t until = now < paced ? paced : patient;

    *enough = now < paced ? rhythm->most : enough_of(rhythm);
    return waiting >= *enough || now >= until ? 0 : until - now;
}

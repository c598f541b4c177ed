/* SPDX-License-Identifier: MIT
 *
 * Durations of commits in classes, four an octave, from SHORTEST on.  The counts are in the segment, so they outlive a
 * mirror.
 */
#include "store/durations.h"

#include "base/clock.h"
#include "store/layout.h"
#include "store/store.h"

#define SHORTEST (10 * NS_PER_US) /* upper bound of the first class */

void durations_count(const struct header *h, uint64_t duration)
{
    uint32_t bin = 0;

    for (uint64_t bound = SHORTEST; bin + 1 < COMMIT_TIMES && duration >= bound; bin++)
        bound += bound / 100 * 19; /* the fourth root of 2 */
    STORE(h->tickets.commit_times[bin], h->tickets.commit_times[bin] + 1);
    STORE(h->tickets.commits_ns, h->tickets.commits_ns + duration);
}

uint64_t durations_upto(const struct header *h, uint32_t octave, uint64_t *bound)
{
    uint64_t count = 0;

    *bound = SHORTEST;
    for (uint32_t bin = 0; bin <= 4 * octave && bin + 1 < COMMIT_TIMES; bin++) {
        count += LOAD(h->tickets.commit_times[bin]);
        *bound += bin > 0 ? *bound / 100 * 19 : 0;
    }
    return count;
}

uint64_t durations_percentile(const struct header *h, unsigned percent)
{
    uint64_t all = 0, seen = 0, bound = SHORTEST;

    for (uint32_t bin = 0; bin < COMMIT_TIMES; bin++)
        all += LOAD(h->tickets.commit_times[bin]);
    for (uint32_t bin = 0; bin < COMMIT_TIMES && all; bin++, bound += bound / 100 * 19) {
        seen += LOAD(h->tickets.commit_times[bin]);
        if (seen * 100 >= all * percent)
            return bound;
    }
    return 0;
}

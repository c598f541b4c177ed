/* SPDX-License-Identifier: MIT
 *
 * Durations of commits in classes, four an octave, for percentiles.
 */
#ifndef FASTSPOOL_DURATIONS_H
#define FASTSPOOL_DURATIONS_H

#include <stdint.h>

struct header;

/** Count a commit that took @duration ns.  For the mirror alone. */
void durations_count(const struct header *header, uint64_t duration);

/** Commits that took less than *@bound ns, which is 10 us and doubles with each @octave from 0 to DURATIONS_OCTAVES
 * - 1. (Nearly: the fourth root of 2 is taken for 1.19.) */
#define DURATIONS_OCTAVES 16u
uint64_t durations_upto(const struct header *header, uint32_t octave, uint64_t *bound);

/** Time in ns that @percent of the commits did not exceed.  0: no commit yet. */
uint64_t durations_percentile(const struct header *header, unsigned percent);

#endif

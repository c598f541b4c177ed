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

/** Time in ns that @percent of the commits did not exceed.  0: no commit yet. */
uint64_t durations_percentile(const struct header *header, unsigned percent);

#endif

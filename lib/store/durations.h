/* SPDX-License-Identifier: MIT
 *
 * Durations of commits, counted in classes, four an octave: for percentiles.
 */
#ifndef FASTSPOOL_DURATIONS_H
#define FASTSPOOL_DURATIONS_H

#include <stdint.h>

struct header;

/** Count one commit that took @duration ns.  The mirror alone. */
void durations_count(const struct header *header, uint64_t duration);

/** The time that @percent of the commits took at most, ns; 0: there was none. */
uint64_t durations_percentile(const struct header *header, unsigned percent);

#endif

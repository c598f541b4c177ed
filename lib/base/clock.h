/* SPDX-License-Identifier: MIT
 *
 * Time.  The one unit is the nanosecond, in a uint64_t: wherever a name or a comment says no other.
 */
#ifndef FASTSPOOL_CLOCK_H
#define FASTSPOOL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/** CLOCK_REALTIME at the last tick (4 ms coarse, as the kernel stamps files): for what is shown to others. */
uint64_t clock_realtime(void);
/** CLOCK_MONOTONIC at the last tick (4 ms coarse): for waits and ages.  Never 0. */
uint64_t clock_monotonic(void);
/** CLOCK_MONOTONIC to the nanosecond: for what is measured. */
uint64_t clock_precise(void);

struct timespec clock_timespec(uint64_t nanoseconds);
uint64_t clock_nanoseconds(const struct timespec *time);

/** Sleep; a signal ends it early.  errno stays. */
void clock_sleep(uint64_t nanoseconds);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Time.  The unit is the nanosecond, in a uint64_t, unless a name or a comment says otherwise.
 */
#ifndef FASTSPOOL_CLOCK_H
#define FASTSPOOL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/** CLOCK_REALTIME_COARSE, which the kernel stamps files with: up to a tick (4 ms) old.  For the times of files. */
uint64_t clock_realtime(void);
/** CLOCK_MONOTONIC_COARSE: up to a tick (4 ms) old.  For timeouts and ages.  Never 0. */
uint64_t clock_monotonic(void);
/** CLOCK_MONOTONIC, to the nanosecond.  For measurements. */
uint64_t clock_precise(void);

struct timespec clock_timespec(uint64_t nanoseconds);
uint64_t clock_nanoseconds(const struct timespec *time);

/** Sleep; a signal ends it early.  Keeps errno. */
void clock_sleep(uint64_t nanoseconds);

#endif

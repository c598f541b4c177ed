/* SPDX-License-Identifier: MIT
 *
 * Time: the library's clocks, in nanoseconds.
 */
#include "base/clock.h"

#include <errno.h>

static uint64_t now(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return clock_nanoseconds(&time);
}

uint64_t clock_realtime(void)
{
    return now(CLOCK_REALTIME_COARSE);
}

uint64_t clock_monotonic(void)
{
    return now(CLOCK_MONOTONIC_COARSE);
}

uint64_t clock_precise(void)
{
    return now(CLOCK_MONOTONIC);
}

struct timespec clock_timespec(uint64_t nanoseconds)
{
    return (struct timespec){(time_t)(nanoseconds / NS_PER_S), (long)(nanoseconds % NS_PER_S)};
}

uint64_t clock_nanoseconds(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_nsec;
}

void clock_sleep(uint64_t nanoseconds)
{
    const struct timespec time = clock_timespec(nanoseconds);
    int saved = errno;

    nanosleep(&time, NULL);
    errno = saved;
}

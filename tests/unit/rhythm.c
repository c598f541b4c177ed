/* SPDX-License-Identifier: MIT
 *
 * The rhythm of commits, in a time that the tests make.
 */
#include "mirror/rhythm.h"
#include "base/clock.h"

#include <criterion/criterion.h>

/* After @count commits of @duration, each 20th of them of @other. */
static uint64_t half_after(uint64_t half, int count, uint64_t duration, uint64_t other)
{
    for (int i = 1; i <= count; i++)
        half = rhythm_half(half, i % 20 ? duration : other);
    return half;
}

/* How long others are waited for goes by a usual commit: those that waited for a processor do not count by their
 * length, and a disk that has become slower, or faster, does. */
Test(rhythm, usual_duration)
{
    uint64_t half = half_after(0, 400, NS_PER_MS, 200 * NS_PER_MS);

    cr_assert(half > NS_PER_MS / 2 && half < 2 * NS_PER_MS, "%llu ns", (unsigned long long)half);
    half = half_after(half, 100, 10 * NS_PER_MS, 10 * NS_PER_MS);
    cr_assert(half > 8 * NS_PER_MS && half < 13 * NS_PER_MS, "%llu ns", (unsigned long long)half);
    half = half_after(half, 100, 100 * NS_PER_US, 3 * NS_PER_S);
    cr_assert(half < 200 * NS_PER_US, "%llu ns", (unsigned long long)half);
    cr_assert_gt(half_after(1, 20, 0, 0), 0); /* 0 means that there was none */
}

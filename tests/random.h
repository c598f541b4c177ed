/* SPDX-License-Identifier: MIT
 *
 * Random numbers that a seed repeats: splitmix64, by Steele, Lea and Flood, "Fast splittable pseudorandom number
 * generators" (2014).
 */
#ifndef FASTSPOOL_TESTS_RANDOM_H
#define FASTSPOOL_TESTS_RANDOM_H

#include <stdint.h>

/** The next number of the sequence that @state, a seed at first, stands for. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

#endif

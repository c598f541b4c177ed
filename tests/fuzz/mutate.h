/* SPDX-License-Identifier: MIT
 *
 * Mutations: what a user who can write the segment may write there.
 */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/** A generator of random numbers: the same seed gives the same mutations. */
struct dice {
    uint64_t state;
};
uint64_t dice_roll(struct dice *dice);
/** 0 <= result < @sides. */
uint64_t dice_below(struct dice *dice, uint64_t sides);

/** Change one word, or the text of a name, in the segment mapped at @base. */
void mutate_segment(char *base, struct dice *dice);
/** Change @size bytes in one of the ways in which a file gets damaged.  Returns the new size, at most @size. */
size_t mutate_bytes(char *bytes, size_t size, struct dice *dice);

#endif

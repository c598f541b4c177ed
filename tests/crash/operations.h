/* SPDX-License-Identifier: MIT
 *
 * The operations that are killed at each of their steps.
 */
#ifndef FASTSPOOL_OPERATIONS_H
#define FASTSPOOL_OPERATIONS_H

#include "scene.h"
#include "victim.h"

struct operation {
    const char *name;
    struct deed deed;
    unsigned needs; /* a set of enum needs */
    /** Make the tree as it may be seen between two sections of an operation that takes several: the @n-th, from 0.
     *  False: there is no more. */
    bool (*between)(struct fastspool *fs, unsigned n);
};

/** All of them, in the order in which they are killed. */
extern const struct operation operations[];
extern const size_t operations_count;

#endif

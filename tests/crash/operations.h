/* SPDX-License-Identifier: MIT
 *
 * The operations, each of which is killed at each of its steps.
 */
#ifndef FASTSPOOL_OPERATIONS_H
#define FASTSPOOL_OPERATIONS_H

#include "scene.h"
#include "victim.h"

struct operation {
    const char *name;
    struct deed deed;
    unsigned needs; /* of its scene: a set of enum needs */
    /** For an operation of several sections: make the @n-th tree, from 0, that may be seen between two of them.
     *  False: there is none. */
    bool (*between)(struct fastspool *fs, unsigned n);
};

/** All operations, in the order in which they run. */
extern const struct operation operations[];
extern const size_t operations_count;

#endif

/* SPDX-License-Identifier: MIT
 *
 * What stands behind this library in the search order: where each function of libc leads to without it.
 */
#ifndef FASTSPOOL_BEHIND_H
#define FASTSPOOL_BEHIND_H

#include <stddef.h>
#include <stdint.h>

struct link_map;

/** The library itself, in the loader's list; NULL: it is not there. */
const struct link_map *behind_own(void);

struct behind {
    const char *name;
    uint32_t hash;
    void *found; /* NULL: nobody has it */
};

/** Find all @count functions of @wanted, whose names are set: as dlsym(RTLD_NEXT) would. */
void behind_find(struct behind *wanted, size_t count);

#endif

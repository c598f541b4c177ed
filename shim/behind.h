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
    uint32_t hash; /* BEHIND_HASH() */
    void *found;   /* NULL before; out: NULL, if nobody has it */
};

/** The hash of the literal @name, of up to 23 letters, in the tables of libraries (DT_GNU_HASH), a constant: 33 times
 * that of the letters before, plus the letter, from 5381 on. */
#define BEHIND_HASH(name)             BEHIND_8(name, 0, BEHIND_8(name, 8, BEHIND_8(name, 16, 0u)))
#define BEHIND_8(name, at, before)    BEHIND_4(name, at, BEHIND_4(name, at + 4, before))
#define BEHIND_4(name, at, before)    BEHIND_2(name, at, BEHIND_2(name, at + 2, before))
#define BEHIND_2(name, at, before)    BEHIND_TERM(name, at, BEHIND_TERM(name, at + 1, before))
/* The letter that is the @at-th from the end, and what is before it. */
#define BEHIND_TERM(name, at, before) (BEHIND_LETTER(name, sizeof(name) - 1, at) + 33 * (before))
#define BEHIND_LETTER(name, length, at) \
    ((length) > (at) ? (unsigned char)(name)[(length) > (at) ? (length)-1 - (at) : 0] : (length) == (at) ? 5381u : 0u)

/** Find all @count functions of @wanted, whose names and hashes are set: as dlsym(RTLD_NEXT) would. */
void behind_find(struct behind *wanted, size_t count);

#endif

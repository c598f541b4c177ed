/* SPDX-License-Identifier: MIT
 *
 * Helpers for tests of eviction: make files whose content follows from a seed, evict, and ask what is evicted.
 */
#ifndef FASTSPOOL_EVICTING_H
#define FASTSPOOL_EVICTING_H

#include "durable.h"
#include "fastspool.h"
#include "mirror/evictor.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>

static char bytes[1 << 20];

/* Write a file of @size bytes that follow from @seed. */
static inline void fill(const char *path, unsigned seed, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(seed * 7 + i * 31 + i / 251);
    put(path, O_TRUNC, bytes, size, 0);
}

static inline uint32_t number(const char *path)
{
    struct stat st;

    cr_assert_eq(fastspool_stat(fs, path, &st), 0, "%s", path);
    return (uint32_t)st.st_ino;
}

static inline bool evicted(const char *path)
{
    return inode_at(fs, number(path))->flags & INODE_EVICTED;
}

/* Evict at least @least blocks; 0: all that can be evicted.  True: some data waits for a checkpoint. */
static inline bool evict(uint64_t least)
{
    bool unready;

    cr_assert_geq(evictor_run(fs, least ? UINT64_MAX : 0, least ? least : UINT64_MAX, &unready), 0);
    return unready;
}

static inline void persist(void)
{
    commit(0);
    checkpoint();
}

#endif

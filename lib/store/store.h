/* SPDX-License-Identifier: MIT
 *
 * What all of lib/store shares: an attached spool, and where the entries of the segment lie.
 *
 * Names: fastspool_x() is public; room_x() is shared inside the library; static functions have no prefix.
 * Every function returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_STORE_H
#define FASTSPOOL_STORE_H

#include "base/error.h"
#include "base/places.h"
#include "fastspool.h"
#include "store/layout.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct keeper;
struct pool;

_Static_assert(ERROR_MAX == FASTSPOOL_ERROR_MAX, "a sentence is as long as the public header says");
_Static_assert(PLACES_PATH_MAX > FASTSPOOL_PATH_MAX + 48, "any state directory, and what is below it");

/** One attached spool, private to the process. */
struct fastspool {
    const char *base;            /* the segment, mapped */
    const struct header *header; /* = base */
    int segment_fd;              /* all four: high numbers, close-on-exec */
    int locks_fd;                /* record locks: opened once, never closed while attached (POSIX: a close drops all) */
    int runtime_fd;              /* directory RUNTIME/fastspool.ID */
    int spool_fd;                /* the spool directory */
    uid_t owner;                 /* of the spool directory, as the file system says */
    gid_t group;
    char spool[FASTSPOOL_PATH_MAX];   /* its real path */
    char state[FASTSPOOL_PATH_MAX];   /* its state directory */
    char runtime[FASTSPOOL_PATH_MAX]; /* RUNTIME/fastspool.ID */
    const struct keeper *keeper;      /* how this process has a mirror (await.h); NULL: it has none */
    struct pool *pool;                /* descriptions taken ahead (descriptions.c) */
    bool mirror;      /* this process is the mirror: it may use the reserve, and waits for no other one */
    uint64_t refused; /* when this process last waited for memory in vain, CLOCK_MONOTONIC ns; 0: never */
    uint64_t memory;  /* the configured `memory`, for the mirror that this process may start */
    enum fastspool_durability durability; /* of this process's fsyncs */
    uint64_t synced;                      /* acked: ticket of the last change that this process has synced; atomic */
};

/* Where an entry lies.  The segment can be written by the mail user and is mapped by root: so an index is cut to its
 * table's size (all are powers of two), and whatever stands in the segment, no access leaves it.  That an index means
 * something is checked where it is followed. */
#define FASTSPOOL_ENTRY_AT(type, name, at, most)                                        \
    static inline const type *name(const struct fastspool *fs, uint32_t i)              \
    {                                                                                   \
        _Static_assert(((most) & ((most)-1)) == 0, "a table's size is a power of two"); \
        return (const type *)(fs->base + (at)) + (i & ((most)-1));                      \
    }
FASTSPOOL_ENTRY_AT(struct inode, inode_at, INODES_AT, INODES_MAX)
FASTSPOOL_ENTRY_AT(struct name, name_at, NAMES_AT, NAMES_MAX)
FASTSPOOL_ENTRY_AT(struct description, description_at, DESCRIPTIONS_AT, DESCRIPTIONS_MAX)
FASTSPOOL_ENTRY_AT(struct chunk, chunk_at, CHUNKS_AT, CHUNKS_MAX)
FASTSPOOL_ENTRY_AT(uint32_t, bucket_at, BUCKETS_AT, BUCKETS_MAX)
static inline const char *block_at(const struct fastspool *fs, uint32_t i)
{
    return fs->base + DATA_AT + (uint64_t)(i & (CHUNKS_MAX * CHUNK_BLOCKS - 1)) * BLOCK_SIZE;
}

/** The one place where const is cast away.  Everything of the segment is const, so that the compiler refuses a store
 *  past the undo log.  These alone may use it, and tests:
 *    - section.c and section.h: SET(), section_copy(), the undo log, the mutex, the sentence of a failure;
 *    - ATOMIC() and block_bytes() below;
 *    - segment.c: the mapping as a whole, and the reset while no other process uses the segment. */
#define WRITABLE(field) (*(__typeof__(((void)0, (field))) *)(uintptr_t)(&(field)))

/** A field that layout.h marks "atomic", to be changed outside sections: for __atomic_*() and futex_count(). */
#define ATOMIC(field) WRITABLE(field)

/** Load a field that other threads or processes change meanwhile. */
#define LOAD(field)         __atomic_load_n(&(field), __ATOMIC_ACQUIRE)
/** Store to a field that layout.h marks "atomic", or to an atomic variable of the process. */
#define STORE(field, value) __atomic_store_n(&ATOMIC(field), (value), __ATOMIC_RELEASE)

/** Inside a section: the bytes of block @i, to write past the undo log.  Only bytes that no reader can see may change:
 *  a block that this section has taken and no file leads to yet; bytes behind the published size of a file; a block of
 *  an evicted file.  If the section fails they are garbage, as they were before. */
static inline char *block_bytes(const struct fastspool *fs, uint32_t i)
{
    return &WRITABLE(*block_at(fs, i));
}

/** Is @i the number of an inode in use?  Under the lock, or in a read. */
static inline bool inode_valid(const struct fastspool *fs, uint32_t i)
{
    return i != 0 && i < LOAD(fs->header->tables.inodes.used) && i < INODES_MAX &&
           (inode_at(fs, i)->flags & INODE_USED);
}

#endif

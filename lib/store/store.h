/* SPDX-License-Identifier: MIT
 *
 * What all modules of lib/store share: an attached spool, and access to the entries of the segment.
 *
 * Names: fastspool_x() is public.  module_x() is shared inside the library.  Static functions have no prefix.
 * A function that can fail returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_STORE_H
#define FASTSPOOL_STORE_H

#include "base/atomic.h"
#include "base/error.h"
#include "base/places.h"
#include "fastspool.h"
#include "store/layout.h"
#include "store/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct keeper;

_Static_assert(ERROR_MAX == FASTSPOOL_ERROR_MAX, "a sentence is as long as the public header says");
_Static_assert(PLACES_PATH_MAX > FASTSPOOL_PATH_MAX + 48, "a path below any state directory fits");

/** Entries of each table that this process has mapped, powers of two (span.h).  They only grow; atomic. */
struct mapped_span {
    uint32_t inodes;
    uint32_t names;
    uint32_t buckets;
    uint32_t chunks;
};

/** One attached spool, private to the process. */
struct fastspool {
    const char *base;            /* the mapping of the segment */
    const struct header *header; /* = base */
    struct mapped_span span;     /* what of the segment is mapped */
    uint32_t stretching;         /* 1: a thread maps more of it (span.c), or began to and never came back; atomic */
    int segment_fd;              /* this and the next four: high numbers, close-on-exec */
    int locks_fd;    /* of the record locks; stays open while attached, because a close drops all of them (POSIX) */
    int runtime_fd;  /* directory RUNTIME/fastspool.ID */
    int spool_fd;    /* the spool directory */
    int presence_fd; /* STATE/lock, whose lock says that this process lives (spool/presence.c); -1: none */
    uid_t owner;     /* of the spool directory in the file system */
    gid_t group;
    dev_t device;                             /* st_dev of the spool directory */
    dev_t placeholder_device;                 /* of the placeholder directories */
    uint64_t placeholder_inode[PLACEHOLDERS]; /* and their st_ino, once the kernel was asked; 0: not yet */
    uint64_t pid_namespace;           /* which all processes of the store share (namespace_of_pids()); 0: unknown */
    char spool[FASTSPOOL_PATH_MAX];   /* real path of the spool directory */
    char state[FASTSPOOL_PATH_MAX];   /* path of its state directory */
    char runtime[FASTSPOOL_PATH_MAX]; /* RUNTIME/fastspool.ID */
    const struct keeper *keeper;      /* how this process finds and starts a mirror (await.h); NULL: it uses none */
    bool may_have_lists;              /* the modes of state directory and segment don't say that they are one user's */
    bool starts_view;                 /* root's, started by root or the owner: it may start the view */
    bool mirror;                      /* this process is the mirror: it may use the reserve, and waits for no mirror */
    bool for_others; /* it is the view's server: it writes for users, and leaves memory to the library */
    bool (*is_ending)(const struct fastspool *fs); /* true: a wait for the lock gives up (section.c); NULL: none does */
    uint64_t refused; /* CLOCK_MONOTONIC ns of the last wait for memory that ended in ENOSPC; 0: never; atomic */
    uint64_t memory;  /* configured `memory`, for a mirror that this process starts; 0: the default */
    enum fastspool_durability durability; /* of the fsyncs of this process */
    uint32_t noting;                      /* the pid, once this process may note locks (noted.c), 0: not yet; atomic */
    uint32_t noting_life;                 /* and its life (mutex.h) then; atomic */
    uint32_t noting_begins; /* the life of the process in which a thread begins to note, 0: none; atomic */
    uint64_t synced;        /* acked: highest ticket that this process has synced; atomic */
    struct pool pool;       /* descriptions that this process has taken: in one page with all of the above */
};
_Static_assert(sizeof(struct fastspool) <= 4096,
               "a process that attaches, and a child that writes here, pays one page");

/* Access to an entry.  The mail user can write the segment, and root maps it.  So an index is cut to what this process
 * has mapped of the table (a power of two), and no index leads out of that.  Whoever follows an index has called
 * span_follow(), and checks that the index leads to an entry in use. */
#define ENTRY_AT(type, name, at, most)                                     \
    static inline const type *name(const struct fastspool *fs, uint32_t i) \
    {                                                                      \
        return (const type *)(fs->base + (at)) + (i & ((most)-1));         \
    }
ENTRY_AT(struct inode, inode_at, INODES_AT, LOAD(fs->span.inodes))
ENTRY_AT(struct name, name_at, NAMES_AT, LOAD(fs->span.names))
ENTRY_AT(struct description, description_at, DESCRIPTIONS_AT, DESCRIPTIONS_MAX)
ENTRY_AT(struct chunk, chunk_at, CHUNKS_AT, CHUNKS_MAX)
ENTRY_AT(uint32_t, bucket_at, BUCKETS_AT, LOAD(fs->span.buckets))
#undef ENTRY_AT

/* A piece (layout.h).  Whoever follows the number of one has asked piece_possible(), or made it. */
static inline uint32_t piece_block(uint32_t piece)
{
    return piece & PIECE_BLOCK;
}
static inline uint32_t piece_first(uint32_t piece)
{
    return piece >> PIECE_FIRST & (BLOCK_PARTS - 1);
}
static inline uint32_t piece_parts(uint32_t piece)
{
    return BLOCK_PARTS - (piece >> PIECE_MISSING & (BLOCK_PARTS - 1));
}
static inline uint32_t piece_size(uint32_t piece)
{
    return piece_parts(piece) * PART_SIZE;
}
/** Is it a number of a piece, all of it in one block?  (Of which block is another question.) */
static inline bool piece_possible(uint32_t piece)
{
    return piece / (PIECE_BLOCK + 1) < BLOCK_PARTS * BLOCK_PARTS &&
           piece_first(piece) + piece_parts(piece) <= BLOCK_PARTS;
}
static inline const char *piece_at(const struct fastspool *fs, uint32_t piece)
{
    return fs->base + DATA_AT + (uint64_t)(piece & (LOAD(fs->span.chunks) * CHUNK_BLOCKS - 1)) * BLOCK_SIZE +
           piece_first(piece) * PART_SIZE;
}

/** The one place where const is cast away, besides atomic.h for the fields that layout.h marks "atomic".  Everything of
 *  the segment is const, so that the compiler refuses a store past the undo log.  These alone may use it, and tests:
 *    - section.c and section.h: SET() and its kin, section_copy(), the undo log, the sentence of a failure;
 *    - piece_bytes() below;
 *    - snapshot.c: a copy in memory of its own;
 *    - history.h: a hint, which no undo entry covers;
 *    - segment.c: the mapping as a whole, and the reset while no other process uses the segment. */
#define WRITABLE(field) (*(__typeof__(((void)0, (field))) *)(uintptr_t)(&(field)))

/** Inside a section: the bytes of a piece, to write past the undo log.  Only bytes that no reader can see may change: a
 *  piece that this section has taken and no file leads to yet; bytes behind the published size of a file; a piece of an
 *  evicted file.  If the section fails they are garbage, as they were before. */
static inline char *piece_bytes(const struct fastspool *fs, uint32_t piece)
{
    return &WRITABLE(*piece_at(fs, piece));
}

/** The inode in use of number @i, NULL: there is none.  Under the lock, or in a read. */
static inline const struct inode *inode_in_use(const struct fastspool *fs, uint32_t i)
{
    if (i == 0 || i >= LOAD(fs->header->tables.inodes.used) || i >= LOAD(fs->span.inodes))
        return NULL;
    const struct inode *inode = inode_at(fs, i);
    return inode->flags & INODE_USED ? inode : NULL;
}

/** Is @i the number of an inode in use?  The same. */
static inline bool inode_valid(const struct fastspool *fs, uint32_t i)
{
    return inode_in_use(fs, i) != NULL;
}

/** Is @i the number of a name's entry that has been handed out?  The same. */
static inline bool names_valid(const struct fastspool *fs, uint32_t i)
{
    return i != 0 && i < LOAD(fs->header->tables.names.used) && i < LOAD(fs->span.names);
}

#endif

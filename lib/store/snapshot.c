/* SPDX-License-Identifier: MIT
 *
 * Snapshots: what there is to know about a segment is copied, and then looked at without the lock, for as long as that
 * takes.
 *
 * The happy path: the tables are copied between two looks at the section count, as by every reader without the lock.
 *
 * Failure modes:
 *   - Sections come and go too fast: after a few tries the copy is made under the lock.
 *   - The segment is damaged, and has no lock: it is copied as it is.
 *   - Numbers in it are nonsense: they are cut to what the tables can hold, and holes are neither copied nor walked
 *     through.  More index blocks than there are blocks of memory are -EUCLEAN.
 *
 * The copy goes by pread(2): a look at a mapped hole would fill it with memory.
 */
#include "store/snapshot.h"

#include "store/layout.h"
#include "store/section.h"
#include "store/span.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 4u /* without the lock */

static uint32_t least(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t least = a < b ? a : b;
    return least < c ? least : c;
}

static uint32_t extent_of(const struct table *table, uint32_t most)
{
    uint32_t entries = least(table->used, table->capacity, most);
    return entries ? entries : 1; /* entry 0 is nobody's */
}

struct snapshot_extent snapshot_extent(const struct header *h)
{
    return (struct snapshot_extent){
        .inodes = extent_of(&h->tables.inodes, INODES_MAX),
        .names = extent_of(&h->tables.names, NAMES_MAX),
        .descriptions = extent_of(&h->tables.descriptions, DESCRIPTIONS_MAX),
        .buckets = least(h->tables.buckets, h->tables.buckets_capacity, BUCKETS_MAX),
        .chunks = least(h->blocks.chunks_used, CHUNKS_MAX, CHUNKS_MAX),
    };
}

/* Of bytes [*@from, @to) of the file, the first that have memory: [*@from, *@end).  A hole is zeros, and may be larger
 * than the machine's memory.  1; 0: there are none; -errno. */
static int next_data(const struct fastspool *fs, uint64_t *from, uint64_t to, uint64_t *end)
{
    off_t data = *from < to ? lseek(fs->segment_fd, (off_t)*from, SEEK_DATA) : (off_t)to;

    if (data < 0 || (uint64_t)data >= to)
        return data < 0 && errno != ENXIO ? -errno : 0;
    off_t hole = lseek(fs->segment_fd, data, SEEK_HOLE);
    *from = (uint64_t)data;
    *end = hole < 0 || (uint64_t)hole > to ? to : (uint64_t)hole;
    return 1;
}

static int read_bytes(const struct fastspool *fs, struct fastspool *copy, uint64_t from, uint64_t size)
{
    const uint64_t to = from + size;

    while (from < to) {
        ssize_t got = pread(fs->segment_fd, &WRITABLE(copy->base[from]), to - from, (off_t)from);
        if (got == 0 || (got < 0 && errno != EINTR))
            return got < 0 ? -errno : -EIO;
        from += got > 0 ? (uint64_t)got : 0;
    }
    return 0;
}

static int copy_bytes(const struct fastspool *fs, struct fastspool *copy, uint64_t from, uint64_t size)
{
    const uint64_t to = from + size;
    uint64_t end = 0;
    int result;

    while ((result = next_data(fs, &from, to, &end)) > 0) {
        result = read_bytes(fs, copy, from, end - from);
        if (result < 0)
            return result;
        from = end;
    }
    return result;
}

/* One block, if it has memory.  Nothing looks for the hole behind it: that walks over all data between. */
static int copy_block(const struct fastspool *fs, struct fastspool *copy, uint32_t block)
{
    const uint64_t at = DATA_AT + (uint64_t)block * BLOCK_SIZE;
    off_t data = lseek(fs->segment_fd, (off_t)at, SEEK_DATA);

    if (data < 0)
        return errno != ENXIO ? -errno : 0;
    return (uint64_t)data == at ? read_bytes(fs, copy, at, BLOCK_SIZE) : 0;
}

/* ---- index blocks ---- */

struct indexes {
    const struct fastspool *fs;
    struct fastspool *copy;
    uint32_t chunks;
    uint64_t left; /* to copy at most: each block of memory is one of one file */
};

/* Block @block, and the index blocks that it leads to. */
static int copy_index(struct indexes *indexes, uint32_t block, int depth)
{
    if (block == 0 || block / CHUNK_BLOCKS >= indexes->chunks)
        return 0;
    if (indexes->left-- == 0)
        return -EUCLEAN;
    int result = copy_block(indexes->fs, indexes->copy, block);
    for (uint32_t e = 0; depth > 1 && e < INDEX_ENTRIES && result == 0; e++)
        result = copy_index(indexes, ((const uint32_t *)piece_at(indexes->copy, block))[e], depth - 1);
    return result;
}

static int copy_indexes_of(struct indexes *indexes, const struct inode *inode)
{
    if (!(inode->flags & INODE_USED) || S_ISDIR(inode->mode))
        return 0;
    int result = copy_index(indexes, inode->map.indirect, 1);
    return result == 0 ? copy_index(indexes, inode->map.double_indirect, 2) : result;
}

/* Of the inodes that have memory: a walk through the holes of the copy would fill them, with the lock held. */
static int copy_indexes(struct indexes *indexes, uint32_t inodes)
{
    const uint64_t to = INODES_AT + (uint64_t)inodes * sizeof(struct inode);
    uint64_t from = INODES_AT, end = 0;
    struct stat st;
    int result = fstat(indexes->fs->segment_fd, &st) < 0 ? -errno : 0;

    indexes->left = (uint64_t)st.st_blocks * 512 / BLOCK_SIZE;
    while (result == 0 && (result = next_data(indexes->fs, &from, to, &end)) > 0) {
        result = 0;
        for (; from < end && result == 0; from += sizeof(struct inode))
            result = copy_indexes_of(indexes, (const struct inode *)(indexes->copy->base + from));
    }
    return result;
}

static int copy_all(const struct fastspool *fs, struct fastspool *copy)
{
    int result = copy_bytes(fs, copy, 0, sizeof(struct header));
    struct snapshot_extent extent = snapshot_extent(copy->header);
    struct indexes indexes = {.fs = fs, .copy = copy, .chunks = extent.chunks};

    if (result == 0)
        result = span_follow(copy);
    if (result == 0)
        result = copy_bytes(fs, copy, CHUNKS_AT, (uint64_t)extent.chunks * sizeof(struct chunk));
    if (result == 0)
        result = copy_bytes(fs, copy, DESCRIPTIONS_AT, (uint64_t)extent.descriptions * sizeof(struct description));
    if (result == 0)
        result = copy_bytes(fs, copy, BUCKETS_AT, (uint64_t)extent.buckets * sizeof(uint32_t));
    if (result == 0)
        result = copy_bytes(fs, copy, INODES_AT, (uint64_t)extent.inodes * sizeof(struct inode));
    if (result == 0)
        result = copy_bytes(fs, copy, NAMES_AT, (uint64_t)extent.names * sizeof(struct name));
    return result == 0 ? copy_indexes(&indexes, extent.inodes) : result;
}

/* An empty segment, in memory of its own. */
static struct fastspool *make_copy(const struct fastspool *fs)
{
    struct fastspool *copy = malloc(sizeof(*copy));

    if (!copy)
        return NULL;
    *copy = *fs;
    copy->segment_fd = -1;
    if (span_map(copy) == 0)
        return copy;
    free(copy);
    return NULL;
}

int snapshot_take(struct fastspool *fs, struct fastspool **out)
{
    struct section_read read = SECTION_READ;
    struct fastspool *copy = make_copy(fs);
    int result;

    if (!copy)
        return -ENOMEM;
    read.tries = SECTION_READ_TRIES - TRIES;
    do {
        (void)section_read_begin(fs, &read); /* the copy is read from the file */
        result = copy_all(fs, copy);
    } while (section_read_retry(fs, &read));
    if (result == 0)
        *out = copy;
    else
        snapshot_free(copy);
    return result;
}

void snapshot_free(struct fastspool *copy)
{
    span_unmap(copy);
    free(copy);
}

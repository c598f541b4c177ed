/* SPDX-License-Identifier: MIT
 *
 * Tables: entries of one size in the segment.
 *
 * The happy path:
 *   1. table_take() hands out the entry that was given back last, else the first one that was never handed out.
 *   2. table_give() puts an entry at the head of the free list, which runs through a field of the entries.
 *   3. If all entries with memory are in use, the body wants the table (section_want()).  table_grow() then takes
 *      memory for one more step with fallocate(2), outside the lock, and publishes the new capacity in a section.
 *
 * Failure modes:
 *   - The runtime file system or the configured limit has no memory: the growth fails with -EAGAIN.  No later use gets
 *     SIGBUS.
 *   - Two processes grow the same table: both take the same memory, which is harmless, and one publishes it.
 *   - Two tables grow, and the limit has room for one: the second gets -EAGAIN.
 *   - The free list leads out of the table, or to an entry in use, or more entries were handed out than the table can
 *     have: the segment is damaged.
 */
#include "store/table.h"

#include "base/fd.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>

struct growth {
    const uint32_t *capacity; /* of the table, entries */
    uint32_t seen;            /* *capacity before the memory was taken */
    uint32_t step;
    uint64_t bytes;
};

/* The place and the growth of a table.  One step is some 64 to 128 KiB. */
struct kind {
    size_t counts; /* offset in the header of its struct table; for buckets, of their capacity */
    uint64_t at;
    uint32_t size; /* bytes of an entry */
    uint32_t link; /* offset in an entry of the link of the free list */
    size_t mapped; /* offset in struct fastspool of the entries that are mapped; 0: all */
    uint32_t most; /* entries */
    uint32_t step;
    const char *damage;
    bool (*used)(const struct fastspool *fs, uint32_t entry); /* is the entry in use? */
};

static bool inode_used(const struct fastspool *fs, uint32_t i)
{
    return inode_at(fs, i)->flags & INODE_USED;
}

static bool name_used(const struct fastspool *fs, uint32_t i)
{
    return name_at(fs, i)->inode != 0;
}

static bool description_used(const struct fastspool *fs, uint32_t i)
{
    return description_at(fs, i)->state != DESCRIPTION_FREE;
}

static const struct kind kinds[] = {
    [TABLE_INODES] = {offsetof(struct header, tables.inodes), INODES_AT, sizeof(struct inode),
                      offsetof(struct inode, names), offsetof(struct fastspool, span.inodes), INODES_MAX, 1024,
                      "the list of free inodes leads to none", inode_used},
    [TABLE_NAMES] = {offsetof(struct header, tables.names), NAMES_AT, sizeof(struct name), offsetof(struct name, chain),
                     offsetof(struct fastspool, span.names), NAMES_MAX, 2048, "the list of free names leads to none",
                     name_used},
    [TABLE_DESCRIPTIONS] = {offsetof(struct header, tables.descriptions), DESCRIPTIONS_AT, sizeof(struct description),
                            offsetof(struct description, next_free), 0, DESCRIPTIONS_MAX, 1024,
                            "the list of free descriptions leads to none", description_used},
    [TABLE_BUCKETS] = {offsetof(struct header, tables.buckets_capacity), BUCKETS_AT, sizeof(uint32_t), 0, 0,
                       BUCKETS_MAX, 16384, NULL, NULL},
};

static inline const struct table *table_of(const struct fastspool *fs, const struct kind *kind)
{
    return (const struct table *)(fs->base + kind->counts);
}

static inline const uint32_t *link_of(const struct fastspool *fs, const struct kind *kind, uint32_t entry)
{
    uint32_t count = kind->mapped ? LOAD(*(const uint32_t *)((const char *)fs + kind->mapped)) : kind->most;

    return (const uint32_t *)(fs->base + kind->at + (uint64_t)(entry & (count - 1)) * kind->size + kind->link);
}

/* ---- entries ---- */

/* These are compiled once for each table: what `kinds` says of it is then a constant. */
#define FOR_EACH_TABLE static inline __attribute__((always_inline))

FOR_EACH_TABLE int take(struct fastspool *fs, enum table_id id, uint32_t *entry)
{
    const struct kind *kind = &kinds[id];
    const struct table *table = table_of(fs, kind);
    const uint32_t free = LOAD(table->free), used = LOAD(table->used), i = free ? free : used;

    if (free == 0 && used >= table->capacity)
        return section_want(id);
    if (i >= kind->most || (free && (free >= used || kind->used(fs, free))))
        return section_damaged(fs, kind->damage);
    if (free == 0)
        SET(fs, table->used, used + 1);
    SET_TWO(fs, table->free, free ? *link_of(fs, kind, free) : 0, table->count, table->count + 1);
    *entry = i;
    return 0;
}

int table_take(struct fastspool *fs, enum table_id id, uint32_t *entry)
{
    switch (id) {
    case TABLE_NAMES:
        return take(fs, TABLE_NAMES, entry);
    case TABLE_INODES:
        return take(fs, TABLE_INODES, entry);
    default:
        return take(fs, TABLE_DESCRIPTIONS, entry);
    }
}

void table_give_gap(struct fastspool *fs, enum table_id id, uint32_t entry)
{
    const struct kind *kind = &kinds[id];
    const struct table *table = table_of(fs, kind);

    SET(fs, *link_of(fs, kind, entry), table->free);
    SET(fs, table->free, entry);
}

FOR_EACH_TABLE void give(struct fastspool *fs, enum table_id id, uint32_t entry)
{
    const struct kind *kind = &kinds[id];
    const struct table *table = table_of(fs, kind);

    SET(fs, *link_of(fs, kind, entry), table->free);
    SET_TWO(fs, table->free, entry, table->count, table->count - 1);
}

void table_give(struct fastspool *fs, enum table_id id, uint32_t entry)
{
    switch (id) {
    case TABLE_NAMES:
        give(fs, TABLE_NAMES, entry);
        break;
    case TABLE_INODES:
        give(fs, TABLE_INODES, entry);
        break;
    default:
        give(fs, TABLE_DESCRIPTIONS, entry);
        break;
    }
}

/* ---- growing ---- */

uint64_t table_bytes(const struct header *h)
{
    return HEADER_SIZE + (uint64_t)LOAD(h->tables.inodes.capacity) * sizeof(struct inode) +
           (uint64_t)LOAD(h->tables.names.capacity) * sizeof(struct name) +
           (uint64_t)LOAD(h->tables.descriptions.capacity) * sizeof(struct description) +
           (uint64_t)LOAD(h->tables.buckets_capacity) * sizeof(uint32_t);
}

static int publish_growth(struct fastspool *fs, void *argument)
{
    const struct growth *growth = argument;

    if (*growth->capacity != growth->seen)
        return 0; /* another process was faster, and the table has grown */
    if (fs->header->tables.memory_bytes + growth->bytes > LOAD(fs->header->memory_limit))
        return -EAGAIN; /* another table was faster; the next growth of this one uses the memory */
    SET(fs, *growth->capacity, growth->seen + growth->step);
    SET(fs, fs->header->tables.memory_bytes, fs->header->tables.memory_bytes + growth->bytes);
    return 0;
}

int table_grow(struct fastspool *fs, enum table_id id)
{
    const struct kind *kind = &kinds[id];
    const uint32_t *capacity =
        id == TABLE_BUCKETS ? &fs->header->tables.buckets_capacity : &table_of(fs, kind)->capacity;
    struct growth growth = {capacity, LOAD(*capacity), kind->step, (uint64_t)kind->step * kind->size};

    if (growth.seen > kind->most - kind->step)
        return id == TABLE_DESCRIPTIONS ? -ENFILE : -ENOSPC;
    int result = -EAGAIN;
    if (LOAD(fs->header->tables.memory_bytes) + growth.bytes <= LOAD(fs->header->memory_limit))
        result = fd_take_zeroed(fs->segment_fd, kind->at + (uint64_t)growth.seen * kind->size, growth.bytes);
    if (result == 0)
        result = section_run(fs, publish_growth, &growth);
    if (result == -EAGAIN)
        STORE(fs->header->blocks.tables_wanted, 1);
    return result;
}

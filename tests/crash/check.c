/* SPDX-License-Identifier: MIT
 *
 * The invariants of the segment, checked from scratch: nothing is believed that can be counted again.
 *
 * The happy path: one critical section that changes nothing (so that nobody else changes anything either) walks each
 * list and each table, counts who refers to whom in tables of its own, and compares that with what the segment says:
 *   - every entry of a table is either in use or in its free list, exactly once;
 *   - a name is in exactly one hash chain, in its directory's list and in its inode's list; the lists agree both ways;
 *   - links, opens, files, blocks, dirty bytes and memory are what counting gives;
 *   - a block is free, in quarantine or reached from exactly one place; the lists of chunks hold those they should;
 *   - an inode is dirty exactly if it is in the dirty list, wanted if it is in the list of faults, and in the clean
 * list or the cold one if it has data in memory and all of it is on the disk, and is not on its way back. (That a name
 * lies in the right chain is seen by looking it up, which the dump of the tree does.)
 *
 * Failure modes: the first thing found wrong ends the check, with a sentence that says what and where.
 */
#include "check.h"

#include "fastspool.h"
#include "store/change.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/lists.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    char *error;
    uint32_t *opens;          /* per inode: open descriptions that lead to it */
    uint32_t *subdirectories; /* per inode */
    uint32_t *listed;         /* per inode: in how many dirty lists, free lists, orphan lists */
    uint8_t *chained;         /* per name: bits IN_... */
    uint8_t *reached;         /* per block: how many places lead to it */
    uint64_t blocks;          /* reached */
};

enum { IN_CHAIN = 1, IN_DIRECTORY = 2, IN_INODE = 4, IN_FREE = 8, IN_MORE = 16 };

/* ---- saying what is wrong ---- */

static int wrong(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int wrong(struct check *check, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(check->error, FASTSPOOL_ERROR_MAX, format, arguments);
    va_end(arguments);
    return -EUCLEAN;
}

/* ---- names ---- */

static bool name_in_table(const struct fastspool *fs, uint32_t i)
{
    return i != 0 && i < fs->header->tables.names.used;
}

/* Note that name @i was met in list @where; it must not have been before. */
static int meet(const struct fastspool *fs, struct check *check, uint32_t i, uint8_t where, const char *list)
{
    if (!name_in_table(fs, i))
        return wrong(check, "%s leads to name %u, out of the table", list, i);
    if (check->chained[i] & where)
        return wrong(check, "name %u is twice in %s", i, list);
    if ((where == IN_FREE) != (name_at(fs, i)->inode == 0) ||
        (where == IN_MORE) != (name_at(fs, i)->inode == NAME_CONTINUES))
        return wrong(check, "name %u (inode %u) does not belong in %s", i, name_at(fs, i)->inode, list);
    check->chained[i] |= where;
    return 0;
}

static int check_rest(struct fastspool *fs, struct check *check, const struct name *name)
{
    uint32_t parts = name->length > NAME_INLINE ? (name->length - NAME_INLINE + NAME_MORE - 1) / NAME_MORE : 0;
    uint32_t more = name->more;

    for (; parts > 0; parts--) {
        int result = meet(fs, check, more, IN_MORE, "the rest of a long name");
        if (result < 0)
            return result;
        more = ((const struct name_more *)name_at(fs, more))->more;
    }
    return more ? wrong(check, "a name of %u bytes goes on too long", name->length) : 0;
}

static int check_chains(struct fastspool *fs, struct check *check)
{
    const struct header *h = fs->header;

    for (uint32_t b = 0; b < h->tables.buckets && b < h->tables.buckets_capacity; b++) {
        for (uint32_t i = *bucket_at(fs, b) & CHAIN_INDEX; i; i = name_at(fs, i)->chain & CHAIN_INDEX) {
            int result = meet(fs, check, i, IN_CHAIN, "the hash chains");
            if (result == 0)
                result = check_rest(fs, check, name_at(fs, i));
            if (result < 0)
                return result;
        }
    }
    for (uint32_t i = h->tables.names.free; i; i = name_at(fs, i)->chain) {
        int result = meet(fs, check, i, IN_FREE, "the list of free names");
        if (result < 0)
            return result;
    }
    return 0;
}

static int check_directory(struct fastspool *fs, struct check *check, uint32_t d)
{
    const struct inode *directory = inode_at(fs, d);
    uint32_t previous = 0, count = 0;
    uint64_t born = 0;

    for (uint32_t i = directory->dir.first; i; i = name_at(fs, i)->next) {
        int result = meet(fs, check, i, IN_DIRECTORY, "the directories' lists");
        if (result < 0)
            return result;
        const struct name *name = name_at(fs, i);
        if (name->parent != d || name->prev != previous || name->born <= born)
            return wrong(check, "name %u doesn't fit the list of directory %u", i, d);
        if (!inode_valid(fs, name->inode))
            return wrong(check, "name %u leads to inode %u, which is not in use", i, name->inode);
        if (S_ISDIR(inode_at(fs, name->inode)->mode)) {
            check->subdirectories[d]++;
            if (inode_at(fs, name->inode)->dir.parent != d)
                return wrong(check, "directory %u does not know its parent %u", name->inode, d);
        }
        born = name->born;
        previous = i;
        count++;
    }
    if (directory->dir.last != previous || directory->dir.entries != count)
        return wrong(check, "directory %u counts %u names and lists %u", d, directory->dir.entries, count);
    return 0;
}

static int check_names_of(struct fastspool *fs, struct check *check, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);
    bool directory = S_ISDIR(inode->mode);
    uint32_t names = 0;

    for (uint32_t n = inode->flags & INODE_ORPHAN ? 0 : inode->names; n; n = name_at(fs, n)->sibling) {
        int result = meet(fs, check, n, IN_INODE, "the inodes' lists of names");
        if (result < 0)
            return result;
        if (name_at(fs, n)->inode != i)
            return wrong(check, "inode %u lists a name of inode %u", i, name_at(fs, n)->inode);
        names++;
    }
    uint32_t links = directory ? 1 + names + check->subdirectories[i] + (i == fs->header->tree.root) : names;
    if (inode->links != links)
        return wrong(check, "inode %u counts %u links, and has %u", i, inode->links, links);
    if (names == 0 && inode->opens == 0 && i != fs->header->tree.root && !(inode->flags & INODE_ORPHAN))
        return wrong(check, "inode %u has neither names nor descriptions", i);
    return 0;
}

static int check_names(struct fastspool *fs, struct check *check)
{
    const struct table *table = &fs->header->tables.names;
    uint32_t count = 0;

    for (uint32_t i = 1; i < table->used; i++) {
        uint8_t in = check->chained[i];
        if (in != IN_FREE && in != IN_MORE && in != (IN_CHAIN | IN_DIRECTORY | IN_INODE))
            return wrong(check, "name %u (inode %u) is missing in one of its lists (%x)", i, name_at(fs, i)->inode, in);
        count += in != IN_FREE;
    }
    return count == table->count ? 0 : wrong(check, "%u names are in use, the table counts %u", count, table->count);
}

/* ---- inodes ---- */

static int list_inode(struct fastspool *fs, struct check *check, uint32_t i, uint32_t bit, const char *list)
{
    if (i == 0 || i >= fs->header->tables.inodes.used)
        return wrong(check, "%s leads to inode %u, out of the table", list, i);
    if (check->listed[i] & bit)
        return wrong(check, "inode %u is twice in %s", i, list);
    check->listed[i] |= bit;
    return 0;
}

/* The lists that an inode may be in. */
enum { IN_FREE_INODES = 1, IN_ORPHANS = 2, IN_DIRTY = 4, IN_CLEAN = 8, IN_COLD = 16, IN_FAULTS = 32 };

static int check_list(struct fastspool *fs, struct check *check, const struct list *list, size_t which, uint32_t bit,
                      const char *name)
{
    uint32_t previous = 0;
    int result = 0;

    for (uint32_t i = list->head; i && result == 0;) {
        const struct link *link = (const struct link *)((const char *)inode_at(fs, i) + which);
        result = list_inode(fs, check, i, bit, name);
        if (result == 0 && link->prev != previous)
            result = wrong(check, "%s does not agree both ways at inode %u", name, i);
        previous = i;
        i = link->next;
    }
    if (result == 0 && list->tail != previous)
        result = wrong(check, "%s ends at %u, not at %u", name, previous, list->tail);
    return result;
}

static int check_inode_lists(struct fastspool *fs, struct check *check)
{
    const struct header *h = fs->header;
    int result = 0;

    for (uint32_t i = h->tables.inodes.free; i && result == 0; i = inode_at(fs, i)->names)
        result = list_inode(fs, check, i, IN_FREE_INODES, "the list of free inodes");
    for (uint32_t i = h->tree.orphans; i && result == 0; i = inode_at(fs, i)->names)
        result = list_inode(fs, check, i, IN_ORPHANS, "the list of orphans");
    if (result == 0)
        result = check_list(fs, check, &h->tickets.dirty, LIST_LINK, IN_DIRTY, "the dirty list");
    if (result == 0)
        result = check_list(fs, check, &h->residency.clean, LIST_LINK, IN_CLEAN, "the clean list");
    if (result == 0)
        result = check_list(fs, check, &h->residency.cold, LIST_LINK, IN_COLD, "the cold list");
    return result ? result : check_list(fs, check, &h->residency.pageins, PAGEIN_LINK, IN_FAULTS, "the list of faults");
}

/* In which lists it has to be. */
static uint32_t lists_of(const struct inode *inode)
{
    unsigned flags = inode->flags;
    bool used = flags & INODE_USED;
    bool clean = used && S_ISREG(inode->mode) && !(flags & (INODE_DIRTY | INODE_ORPHAN | INODE_WANTED)) &&
                 inode->links > 0 && inode->blocks > 0;

    return (used ? 0 : IN_FREE_INODES) | (flags & INODE_ORPHAN ? IN_ORPHANS : 0) |
           (flags & INODE_DIRTY ? IN_DIRTY : 0) |
           (!clean               ? 0
            : flags & INODE_COLD ? IN_COLD
                                 : IN_CLEAN) |
           (used && (flags & INODE_WANTED) ? IN_FAULTS : 0);
}

static int check_eviction(struct check *check, uint32_t i, const struct inode *inode)
{
    unsigned flags = inode->flags;

    if (!!(flags & INODE_CLEAN) != !!(lists_of(inode) & (IN_CLEAN | IN_COLD)))
        return wrong(check, "inode %u has flags %x: clean, or not?", i, flags);
    if ((flags & INODE_WANTED) && !(flags & INODE_EVICTED))
        return wrong(check, "inode %u is wanted, and not evicted", i);
    if ((flags & (INODE_AHEAD | INODE_EVICTED | INODE_WANTED)) == (INODE_AHEAD | INODE_EVICTED))
        return wrong(check, "inode %u is prefetched, and is not wanted", i);
    if ((flags & INODE_SPILLED) && ((flags & INODE_EVICTED) || inode->blocks > 0))
        return wrong(check, "inode %u is spilled, has flags %x and %u blocks", i, flags, inode->blocks);
    if ((flags & (INODE_EVICTED | INODE_SPILLED)) && (inode->size == 0 || inode->dirty_from != inode->dirty_to))
        return wrong(check, "inode %u is evicted, of %llu bytes, and some of them are dirty", i,
                     (unsigned long long)inode->size);
    return 0;
}

static int check_inodes(struct fastspool *fs, struct check *check)
{
    const struct header *h = fs->header;
    uint64_t files = 0, dirty = 0, dirty_bytes = 0, evicted = 0, spilled = 0, clean = 0, cold = 0;
    uint32_t count = 0;

    for (uint32_t i = 1; i < h->tables.inodes.used; i++) {
        const struct inode *inode = inode_at(fs, i);
        bool used = inode->flags & INODE_USED;
        if (check->listed[i] != lists_of(inode))
            return wrong(check, "inode %u has flags %x, and is in lists %x", i, inode->flags, check->listed[i]);
        dirty += !!(inode->flags & INODE_DIRTY);
        if (inode->dirty_to < inode->dirty_from)
            return wrong(check, "inode %u has less than no dirty data", i);
        dirty_bytes += used ? (uint64_t)(inode->dirty_to - inode->dirty_from) * BLOCK_SIZE : 0;
        if (!used)
            continue;
        count++;
        files += !S_ISDIR(inode->mode);
        if (inode->opens != check->opens[i])
            return wrong(check, "inode %u counts %u descriptions, and has %u", i, inode->opens, check->opens[i]);
        evicted += !!(inode->flags & INODE_EVICTED);
        clean += !!(inode->flags & INODE_CLEAN);
        cold += (inode->flags & (INODE_CLEAN | INODE_COLD)) == (INODE_CLEAN | INODE_COLD);
        spilled += !!(inode->flags & INODE_SPILLED);
        int result = check_names_of(fs, check, i);
        if (result == 0)
            result = check_eviction(check, i, inode);
        if (result < 0)
            return result;
    }
    if (clean != h->residency.clean_files || cold != h->residency.cold_files)
        return wrong(check, "%llu files are clean, %llu of them cold, the store counts %llu and %llu",
                     (unsigned long long)clean, (unsigned long long)cold, (unsigned long long)h->residency.clean_files,
                     (unsigned long long)h->residency.cold_files);
    if (evicted != h->residency.evicted || spilled != h->residency.spilled)
        return wrong(check, "%llu files are evicted and %llu spilled, the store counts %llu and %llu",
                     (unsigned long long)evicted, (unsigned long long)spilled, (unsigned long long)h->residency.evicted,
                     (unsigned long long)h->residency.spilled);
    if (count != h->tables.inodes.count || files != h->tree.files)
        return wrong(check, "%u inodes and %llu files are in use, the store counts %u and %llu", count,
                     (unsigned long long)files, h->tables.inodes.count, (unsigned long long)h->tree.files);
    if (dirty != h->tickets.dirty_files || dirty_bytes != h->tickets.dirty_bytes)
        return wrong(check, "%llu inodes with %llu bytes are dirty, the store counts %llu and %llu",
                     (unsigned long long)dirty, (unsigned long long)dirty_bytes,
                     (unsigned long long)h->tickets.dirty_files, (unsigned long long)h->tickets.dirty_bytes);
    return 0;
}

static int check_descriptions(struct fastspool *fs, struct check *check)
{
    const struct table *table = &fs->header->tables.descriptions;
    uint32_t count = 0, free = 0;

    for (uint32_t d = 1; d < table->used; d++) {
        const struct description *description = description_at(fs, d);
        count += description->state != DESCRIPTION_FREE;
        if (description->state != DESCRIPTION_OPEN)
            continue;
        if (!inode_valid(fs, description->inode) ||
            inode_at(fs, description->inode)->generation != description->generation)
            return wrong(check, "description %u leads to inode %u, which is not in use", d, description->inode);
        check->opens[description->inode]++;
    }
    for (uint32_t d = table->free; d; d = description_at(fs, d)->next_free) {
        if (d >= table->used || description_at(fs, d)->state != DESCRIPTION_FREE || free > table->used)
            return wrong(check, "the list of free descriptions leads to %u", d);
        free++;
    }
    return count == table->count && count + free == table->used - 1
               ? 0
               : wrong(check, "%u descriptions are in use and %u free, the table counts %u of %u", count, free,
                       table->count, table->used - 1);
}

/* ---- blocks ---- */

static int reach(struct fastspool *fs, struct check *check, uint32_t i, uint32_t block, uint32_t *count)
{
    if (block == 0)
        return 0;
    if (block / CHUNK_BLOCKS >= fs->header->blocks.chunks_used)
        return wrong(check, "inode %u leads to block %u, out of the chunks", i, block);
    if (check->reached[block]++)
        return wrong(check, "block %u belongs to inode %u and to another", block, i);
    check->blocks++;
    ++*count;
    return 0;
}

static int reach_index(struct fastspool *fs, struct check *check, uint32_t i, uint32_t block, int depth,
                       uint32_t *count)
{
    int result = reach(fs, check, i, block, count);

    for (uint32_t e = 0; block && e < INDEX_ENTRIES && result == 0; e++) {
        uint32_t entry = ((const uint32_t *)block_at(fs, block))[e];
        result = depth > 1 ? reach_index(fs, check, i, entry, depth - 1, count) : reach(fs, check, i, entry, count);
    }
    return result;
}

static int check_data(struct fastspool *fs, struct check *check)
{
    for (uint32_t i = 1; i < fs->header->tables.inodes.used; i++) {
        const struct inode *inode = inode_at(fs, i);
        uint32_t count = 0;
        int result = 0;
        if (!(inode->flags & INODE_USED) || S_ISDIR(inode->mode))
            continue;
        for (uint32_t e = 0; e < INODE_DIRECT && result == 0; e++)
            result = reach(fs, check, i, inode->map.direct[e], &count);
        if (result == 0)
            result = reach_index(fs, check, i, inode->map.indirect, 1, &count);
        if (result == 0)
            result = reach_index(fs, check, i, inode->map.double_indirect, 2, &count);
        if (result < 0)
            return result;
        if (count != inode->blocks)
            return wrong(check, "inode %u counts %u blocks, and has %u", i, inode->blocks, count);
        for (uint32_t e = (uint32_t)((inode->size + BLOCK_SIZE - 1) / BLOCK_SIZE); e < INODE_DIRECT; e++) {
            if (inode->map.direct[e])
                return wrong(check, "inode %u of %llu bytes has block %u", i, (unsigned long long)inode->size, e);
        }
    }
    return 0;
}

static int check_bitmap(struct fastspool *fs, struct check *check, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    uint32_t free = 0, held = 0;

    for (uint32_t b = 0; b < CHUNK_BLOCKS; b++) {
        uint64_t bit = UINT64_C(1) << b % 64;
        bool is_free = chunk->free[b / 64] & bit, is_held = chunk->held[b / 64] & bit;
        uint32_t block = number * CHUNK_BLOCKS + b;
        if (block != 0 && is_free + is_held + check->reached[block] != 1)
            return wrong(check, "block %u is %sfree, %sin quarantine, and reached %u times", block,
                         is_free ? "" : "not ", is_held ? "" : "not ", check->reached[block]);
        free += is_free;
        held += is_held;
    }
    return free == chunk->free_count && held == chunk->held_count
               ? 0
               : wrong(check, "chunk %u has %u free and %u held blocks, and counts %u and %u", number, free, held,
                       chunk->free_count, chunk->held_count);
}

static int check_chunk_lists(struct fastspool *fs, struct check *check, uint32_t *partial, uint32_t *held,
                             uint32_t *absent)
{
    const struct header *h = fs->header;
    uint32_t previous = 0;

    for (uint32_t link = h->blocks.chunks_partial; link; link = chunk_at(fs, link - 1)->next) {
        const struct chunk *chunk = chunk_at(fs, link - 1);
        if (link > h->blocks.chunks_used || chunk->prev != previous || chunk->state != CHUNK_PRESENT ||
            !chunk->free_count || ++*partial > h->blocks.chunks_used)
            return wrong(check, "chunk %u doesn't belong in the list of those with free blocks", link - 1);
        previous = link;
    }
    if (h->blocks.chunks_partial_tail != previous)
        return wrong(check, "the list of chunks with free blocks ends at %u, not at %u", previous,
                     h->blocks.chunks_partial_tail);
    for (uint32_t link = h->blocks.chunks_held; link; link = chunk_at(fs, link - 1)->held_next) {
        if (link > h->blocks.chunks_used || !chunk_at(fs, link - 1)->held_count || ++*held > h->blocks.chunks_used)
            return wrong(check, "chunk %u doesn't belong in the list of the quarantine", link - 1);
    }
    for (uint32_t link = h->blocks.chunks_absent; link; link = chunk_at(fs, link - 1)->next) {
        if (link > h->blocks.chunks_used || chunk_at(fs, link - 1)->state != CHUNK_ABSENT ||
            ++*absent > h->blocks.chunks_used)
            return wrong(check, "chunk %u doesn't belong in the list of absent ones", link - 1);
    }
    return 0;
}

static int check_chunks(struct fastspool *fs, struct check *check)
{
    const struct header *h = fs->header;
    uint32_t partial = 0, held = 0, absent = 0, present = 0, leaving = 0;
    uint64_t quarantined = 0;
    int result = check_chunk_lists(fs, check, &partial, &held, &absent);

    for (uint32_t c = 0; c < h->blocks.chunks_used && result == 0; c++) {
        const struct chunk *chunk = chunk_at(fs, c);
        partial -= chunk->state == CHUNK_PRESENT && chunk->free_count > 0;
        held -= chunk->state == CHUNK_PRESENT && chunk->held_count > 0;
        quarantined += chunk->state == CHUNK_PRESENT ? chunk->held_count : 0;
        absent -= chunk->state == CHUNK_ABSENT;
        leaving += chunk->state == CHUNK_LEAVING;
        present += chunk->state == CHUNK_PRESENT;
        if (chunk->state == CHUNK_PRESENT)
            result = check_bitmap(fs, check, c);
    }
    if (result < 0)
        return result;
    if (partial || held || absent)
        return wrong(check, "a chunk is missing in its list (%d, %d, %d)", (int)partial, (int)held, (int)absent);
    uint64_t total = (uint64_t)present * CHUNK_BLOCKS - (present && chunk_at(fs, 0)->state == CHUNK_PRESENT);
    uint64_t memory = table_bytes(h) + (uint64_t)(present + leaving) * CHUNK_SIZE;
    if (quarantined != h->blocks.held)
        return wrong(check, "%llu blocks are in quarantine, the store counts %llu", (unsigned long long)quarantined,
                     (unsigned long long)h->blocks.held);
    if (h->blocks.used != check->blocks || h->blocks.total != total || h->tables.memory_bytes != memory)
        return wrong(check,
                     "the store counts %llu of %llu blocks and %llu bytes of memory, and has %llu of %llu and %llu",
                     (unsigned long long)h->blocks.used, (unsigned long long)h->blocks.total,
                     (unsigned long long)h->tables.memory_bytes, (unsigned long long)check->blocks,
                     (unsigned long long)total, (unsigned long long)memory);
    return 0;
}

/* ---- all of it ---- */

static int check_all(struct fastspool *fs, void *argument)
{
    struct check *check = argument;
    const struct header *h = fs->header;

    if (h->section.undo_count != 0)
        return wrong(check, "%u undo records are left", h->section.undo_count);
    if (h->tables.inodes.used > h->tables.inodes.capacity ||
        h->tables.names.used > (h->tables.names.capacity ? h->tables.names.capacity : 1) ||
        h->tables.descriptions.used > (h->tables.descriptions.capacity ? h->tables.descriptions.capacity : 1))
        return wrong(check, "a table uses more than it has");
    if (!inode_valid(fs, h->tree.root) || !S_ISDIR(inode_at(fs, h->tree.root)->mode))
        return wrong(check, "there is no root");
    int result = check_descriptions(fs, check);
    if (result == 0)
        result = check_inode_lists(fs, check);
    if (result == 0)
        result = check_chains(fs, check);
    for (uint32_t i = 1; i < h->tables.inodes.used && result == 0; i++) {
        if (inode_valid(fs, i) && S_ISDIR(inode_at(fs, i)->mode))
            result = check_directory(fs, check, i);
    }
    if (result == 0)
        result = check_inodes(fs, check);
    if (result == 0)
        result = check_names(fs, check);
    if (result == 0)
        result = check_data(fs, check);
    return result == 0 ? check_chunks(fs, check) : result;
}

int check_segment(struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX])
{
    const struct header *h = fs->header;
    /* Memory is taken before the lock: what a table has now, and the little that it may grow meanwhile. */
    size_t inodes = LOAD(h->tables.inodes.capacity) + 65536, names = LOAD(h->tables.names.capacity) + 65536;
    size_t blocks = ((size_t)LOAD(h->blocks.chunks_used) + 64) * CHUNK_BLOCKS;
    struct check check = {
        .error = error,
        .opens = calloc(inodes, sizeof(uint32_t)),
        .subdirectories = calloc(inodes, sizeof(uint32_t)),
        .listed = calloc(inodes, sizeof(uint32_t)),
        .chained = calloc(names, 1),
        .reached = calloc(blocks, 1),
    };

    snprintf(error, FASTSPOOL_ERROR_MAX, "the store does not work");
    int result = change_run(fs, check_all, &check);
    free(check.opens);
    free(check.subdirectories);
    free(check.listed);
    free(check.chained);
    free(check.reached);
    return result;
}

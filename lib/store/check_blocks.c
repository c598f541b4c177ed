/* SPDX-License-Identifier: MIT
 *
 * The check of blocks and chunks.
 *
 * The happy path: from every file all of its blocks are reached, and counted; then each part of each block of each
 * chunk must be free, in quarantine or reached, exactly one of these; and what the store counts must be what there is.
 *
 * Failure modes: a block number out of the chunks is not followed, and an index block that was reached before is not
 * followed again.
 */
#include "base/findings.h"
#include "store/check_inside.h"
#include "store/layout.h"
#include "store/store.h"
#include "store/table.h"

#include <inttypes.h>

/* ---- the blocks of a file ---- */

/* One file's walk. */
struct reach {
    struct check *check;
    uint32_t inode;
    uint32_t parts; /* of blocks, reached */
    uint64_t end;   /* blocks that its size reaches */
};

/* False: it can't be followed. */
static bool reach_piece(struct reach *reach, uint32_t piece)
{
    struct check *check = reach->check;
    uint32_t block = piece_block(piece);

    if (piece == 0)
        return false;
    if (!piece_possible(piece) || block / CHUNK_BLOCKS >= check->extent.chunks) {
        findings_add(check->findings, "inode %u leads to block %u, out of the chunks", reach->inode, piece);
        return false;
    }
    uint8_t parts = (uint8_t)(((1u << piece_parts(piece)) - 1) << piece_first(piece));
    reach->parts += piece_parts(piece);
    if (check->reached[block] & parts) {
        findings_add(check->findings, "block %u belongs to inode %u and to another", block, reach->inode);
        check->reached[block] |= (uint8_t)(parts << BLOCK_PARTS);
        return false;
    }
    check->reached[block] |= parts;
    return true;
}

/* A block of data, the @index-th of the file. */
static void reach_data(struct reach *reach, uint32_t piece, uint64_t index)
{
    if (!reach_piece(reach, piece))
        return;
    if (index >= reach->end)
        findings_add(reach->check->findings, "inode %u, which ends at block %llu, has block %llu", reach->inode,
                     (unsigned long long)reach->end, (unsigned long long)index);
    if (index >= INODE_DIRECT && piece != piece_block(piece))
        findings_add(reach->check->findings, "block %llu of inode %u is not a whole one", (unsigned long long)index,
                     reach->inode);
}

static void reach_index(struct reach *reach, uint32_t block, int depth, uint64_t index)
{
    if (block != piece_block(block)) {
        findings_add(reach->check->findings, "inode %u leads to index block %u, out of the chunks", reach->inode,
                     block);
        return;
    }
    if (!reach_piece(reach, block))
        return;
    const uint32_t *entries = (const uint32_t *)piece_at(reach->check->fs, block);
    for (uint32_t e = 0; e < INDEX_ENTRIES; e++) {
        if (depth > 1)
            reach_index(reach, entries[e], depth - 1, index + (uint64_t)e * INDEX_ENTRIES);
        else
            reach_data(reach, entries[e], index + e);
    }
}

void check_blocks_of(struct check *check, uint32_t i)
{
    const struct inode *inode = inode_at(check->fs, i);
    struct reach reach = {check, i, 0, (inode->size + BLOCK_SIZE - 1) / BLOCK_SIZE};

    for (uint32_t e = 0; e < INODE_DIRECT; e++)
        reach_data(&reach, inode->map.direct[e], e);
    reach_index(&reach, inode->map.indirect, 1, INODE_DIRECT);
    reach_index(&reach, inode->map.double_indirect, 2, INODE_DIRECT + INDEX_ENTRIES);
    if (reach.parts != inode->parts)
        findings_add(check->findings, "inode %u counts %u parts of blocks, and has %u", i, inode->parts, reach.parts);
}

/* ---- chunks ---- */

/* What the lists and the states of chunks say, each to be compared with the other. */
struct tally {
    uint32_t partial, broken, held, absent, present, leaving;
    uint64_t quarantined, used; /* blocks */
};

/* The list of chunks with free blocks, or that of those with free parts of others.  How many are in it. */
static uint32_t check_free_list(struct check *check, bool broken)
{
    const struct list *list = broken ? &check->fs->header->blocks.broken : &check->fs->header->blocks.partial;
    const char *what = broken ? "parts" : "blocks";
    uint32_t previous = 0, listed = 0;

    for (uint32_t at = list->head; at;) {
        const struct chunk *chunk = chunk_at(check->fs, at - 1);
        const struct link *link = broken ? &chunk->broken : &chunk->partial;
        if (at > check->extent.chunks || link->prev != previous || chunk->state != CHUNK_PRESENT ||
            !(broken ? chunk->broken_count : chunk->free_count) || ++listed > check->extent.chunks) {
            findings_add(check->findings, "chunk %u doesn't belong in the list of those with free %s, behind %" PRId64,
                         at - 1, what, (int64_t)previous - 1);
            return listed;
        }
        previous = at;
        at = link->next;
    }
    if (list->tail != previous)
        findings_add(check->findings, "the list of chunks with free %s ends at %" PRId64 ", not at %" PRId64, what,
                     (int64_t)previous - 1, (int64_t)list->tail - 1);
    return listed;
}

static void check_other_lists(struct check *check, struct tally *listed)
{
    const struct header *h = check->fs->header;

    for (uint32_t link = h->blocks.chunks_held; link; link = chunk_at(check->fs, link - 1)->held_next) {
        if (link > check->extent.chunks || !chunk_at(check->fs, link - 1)->held_count ||
            ++listed->held > check->extent.chunks) {
            findings_add(check->findings, "chunk %u doesn't belong in the list of the quarantine", link - 1);
            break;
        }
    }
    for (uint32_t link = h->blocks.chunks_absent; link; link = chunk_at(check->fs, link - 1)->partial.next) {
        if (link > check->extent.chunks || chunk_at(check->fs, link - 1)->state != CHUNK_ABSENT ||
            ++listed->absent > check->extent.chunks) {
            findings_add(check->findings, "chunk %u doesn't belong in the list of absent ones", link - 1);
            break;
        }
    }
}

#define ALL_PARTS ((1u << BLOCK_PARTS) - 1)

/* The parts of one block: each is free, in quarantine or reached, and one of these. */
static void check_block(struct check *check, uint32_t block, unsigned free, unsigned held)
{
    unsigned reached = check->reached[block] & ALL_PARTS, again = check->reached[block] >> BLOCK_PARTS;
    unsigned wrong =
        again | (free & held) | (free & reached) | (held & reached) | (ALL_PARTS & ~(free | held | reached));

    if (block != 0 && wrong) {
        unsigned part = (unsigned)__builtin_ctz(wrong);
        findings_add(check->findings, "part %u of block %u is %sfree, %sin quarantine, and reached %u times", part,
                     block, free >> part & 1 ? "" : "not ", held >> part & 1 ? "" : "not ",
                     (reached >> part & 1) + (again >> part & 1));
    }
    if (block == 0 && (free || held))
        findings_add(check->findings, "block 0, which is nobody's, is free or in quarantine");
}

static void check_bitmap(struct check *check, uint32_t number, struct tally *tally)
{
    const struct chunk *chunk = chunk_at(check->fs, number);
    uint32_t free_blocks = 0, free_parts = 0, held_parts = 0;

    for (uint32_t b = 0; b < CHUNK_BLOCKS; b++) {
        const unsigned at = b * BLOCK_PARTS % 64, word = b * BLOCK_PARTS / 64;
        const unsigned free = chunk->free[word] >> at & ALL_PARTS, held = chunk->held[word] >> at & ALL_PARTS;
        check_block(check, number * CHUNK_BLOCKS + b, free, held);
        free_blocks += free == ALL_PARTS;
        free_parts += free == ALL_PARTS ? 0 : (uint32_t)__builtin_popcount(free);
        held_parts += (uint32_t)__builtin_popcount(held);
        tally->quarantined += held == ALL_PARTS;
        tally->used += free != ALL_PARTS && held != ALL_PARTS && (number > 0 || b > 0);
    }
    if (free_blocks != chunk->free_count || free_parts != chunk->broken_count || held_parts != chunk->held_count)
        findings_add(check->findings,
                     "chunk %u has %u free blocks, %u free parts of others and %u held ones, and counts %u, %u and %u",
                     number, free_blocks, free_parts, held_parts, chunk->free_count, chunk->broken_count,
                     chunk->held_count);
}

/* A chunk without memory holds nothing. */
static void check_no_blocks(struct check *check, uint32_t number)
{
    for (uint32_t b = number * CHUNK_BLOCKS; b < (number + 1) * CHUNK_BLOCKS; b++) {
        if (check->reached[b]) {
            findings_add(check->findings, "block %u is in use, and its chunk %u is not present", b, number);
            return;
        }
    }
}

static void count_chunk(struct check *check, uint32_t number, struct tally *tally)
{
    const struct chunk *chunk = chunk_at(check->fs, number);

    tally->absent += chunk->state == CHUNK_ABSENT;
    tally->leaving += chunk->state == CHUNK_LEAVING;
    if (chunk->state > CHUNK_LEAVING)
        findings_add(check->findings, "chunk %u has the state %u, which there is not", number, chunk->state);
    if (chunk->state != CHUNK_PRESENT) {
        check_no_blocks(check, number);
        return;
    }
    tally->present++;
    tally->partial += chunk->free_count > 0;
    tally->broken += chunk->broken_count > 0;
    tally->held += chunk->held_count > 0;
    check_bitmap(check, number, tally);
}

static void compare_list(struct check *check, const char *list, uint32_t listed, uint32_t there_are)
{
    if (listed != there_are)
        findings_add(check->findings, "%u chunks belong in the list of %s, and %u are in it", there_are, list, listed);
}

void check_chunks(struct check *check)
{
    const struct header *h = check->fs->header;
    struct tally listed = {0}, tally = {0};

    listed.partial = check_free_list(check, false);
    listed.broken = check_free_list(check, true);
    check_other_lists(check, &listed);
    for (uint32_t number = 0; number < check->extent.chunks; number++)
        count_chunk(check, number, &tally);
    compare_list(check, "those with free blocks", listed.partial, tally.partial);
    compare_list(check, "those with free parts", listed.broken, tally.broken);
    compare_list(check, "the quarantine", listed.held, tally.held);
    compare_list(check, "absent ones", listed.absent, tally.absent);
    bool first = check->extent.chunks > 0 && chunk_at(check->fs, 0)->state == CHUNK_PRESENT;
    check_count(check, "blocks in quarantine", tally.quarantined, h->blocks.held);
    check_count(check, "blocks in use", tally.used, h->blocks.used);
    check_count(check, "blocks in all", (uint64_t)tally.present * CHUNK_BLOCKS - first, h->blocks.total);
    check_count(check, "bytes of memory", table_bytes(h) + (uint64_t)(tally.present + tally.leaving) * CHUNK_SIZE,
                h->tables.memory_bytes);
}

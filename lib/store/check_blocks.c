/* SPDX-License-Identifier: MIT
 *
 * The check of blocks and chunks.
 *
 * The happy path: from every file all of its blocks are reached, and counted; then each block of each chunk must be
 * free, in quarantine or reached, exactly one of these; and what the store counts must be what there is.
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
    uint32_t count;
    uint64_t end; /* blocks that its size reaches */
};

/* False: it can't be followed. */
static bool reach_block(struct reach *reach, uint32_t block)
{
    struct check *check = reach->check;

    if (block == 0)
        return false;
    if (block / CHUNK_BLOCKS >= check->extent.chunks) {
        findings_add(check->findings, "inode %u leads to block %u, out of the chunks", reach->inode, block);
        return false;
    }
    reach->count++;
    if (check->reached[block]) {
        findings_add(check->findings, "block %u belongs to inode %u and to another", block, reach->inode);
        check->reached[block] = 2;
        return false;
    }
    check->reached[block] = 1;
    check->blocks++;
    return true;
}

/* A block of data, the @index-th of the file. */
static void reach_data(struct reach *reach, uint32_t block, uint64_t index)
{
    if (reach_block(reach, block) && index >= reach->end)
        findings_add(reach->check->findings, "inode %u, which ends at block %llu, has block %llu", reach->inode,
                     (unsigned long long)reach->end, (unsigned long long)index);
}

static void reach_index(struct reach *reach, uint32_t block, int depth, uint64_t index)
{
    if (!reach_block(reach, block))
        return;
    const uint32_t *entries = (const uint32_t *)block_at(reach->check->fs, block);
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
    if (reach.count != inode->blocks)
        findings_add(check->findings, "inode %u counts %u blocks, and has %u", i, inode->blocks, reach.count);
}

/* ---- chunks ---- */

/* What the lists and the states of chunks say, each to be compared with the other. */
struct tally {
    uint32_t partial, held, absent, present, leaving;
    uint64_t quarantined;
};

static void check_partial_list(struct check *check, struct tally *listed)
{
    const struct header *h = check->fs->header;
    uint32_t previous = 0;

    for (uint32_t link = h->blocks.chunks_partial; link; link = chunk_at(check->fs, link - 1)->next) {
        const struct chunk *chunk = chunk_at(check->fs, link - 1);
        if (link > check->extent.chunks || chunk->prev != previous || chunk->state != CHUNK_PRESENT ||
            !chunk->free_count || ++listed->partial > check->extent.chunks) {
            findings_add(check->findings,
                         "chunk %u doesn't belong in the list of those with free blocks, behind %" PRId64, link - 1,
                         (int64_t)previous - 1);
            return;
        }
        previous = link;
    }
    if (h->blocks.chunks_partial_tail != previous)
        findings_add(check->findings, "the list of chunks with free blocks ends at %" PRId64 ", not at %" PRId64,
                     (int64_t)previous - 1, (int64_t)h->blocks.chunks_partial_tail - 1);
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
    for (uint32_t link = h->blocks.chunks_absent; link; link = chunk_at(check->fs, link - 1)->next) {
        if (link > check->extent.chunks || chunk_at(check->fs, link - 1)->state != CHUNK_ABSENT ||
            ++listed->absent > check->extent.chunks) {
            findings_add(check->findings, "chunk %u doesn't belong in the list of absent ones", link - 1);
            break;
        }
    }
}

static void check_block(struct check *check, uint32_t block, bool free, bool held)
{
    uint8_t reached = check->reached[block];

    if (block != 0 && free + held + reached != 1)
        findings_add(check->findings, "block %u is %sfree, %sin quarantine, and reached %u times", block,
                     free ? "" : "not ", held ? "" : "not ", reached);
    if (block == 0 && (free || held))
        findings_add(check->findings, "block 0, which is nobody's, is free or in quarantine");
}

static void check_bitmap(struct check *check, uint32_t number)
{
    const struct chunk *chunk = chunk_at(check->fs, number);
    uint32_t free = 0, held = 0;

    for (uint32_t b = 0; b < CHUNK_BLOCKS; b++) {
        uint64_t bit = UINT64_C(1) << b % 64;
        bool is_free = chunk->free[b / 64] & bit, is_held = chunk->held[b / 64] & bit;
        check_block(check, number * CHUNK_BLOCKS + b, is_free, is_held);
        free += is_free;
        held += is_held;
    }
    if (free != chunk->free_count || held != chunk->held_count)
        findings_add(check->findings, "chunk %u has %u free and %u held blocks, and counts %u and %u", number, free,
                     held, chunk->free_count, chunk->held_count);
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
    tally->held += chunk->held_count > 0;
    tally->quarantined += chunk->held_count;
    check_bitmap(check, number);
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

    check_partial_list(check, &listed);
    check_other_lists(check, &listed);
    for (uint32_t number = 0; number < check->extent.chunks; number++)
        count_chunk(check, number, &tally);
    compare_list(check, "those with free blocks", listed.partial, tally.partial);
    compare_list(check, "the quarantine", listed.held, tally.held);
    compare_list(check, "absent ones", listed.absent, tally.absent);
    bool first = check->extent.chunks > 0 && chunk_at(check->fs, 0)->state == CHUNK_PRESENT;
    check_count(check, "blocks in quarantine", tally.quarantined, h->blocks.held);
    check_count(check, "blocks in use", check->blocks, h->blocks.used);
    check_count(check, "blocks in all", (uint64_t)tally.present * CHUNK_BLOCKS - first, h->blocks.total);
    check_count(check, "bytes of memory", table_bytes(h) + (uint64_t)(tally.present + tally.leaving) * CHUNK_SIZE,
                h->tables.memory_bytes);
}

/* SPDX-License-Identifier: MIT
 *
 * Compaction: a chunk that is hardly used becomes empty.
 *
 * Memory comes and goes by the chunk, but a file that is open, or not yet in the database, keeps its blocks where they
 * are: a few such blocks in each chunk, and memory is full of free blocks of which the tables cannot get one.
 * (Measured before there was compaction, 32 connections, `memory` 4M: 7 of 511 blocks in use, one at least in each
 * chunk, and senders waited ten seconds for a name, in vain.)  So where the tables want memory and no chunk is empty,
 * what the least used one still holds moves to the others.
 *
 * The happy path: blocks_to_vacate() names the chunk; its free blocks are taken last from now on; all files are looked
 * through for blocks of it (a file knows its blocks, a block does not know its file), and moved by some blocks a
 * section; then blocks_give_back() finds it empty.  Looking takes 40 ms for three million files (measured): it happens
 * once for a chunk, the memory of 5,000 names.
 *
 * A move works like a write over published bytes: the new block has the same content before the file leads to it.  A
 * reader without the lock sees the version change and reads again.
 *
 * Failure modes: no room in other chunks after all, or somebody takes a block of it meanwhile: it is tried again when
 * the mirror next looks.  Death: each section is done or not, and the file is whole either way.
 */
#include "mirror/compaction.h"

#include "store/blocks.h"
#include "store/change.h"
#include "store/data.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>

struct vacating {
    uint32_t inode;
    uint32_t chunk;
    uint32_t index; /* of the file's block to go on with */
};

static int take_last(struct fastspool *fs, void *argument)
{
    return blocks_take_last(fs, *(uint32_t *)argument);
}

/* Without the lock: may some of the file lie there?  Large files are looked through in their sections. */
static bool may_lie_in(const struct fastspool *fs, uint32_t i, uint32_t chunk)
{
    const struct inode *inode = inode_at(fs, i);

    if (LOAD(inode->parts) == 0)
        return false;
    if (LOAD(inode->size) > (uint64_t)INODE_DIRECT * BLOCK_SIZE)
        return true;
    for (unsigned n = 0; n < INODE_DIRECT; n++) {
        uint32_t piece = LOAD(inode->map.direct[n]);
        if (piece && piece_block(piece) / CHUNK_BLOCKS == chunk)
            return true;
    }
    return false;
}

static int vacate_step(struct fastspool *fs, void *argument)
{
    struct vacating *vacating = argument;
    const struct inode *inode = inode_at(fs, vacating->inode);

    if (!inode_valid(fs, vacating->inode) || !S_ISREG(inode->mode) || inode->parts == 0)
        return 0;
    return data_vacate(fs, vacating->inode, vacating->chunk, &vacating->index);
}

int compaction_vacate(struct fastspool *fs, uint32_t chunk)
{
    int result = change_run(fs, take_last, &chunk);

    for (uint32_t i = 1; result == 0 && i < LOAD(fs->header->tables.inodes.used) && i < INODES_MAX; i++) {
        struct vacating vacating = {i, chunk, 0};
        do
            result = may_lie_in(fs, i, chunk) ? change_run(fs, vacate_step, &vacating) : 0;
        while (result > 0);
    }
    return result == -ESTALE || result == -ENOSPC ? 0 : result;
}

int compaction_run(struct fastspool *fs)
{
    uint32_t chunk = blocks_to_vacate(fs);
    return chunk == CHUNKS_MAX ? 0 : compaction_vacate(fs, chunk);
}

/* SPDX-License-Identifier: MIT
 *
 * The content of files: its blocks, reading, writing, truncating.
 *
 * An inode leads to its blocks as in the classic Unix file system: to some directly, then through one index block, then
 * through an index block of index blocks.  Number 0 is a hole and reads as zeros.
 *
 * The direct blocks of a file may be pieces, with memory for their first 1, 2 or 3 kB only: what is written to a block
 * tells how much it gets.  What lies behind that is a hole.  So most of Exim's files take 1 kB, not 4.  A piece that
 * becomes too small is replaced like a block that is written over.  All other blocks are whole: a file that grows long
 * is not copied again and again.
 *
 * Three rules:
 *   - Published bytes (below inode.size) never change in place.  A write over them takes a new block and frees the old
 *     one.  So undoing the block numbers undoes a write.  A commit that copies blocks beside writers copies the
 *     instant that it captured.
 *   - Bytes of the last piece behind inode.size have no meaning.  An append fills them before it publishes the size.
 *     A change of the size over a gap fills the gap with zeros first.
 *   - A section that replaces or frees published blocks first stores its own number, header.section.sequence, as
 *     inode.version.  A reader without the lock uses its copy only if the version is no running section's, is the same
 *     afterwards, and no section was rolled back meanwhile: a rollback takes the version back too.  (With a version
 *     that was odd during the change alone, a reader returned bytes of writes that were rolled back, 3,183 times beside
 *     100,000 of them.)
 *
 * Failure modes:
 *   - No memory for a block: the section fails, and the file is as before.
 *   - An index block leads out of the chunks: the segment is damaged, and the call returns -EIO.
 *   - A reader sees the version change SECTION_READ_TRIES times: it reads under the lock.
 */
#include "store/data.h"

#include "base/clock.h"
#include "store/blocks.h"
#include "store/change.h"
#include "store/doubt.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/span.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>

#define DOUBLE_FIRST (INODE_DIRECT + INDEX_ENTRIES) /* first block of the double index block */

/* Entries that one section looks at while it frees or moves blocks, at most: some microseconds. */
#define SHRINK_LOOKS 8192u

/* Is it a whole block of a chunk? */
static bool valid_block(const struct fastspool *fs, uint32_t block)
{
    return block / CHUNK_BLOCKS < LOAD(fs->header->blocks.chunks_used) && block / CHUNK_BLOCKS < LOAD(fs->span.chunks);
}

static bool valid_piece(const struct fastspool *fs, uint32_t piece)
{
    return piece_possible(piece) && valid_block(fs, piece_block(piece));
}

uint32_t data_blocks(uint64_t size)
{
    return size > FILE_SIZE_MAX ? FILE_BLOCKS_MAX + 1 : (uint32_t)((size + BLOCK_SIZE - 1) / BLOCK_SIZE);
}

static const uint32_t *index_entries(const struct fastspool *fs, uint32_t block)
{
    return (const uint32_t *)piece_at(fs, block);
}

/* The slot with the number of block @index of the file.  NULL: an index block on the way is missing (or damaged), and
 * *@hole is the first block of the file that it would lead to. */
static const uint32_t *find_slot(const struct fastspool *fs, const struct inode *inode, uint32_t index, uint32_t *hole)
{
    if (index < INODE_DIRECT)
        return &inode->map.direct[index];
    uint32_t block = index < DOUBLE_FIRST ? inode->map.indirect : inode->map.double_indirect;
    *hole = index < DOUBLE_FIRST ? INODE_DIRECT : DOUBLE_FIRST;
    if (block == 0 || !valid_block(fs, block))
        return NULL;
    if (index < DOUBLE_FIRST)
        return &index_entries(fs, block)[index - INODE_DIRECT];
    uint32_t second = (index - DOUBLE_FIRST) / INDEX_ENTRIES;
    block = index_entries(fs, block)[second];
    *hole = DOUBLE_FIRST + second * INDEX_ENTRIES;
    if (block == 0 || !valid_block(fs, block))
        return NULL;
    return &index_entries(fs, block)[(index - DOUBLE_FIRST) % INDEX_ENTRIES];
}

uint32_t data_piece(const struct fastspool *fs, const struct inode *inode, uint32_t index)
{
    uint32_t hole;
    const uint32_t *slot = index < FILE_BLOCKS_MAX ? find_slot(fs, inode, index, &hole) : NULL;
    uint32_t piece = slot ? __atomic_load_n(slot, __ATOMIC_RELAXED) : 0;

    return piece && valid_piece(fs, piece) ? piece : 0;
}

/* ---- changing the map ---- */

/* Take an index block for *@entry, unless it has one. */
static int need_index(struct fastspool *fs, const struct inode *inode, const uint32_t *entry)
{
    uint32_t block;

    if (*entry)
        return valid_block(fs, *entry) ? 0 : section_damaged(fs, "an index block lies outside the chunks");
    int result = blocks_take(fs, BLOCK_SIZE, &block);
    if (result < 0)
        return result;
    memset(piece_bytes(fs, block), 0, BLOCK_SIZE);
    SET(fs, *entry, block);
    SET(fs, inode->parts, inode->parts + BLOCK_PARTS);
    return 0;
}

static int need_slot(struct fastspool *fs, const struct inode *inode, uint32_t index, const uint32_t **slot)
{
    uint32_t hole;
    int result = 0;

    if (index >= FILE_BLOCKS_MAX)
        return -EFBIG;
    if (index >= DOUBLE_FIRST) {
        result = need_index(fs, inode, &inode->map.double_indirect);
        if (result == 0) {
            const uint32_t *first = index_entries(fs, inode->map.double_indirect);
            result = need_index(fs, inode, &first[(index - DOUBLE_FIRST) / INDEX_ENTRIES]);
        }
    } else if (index >= INODE_DIRECT) {
        result = need_index(fs, inode, &inode->map.indirect);
    }
    if (result < 0)
        return result;
    *slot = find_slot(fs, inode, index, &hole);
    return *slot ? 0 : section_damaged(fs, "an index block leads nowhere");
}

void data_changes(struct fastspool *fs, const struct inode *inode)
{
    if (inode->version != fs->header->section.sequence)
        SET(fs, inode->version, fs->header->section.sequence);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* before any block number changes */
}

/* ---- writing ---- */

static uint32_t lesser(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* Bytes of a piece; of a hole none. */
static uint32_t room_of(uint32_t piece)
{
    return piece ? piece_size(piece) : 0;
}

/* Take a piece for @size bytes of block @index of a file. */
static int take_for(struct fastspool *fs, uint32_t index, uint32_t size, uint32_t *piece)
{
    return blocks_take(fs, index < INODE_DIRECT ? size : BLOCK_SIZE, piece);
}

/* The file leads to piece @new instead of @old, which may be 0.  The caller frees @old. */
static void replace(struct fastspool *fs, const struct inode *inode, const uint32_t *slot, uint32_t old, uint32_t new)
{
    if (room_of(old) == room_of(new))
        SET(fs, *slot, new);
    else
        SET_PAIR(fs, *slot, new, inode->parts, inode->parts + piece_parts(new) - (old ? piece_parts(old) : 0));
}

/* Write bytes [@from, @from + @size) of block @index, in a file of @published bytes.  *@replaced: the piece that it
 * replaces.  The caller frees it when the section takes no more of them: its bytes must stay in case the section fails.
 */
static int write_block(struct fastspool *fs, const struct inode *inode, uint32_t index, uint32_t from,
                       const char *bytes, uint32_t size, uint64_t published, uint32_t *replaced)
{
    const uint64_t start = (uint64_t)index * BLOCK_SIZE;
    const uint32_t valid = published <= start ? 0 : lesser(published - start, BLOCK_SIZE), end = from + size;
    const uint32_t *slot;
    int result = need_slot(fs, inode, index, &slot);

    if (result < 0)
        return result;
    const uint32_t old = LOAD(*slot);
    if (old && !valid_piece(fs, old))
        return section_damaged(fs, "a file leads to a block outside the chunks");
    if (from >= valid && end <= room_of(old)) {
        char *to = piece_bytes(fs, old);
        memset(to + valid, 0, from - valid);
        memcpy(to + from, bytes, size);
        return 0;
    }
    const uint32_t kept = lesser(valid, room_of(old));
    uint32_t new;
    result = take_for(fs, index, kept > end ? kept : end, &new);
    if (result < 0)
        return result;
    char *to = piece_bytes(fs, new);
    if (kept > 0) {
        data_changes(fs, inode);
        memcpy(to, piece_at(fs, old), kept);
    }
    /* What the old piece had no room for was zeros, before the bytes and behind them. */
    if (kept < from)
        memset(to + kept, 0, from - kept);
    memcpy(to + from, bytes, size);
    const uint32_t filled = kept > end ? kept : end;
    if (filled < valid)
        memset(to + filled, 0, room_of(new) - filled);
    replace(fs, inode, slot, old, new);
    *replaced = old;
    return 0;
}

/* Fill the last piece behind @published with zeros, before the size moves over a gap. */
static void zero_tail(struct fastspool *fs, const struct inode *inode, uint64_t published)
{
    uint32_t used = (uint32_t)(published % BLOCK_SIZE);
    uint32_t piece = used ? data_piece(fs, inode, (uint32_t)(published / BLOCK_SIZE)) : 0;

    if (used < room_of(piece))
        memset(piece_bytes(fs, piece) + used, 0, room_of(piece) - used);
}

int data_write(struct fastspool *fs, uint32_t i, const void *buffer, size_t size, uint64_t offset)
{
    const struct inode *inode = inode_at(fs, i);
    const uint64_t published = LOAD(inode->size); /* once: it may change after the check */
    bool replaces = offset < published;
    const char *bytes = buffer;
    uint32_t replaced[DATA_STEP / BLOCK_SIZE + 1] = {0};
    size_t blocks = 0;

    if (offset > FILE_SIZE_MAX || size > FILE_SIZE_MAX - offset)
        return -EFBIG;
    if (published > FILE_SIZE_MAX)
        return doubt("a file is larger than a file can be");
    if (offset > published)
        zero_tail(fs, inode, published);
    if (replaces)
        data_changes(fs, inode);
    for (size_t done = 0; done < size;) {
        uint32_t index = (uint32_t)((offset + done) / BLOCK_SIZE);
        uint32_t from = (uint32_t)((offset + done) % BLOCK_SIZE);
        uint32_t part = size - done < BLOCK_SIZE - from ? (uint32_t)(size - done) : BLOCK_SIZE - from;
        int result = write_block(fs, inode, index, from, bytes + done, part, published, &replaced[blocks++]);
        if (result < 0)
            return result;
        done += part;
    }
    while (blocks > 0) {
        if (replaced[--blocks])
            blocks_give(fs, replaced[blocks]);
    }
    const uint64_t now = clock_realtime();
    SET_PAIR(fs, inode->mtime, now, inode->ctime, now);
    /* A gap is dirty too: the disk may still hold bytes there that a truncation has removed. */
    uint64_t from = offset < published ? offset : published;
    inodes_dirty_data(fs, i, (uint32_t)(from / BLOCK_SIZE), data_blocks(offset + size));
    if (offset + size > published)
        SET(fs, inode->size, offset + size);
    return 0;
}

/* ---- freeing ---- */

static void free_index(struct fastspool *fs, const struct inode *inode, const uint32_t *entry)
{
    if (*entry == 0)
        return;
    blocks_give(fs, *entry);
    SET(fs, *entry, 0);
    SET(fs, inode->parts, inode->parts - BLOCK_PARTS);
}

/* Blocks from @end on are free.  Free the index blocks that led only to them. */
static void free_indexes(struct fastspool *fs, const struct inode *inode, uint32_t end)
{
    if (end <= INODE_DIRECT)
        free_index(fs, inode, &inode->map.indirect);
    if (end >= DOUBLE_FIRST && inode->map.double_indirect && (end - DOUBLE_FIRST) % INDEX_ENTRIES == 0) {
        const uint32_t *first = index_entries(fs, inode->map.double_indirect);
        free_index(fs, inode, &first[(end - DOUBLE_FIRST) / INDEX_ENTRIES]);
    }
    if (end <= DOUBLE_FIRST)
        free_index(fs, inode, &inode->map.double_indirect);
}

int data_shrink(struct fastspool *fs, uint32_t i, uint32_t to, uint32_t most)
{
    const struct inode *inode = inode_at(fs, i);
    uint32_t end = data_blocks(inode->size);
    uint32_t looks = 0;

    if (end > FILE_BLOCKS_MAX)
        return section_damaged(fs, "a file is larger than a file can be");
    data_changes(fs, inode);
    while (end > to && most > 0 && looks < SHRINK_LOOKS) {
        uint32_t hole = 0;
        const uint32_t *slot = find_slot(fs, inode, end - 1, &hole);
        looks++;
        if (!slot) {
            end = hole > to ? hole : to;
        } else {
            const uint32_t piece = LOAD(*slot);
            if (piece) {
                blocks_give(fs, piece);
                SET_PAIR(fs, *slot, 0, inode->parts, inode->parts - piece_parts(piece));
                most--;
            }
            end--;
        }
        if (inode->map.indirect || inode->map.double_indirect)
            free_indexes(fs, inode, end);
    }
    if ((uint64_t)end * BLOCK_SIZE < inode->size)
        SET(fs, inode->size, (uint64_t)end * BLOCK_SIZE);
    return end > to;
}

bool data_small(const struct inode *inode)
{
    return inode->parts <= DATA_FREE_STEP * BLOCK_PARTS && data_blocks(inode->size) <= SHRINK_LOOKS;
}

/* Cut a file to @size: free at most DATA_FREE_STEP blocks (1: there is more to free).  A new piece replaces the last
 * one, because its published bytes behind @size must not come back.  The new piece is taken before any is freed: the
 * bytes of a freed one must stay in case the section fails. */
static int cut(struct fastspool *fs, uint32_t i, uint64_t size)
{
    const struct inode *inode = inode_at(fs, i);
    uint32_t last = (uint32_t)(size / BLOCK_SIZE), used = (uint32_t)(size % BLOCK_SIZE);
    uint32_t hole, new = 0;
    const uint32_t *slot = used ? find_slot(fs, inode, last, &hole) : NULL;
    const uint32_t old = slot ? LOAD(*slot) : 0;

    if (old && !valid_piece(fs, old))
        return section_damaged(fs, "a file leads to a block outside the chunks");
    const uint32_t kept = lesser(used, room_of(old));
    int result = old ? take_for(fs, last, kept, &new) : 0;
    if (result == 0)
        result = data_shrink(fs, i, data_blocks(size), DATA_FREE_STEP);
    if (result < 0 || old == 0)
        return result;
    if (result > 0) {
        blocks_give(fs, new);
        return result;
    }
    memcpy(piece_bytes(fs, new), piece_at(fs, old), kept);
    data_changes(fs, inode);
    replace(fs, inode, slot, old, new);
    blocks_give(fs, old);
    return 0;
}

int data_truncate(struct fastspool *fs, uint32_t i, uint64_t size)
{
    const struct inode *inode = inode_at(fs, i);
    uint64_t before = inode->size;
    int more = 0;

    if (size > FILE_SIZE_MAX)
        return -EFBIG;
    if (size > before) {
        zero_tail(fs, inode, before);
    } else if (size < before) {
        more = cut(fs, i, size);
        if (more < 0)
            return more;
    }
    const uint64_t now = clock_realtime();
    SET_PAIR(fs, inode->mtime, now, inode->ctime, now);
    uint64_t low = size < before ? size : before;
    uint64_t high = size < before ? before : size;
    if (low != high)
        inodes_dirty_data(fs, i, (uint32_t)(low / BLOCK_SIZE), data_blocks(high));
    else
        inodes_dirty(fs, i);
    if (more == 0)
        SET(fs, inode->size, size);
    return more;
}

/* ---- eviction and page-in ---- */

int data_empty(struct fastspool *fs, uint32_t i, uint32_t most)
{
    const struct inode *inode = inode_at(fs, i);
    uint64_t size = inode->size;
    int result = data_shrink(fs, i, 0, most);

    if (inode->size != size)
        SET(fs, inode->size, size);
    if (result == 0 && inode->parts > 0)
        return section_damaged(fs, "a file has blocks behind its end");
    return result;
}

/* Fill block @index with @size bytes; zeros at their end need no memory.  The block has a piece already, maybe a
 * shorter one, if the file lost only some of its blocks, or a mirror died in an earlier page-in.  (That one may be
 * overwritten in this section: if it fails, the file is still evicted.) */
static int load_block(struct fastspool *fs, const struct inode *inode, uint32_t index, const char *bytes, uint32_t size)
{
    const uint32_t *slot;
    int result = need_slot(fs, inode, index, &slot);

    if (result < 0)
        return result;
    const uint32_t old = LOAD(*slot);
    uint32_t piece = old;
    if (old && !valid_piece(fs, old))
        return section_damaged(fs, "a file leads to a block outside the chunks");
    while (size > 0 && bytes[size - 1] == 0)
        size--;
    if (room_of(old) < size) {
        result = take_for(fs, index, size, &piece);
        if (result < 0)
            return result;
        replace(fs, inode, slot, old, piece);
        if (old)
            blocks_give(fs, old);
    }
    if (piece) {
        memcpy(piece_bytes(fs, piece), bytes, size);
        memset(piece_bytes(fs, piece) + size, 0, room_of(piece) - size);
    }
    return 0;
}

int data_load(struct fastspool *fs, uint32_t i, const void *buffer, size_t size, uint64_t offset)
{
    const struct inode *inode = inode_at(fs, i);

    for (size_t done = 0; done < size; done += BLOCK_SIZE) {
        int result = load_block(fs, inode, (uint32_t)((offset + done) / BLOCK_SIZE), (const char *)buffer + done,
                                lesser(size - done, BLOCK_SIZE));
        if (result < 0)
            return result;
    }
    return 0;
}

/* ---- compaction ---- */

#define VACATE_MOVES 16u /* blocks or pieces that one section moves */

struct moving {
    struct fastspool *fs;
    const struct inode *inode;
    uint32_t chunk;
    uint32_t moves;
};

/* Move the piece of *@slot if it lies in the chunk. */
static int move_piece(struct moving *moving, const uint32_t *slot)
{
    const uint32_t old = LOAD(*slot);
    uint32_t new;

    if (old == 0 || piece_block(old) / CHUNK_BLOCKS != moving->chunk)
        return 0;
    if (!valid_piece(moving->fs, old))
        return section_damaged(moving->fs, "a file leads to a block outside the chunks");
    int result = blocks_take_elsewhere(moving->fs, room_of(old), moving->chunk, &new);
    if (result < 0)
        return result;
    memcpy(piece_bytes(moving->fs, new), piece_at(moving->fs, old), room_of(old));
    SET(moving->fs, *slot, new);
    blocks_give(moving->fs, old);
    moving->moves++;
    return 0;
}

/* Move the index blocks whose first block is block @index of the file. */
static int move_indexes(struct moving *moving, uint32_t index)
{
    if (index == INODE_DIRECT)
        return move_piece(moving, &moving->inode->map.indirect);
    if (index < DOUBLE_FIRST || (index - DOUBLE_FIRST) % INDEX_ENTRIES != 0)
        return 0;
    int result = index == DOUBLE_FIRST ? move_piece(moving, &moving->inode->map.double_indirect) : 0;
    uint32_t block = moving->inode->map.double_indirect;
    if (result < 0 || block == 0)
        return result;
    if (!valid_block(moving->fs, block))
        return section_damaged(moving->fs, "an index block lies outside the chunks");
    return move_piece(moving, &index_entries(moving->fs, block)[(index - DOUBLE_FIRST) / INDEX_ENTRIES]);
}

int data_vacate(struct fastspool *fs, uint32_t i, uint32_t chunk, uint32_t *index)
{
    const struct inode *inode = inode_at(fs, i);
    struct moving moving = {fs, inode, chunk, 0};
    uint32_t at = *index, end = data_blocks(inode->size), looks = 0, hole;

    if (end > FILE_BLOCKS_MAX)
        return section_damaged(fs, "a file is larger than a file can be");
    data_changes(fs, inode);
    for (; at < end && moving.moves < VACATE_MOVES && looks < SHRINK_LOOKS; at++, looks++) {
        int result = move_indexes(&moving, at);
        const uint32_t *slot = result < 0 ? NULL : find_slot(fs, inode, at, &hole);
        if (slot)
            result = move_piece(&moving, slot);
        if (result < 0)
            return result;
    }
    *index = at;
    return at < end;
}

/* ---- reading ---- */

static void copy_out(const struct fastspool *fs, const struct inode *inode, char *bytes, size_t size, uint64_t offset)
{
    for (size_t done = 0; done < size;) {
        uint32_t from = (uint32_t)((offset + done) % BLOCK_SIZE);
        uint32_t piece = data_piece(fs, inode, (uint32_t)((offset + done) / BLOCK_SIZE));
        uint32_t part = lesser(size - done, BLOCK_SIZE - from);
        uint32_t there = from < room_of(piece) ? lesser(part, room_of(piece) - from) : 0;
        if (there > 0)
            memcpy(bytes + done, piece_at(fs, piece) + from, there);
        memset(bytes + done + there, 0, part - there);
        done += part;
    }
}

/* One try.  -EAGAIN: blocks of the file changed meanwhile. */
static ssize_t read_once(struct fastspool *fs, uint32_t i, uint32_t generation, char *bytes, size_t size,
                         uint64_t offset, bool locked)
{
    if (span_follow(fs) < 0)
        return -ENOMEM;
    const struct inode *inode = inode_at(fs, i);
    /* In this order: a section that ends between two of the loads has left its version, or counts as a rollback. */
    uint32_t rollbacks = LOAD(fs->header->section.rollbacks), version = LOAD(inode->version);
    bool changing = version == LOAD(fs->header->section.sequence) || (rollbacks & 1);

    if (!inode_valid(fs, i) || LOAD(inode->generation) != generation)
        return section_damaged(fs, "a description leads to no file");
    if (changing && !locked)
        return -EAGAIN;
    uint64_t end = LOAD(inode->size);
    if (end > FILE_SIZE_MAX) /* whoever reads to the end would never get there */
        return doubt("a file is larger than a file can be");
    if (offset >= end)
        return 0;
    if (span_follow(fs) < 0) /* after the size, which counts only what lies in chunks that are counted, too */
        return -ENOMEM;
    if (size > end - offset)
        size = end - offset;
    copy_out(fs, inode, bytes, size, offset);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&inode->version, __ATOMIC_RELAXED) != version ||
        __atomic_load_n(&fs->header->section.rollbacks, __ATOMIC_RELAXED) != rollbacks)
        return -EAGAIN;
    return (ssize_t)size;
}

struct locked_read {
    uint32_t inode;
    uint32_t generation;
    char *bytes;
    size_t size;
    uint64_t offset;
};

static int read_locked(struct fastspool *fs, void *argument)
{
    const struct locked_read *read = argument;
    return (int)read_once(fs, read->inode, read->generation, read->bytes, read->size, read->offset, true);
}

ssize_t data_read(struct fastspool *fs, uint32_t i, uint32_t generation, void *buffer, size_t size, uint64_t offset)
{
    ssize_t result = -EAGAIN;

    for (unsigned tries = 0; tries < SECTION_READ_TRIES && result == -EAGAIN; tries++)
        result = read_once(fs, i, generation, buffer, size, offset, false);
    if (result != -EAGAIN)
        return result < 0 ? doubt_settle(fs, (int)result) : result;
    struct locked_read read = {i, generation, buffer, size < DATA_STEP ? size : DATA_STEP, offset};
    return change_run(fs, read_locked, &read);
}

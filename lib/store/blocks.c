/* SPDX-License-Identifier: MIT
 *
 * Blocks: the memory that the content of files lies in.
 *
 * A chunk is 256 blocks with a bitmap; memory comes and goes by the chunk.  The happy path: blocks_take() takes the
 * first free block of the first chunk that has one; blocks_give() sets its bit again.  While a commit copies data
 * (header.tickets.committing), what is given goes into quarantine, so that no message ever shows another's bytes on the
 * disk; blocks_release_held() ends it.
 *
 * Failure modes: no chunk has a free block: the section asks for one more (TABLE_CHUNKS), which is fallocated
 * outside the lock; two processes may take memory for the same chunk, and the second finds it present, or the limit
 * reached: then that memory waits for the next who needs a chunk.  A chunk that
 * has been empty for EMPTY_TIME is given back by the mirror: first it leaves the lists, then its memory goes, then
 * it is absent; a mirror that dies in between leaves it LEAVING, and the next one goes on from there.
 *
 * Data grows by the chunk and is passed through, names and inodes grow by small steps and stay: data would take all
 * there is, use it again and again, and leave them nothing.  So the last part of the limit, header.reserve, is theirs
 * alone, and where they have taken of it, or found no memory, an empty chunk leaves the lists at once; where none is
 * empty, one is made so (compaction.c).
 */
#include "store/blocks.h"

#include "base/clock.h"
#include "base/fd.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>

/* How long a chunk must have been empty before its memory goes: longer than any reader without the lock looks at a
 * block whose number it has just read (a hole would be filled anew by its look). */
#define EMPTY_TIME (2 * NS_PER_S)

/* Chunks whose quarantine one section ends. */
#define RELEASE_STEP 64

#define WORDS (CHUNK_BLOCKS / 64)

/* Lists of chunks hold chunk number + 1. */
static const struct chunk *listed(const struct fastspool *fs, uint32_t link)
{
    return link >= 1 && link <= CHUNKS_MAX ? chunk_at(fs, link - 1) : NULL;
}

/* Block 0 means "none" everywhere and is never handed out. */
static uint32_t usable_blocks(uint32_t number)
{
    return number == 0 ? CHUNK_BLOCKS - 1 : CHUNK_BLOCKS;
}

/* Last in the list: a chunk that eviction has just begun to empty gets the time to become empty as a whole. */
static void partial_insert(struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    const struct chunk *tail = listed(fs, fs->header->blocks.chunks_partial_tail);

    SET(fs, chunk->next, 0);
    SET(fs, chunk->prev, fs->header->blocks.chunks_partial_tail);
    if (tail)
        SET(fs, tail->next, number + 1);
    else
        SET(fs, fs->header->blocks.chunks_partial, number + 1);
    SET(fs, fs->header->blocks.chunks_partial_tail, number + 1);
}

static void partial_remove(struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    const struct chunk *next = listed(fs, chunk->next);
    const struct chunk *prev = listed(fs, chunk->prev);

    if (next)
        SET(fs, next->prev, chunk->prev);
    else
        SET(fs, fs->header->blocks.chunks_partial_tail, chunk->prev);
    if (prev)
        SET(fs, prev->next, chunk->next);
    else
        SET(fs, fs->header->blocks.chunks_partial, chunk->next);
}

uint64_t blocks_spare(const struct header *h)
{
    return LOAD(h->blocks.total) - LOAD(h->blocks.used) - LOAD(h->blocks.held);
}

int blocks_take(struct fastspool *fs, uint32_t *block)
{
    const struct header *h = fs->header;
    uint32_t link = h->blocks.chunks_partial;

    if (link == 0 || (!fs->mirror && blocks_spare(h) <= h->reserve))
        return section_want(TABLE_CHUNKS);
    const struct chunk *chunk = listed(fs, link);
    if (!chunk || chunk->state != CHUNK_PRESENT)
        return section_damaged(fs, "the list of chunks with free blocks leads nowhere");
    for (unsigned word = 0; word < WORDS; word++) {
        if (chunk->free[word] == 0)
            continue;
        unsigned bit = (unsigned)__builtin_ctzll(chunk->free[word]);
        SET(fs, chunk->free[word], chunk->free[word] & ~(UINT64_C(1) << bit));
        SET(fs, chunk->free_count, chunk->free_count - 1);
        SET(fs, fs->header->blocks.used, fs->header->blocks.used + 1);
        if (chunk->free_count == 0)
            partial_remove(fs, link - 1);
        *block = (link - 1) * CHUNK_BLOCKS + word * 64 + bit;
        return 0;
    }
    return section_damaged(fs, "a chunk counts free blocks and has none");
}

/* Set free bits of a chunk; @count is how many of them. */
static void make_free(struct fastspool *fs, uint32_t number, unsigned word, uint64_t bits, uint32_t count)
{
    const struct chunk *chunk = chunk_at(fs, number);

    SET(fs, chunk->free[word], chunk->free[word] | bits);
    if (chunk->free_count == 0)
        partial_insert(fs, number);
    SET(fs, chunk->free_count, chunk->free_count + count);
    if (chunk->free_count == usable_blocks(number))
        SET(fs, chunk->emptied, clock_monotonic());
}

static void hold(struct fastspool *fs, uint32_t number, unsigned word, uint64_t bit)
{
    const struct chunk *chunk = chunk_at(fs, number);

    if (chunk->held_count == 0) {
        SET(fs, chunk->held_next, fs->header->blocks.chunks_held);
        SET(fs, fs->header->blocks.chunks_held, number + 1);
    }
    SET(fs, chunk->held[word], chunk->held[word] | bit);
    SET(fs, chunk->held_count, chunk->held_count + 1);
    SET(fs, fs->header->blocks.held, fs->header->blocks.held + 1);
}

void blocks_give(struct fastspool *fs, uint32_t block)
{
    uint32_t number = block / CHUNK_BLOCKS;
    unsigned word = block % CHUNK_BLOCKS / 64;
    uint64_t bit = UINT64_C(1) << block % 64;

    if (block == 0 || number >= fs->header->blocks.chunks_used || (chunk_at(fs, number)->free[word] & bit)) {
        section_damaged(fs, "a block is freed that is not in use");
        return;
    }
    SET(fs, fs->header->blocks.used, fs->header->blocks.used - 1);
    if (fs->header->tickets.committing)
        hold(fs, number, word, bit);
    else
        make_free(fs, number, word, bit, 1);
}

/* ---- the quarantine ---- */

static int release_step(struct fastspool *fs, void *argument)
{
    (void)argument;
    for (int step = 0; step < RELEASE_STEP && fs->header->blocks.chunks_held; step++) {
        uint32_t number = fs->header->blocks.chunks_held - 1;
        const struct chunk *chunk = listed(fs, number + 1);
        if (!chunk)
            return section_damaged(fs, "the list of chunks with quarantined blocks leads nowhere");
        for (unsigned word = 0; word < WORDS; word++) {
            if (chunk->held[word] == 0)
                continue;
            make_free(fs, number, word, chunk->held[word], (uint32_t)__builtin_popcountll(chunk->held[word]));
            SET(fs, chunk->held[word], 0);
        }
        SET(fs, fs->header->blocks.held, fs->header->blocks.held - chunk->held_count);
        SET(fs, chunk->held_count, 0);
        SET(fs, fs->header->blocks.chunks_held, chunk->held_next);
    }
    return fs->header->blocks.chunks_held != 0;
}

int blocks_release_held(struct fastspool *fs)
{
    int result;
    do
        result = section_run(fs, release_step, NULL);
    while (result > 0);
    return result;
}

/* ---- chunks come and go ---- */

struct candidate {
    uint32_t number;
    uint32_t epoch;
};

/* Memory that data may take: all but what the tables need next.  The first chunk is everybody's. */
static uint64_t data_limit(const struct header *h)
{
    uint64_t limit = LOAD(h->memory_limit), tables = LOAD(h->blocks.total) ? h->reserve * BLOCK_SIZE : 0;
    return limit > tables ? limit - tables : 0;
}

/* The chunk to be taken next: one that was given back, else the first never taken. */
static int choose_chunk(struct fastspool *fs, void *argument)
{
    struct candidate *candidate = argument;
    const struct header *h = fs->header;

    candidate->number = h->blocks.chunks_absent ? h->blocks.chunks_absent - 1 : h->blocks.chunks_used;
    if (candidate->number >= CHUNKS_MAX)
        return -ENOSPC;
    candidate->epoch = h->blocks.chunks_absent ? chunk_at(fs, candidate->number)->epoch : 0;
    return 0;
}

static int add_chunk(struct fastspool *fs, void *argument)
{
    const struct candidate *candidate = argument;
    const struct header *h = fs->header;
    const struct chunk *chunk = chunk_at(fs, candidate->number);

    if (h->tables.memory_bytes + CHUNK_SIZE > data_limit(h))
        return -EAGAIN; /* others were faster: what was taken waits, for whoever needs a chunk next */
    if (h->blocks.chunks_absent == candidate->number + 1 && chunk->epoch == candidate->epoch)
        SET(fs, h->blocks.chunks_absent, chunk->next);
    else if (h->blocks.chunks_absent == 0 && h->blocks.chunks_used == candidate->number)
        SET(fs, h->blocks.chunks_used, candidate->number + 1);
    else
        return 0; /* another process was faster: look again */
    for (unsigned word = 0; word < WORDS; word++) {
        uint64_t bits = ~UINT64_C(0) - (candidate->number == 0 && word == 0); /* block 0 is never free */
        SET(fs, chunk->free[word], bits);
        SET(fs, chunk->held[word], 0);
    }
    SET(fs, chunk->state, CHUNK_PRESENT);
    SET(fs, chunk->free_count, usable_blocks(candidate->number));
    SET(fs, chunk->emptied, clock_monotonic());
    partial_insert(fs, candidate->number);
    SET(fs, h->blocks.total, h->blocks.total + usable_blocks(candidate->number));
    SET(fs, h->tables.memory_bytes, h->tables.memory_bytes + CHUNK_SIZE);
    return 0;
}

int blocks_add_chunk(struct fastspool *fs)
{
    struct candidate candidate;
    int result;

    if (LOAD(fs->header->tables.memory_bytes) + CHUNK_SIZE > data_limit(fs->header))
        return -EAGAIN;
    result = section_run(fs, choose_chunk, &candidate);
    if (result < 0)
        return result;
    /* The memory of the chunk's own entry first, a page of the table at a time. */
    uint64_t entry = CHUNKS_AT + (uint64_t)candidate.number * sizeof(struct chunk);
    result = fd_take_room(fs->segment_fd, entry / BLOCK_SIZE * BLOCK_SIZE, BLOCK_SIZE);
    if (result == 0)
        result = fd_take_room(fs->segment_fd, DATA_AT + (uint64_t)candidate.number * CHUNK_SIZE, CHUNK_SIZE);
    return result < 0 ? result : section_run(fs, add_chunk, &candidate);
}

static bool is_empty(const struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    return chunk->state == CHUNK_PRESENT && chunk->free_count == usable_blocks(number);
}

static bool for_long(const struct fastspool *fs, uint32_t number)
{
    return clock_monotonic() - chunk_at(fs, number)->emptied >= EMPTY_TIME;
}

static int begin_leaving(struct fastspool *fs, void *argument)
{
    uint32_t number = *(uint32_t *)argument;
    const struct chunk *chunk = chunk_at(fs, number);

    if (!is_empty(fs, number))
        return 0;
    partial_remove(fs, number);
    SET(fs, chunk->state, CHUNK_LEAVING);
    SET(fs, chunk->free_count, 0);
    SET(fs, chunk->epoch, chunk->epoch + 1);
    SET(fs, fs->header->blocks.total, fs->header->blocks.total - usable_blocks(number));
    return 1;
}

static int end_leaving(struct fastspool *fs, void *argument)
{
    uint32_t number = *(uint32_t *)argument;
    const struct chunk *chunk = chunk_at(fs, number);

    SET(fs, chunk->state, CHUNK_ABSENT);
    SET(fs, chunk->next, fs->header->blocks.chunks_absent);
    SET(fs, fs->header->blocks.chunks_absent, number + 1);
    SET(fs, fs->header->tables.memory_bytes, fs->header->tables.memory_bytes - CHUNK_SIZE);
    return 0;
}

/* Do the tables want a chunk's memory (or has the limit become smaller), and can data do without?  @leaving: bytes that
 * are already on their way. */
static bool tables_want(const struct header *h, uint64_t leaving)
{
    return (LOAD(h->tables.memory_bytes) > data_limit(h) + leaving ||
            (LOAD(h->blocks.tables_wanted) && leaving == 0)) &&
           blocks_spare(h) >= h->reserve + CHUNK_BLOCKS;
}

/* May an empty chunk go? */
static bool may_leave(const struct fastspool *fs, uint32_t number, uint64_t keep, uint64_t leaving)
{
    bool spare = blocks_spare(fs->header) * BLOCK_SIZE >= keep + CHUNK_SIZE;

    return is_empty(fs, number) && (tables_want(fs->header, leaving) || (for_long(fs, number) && spare));
}

/* Bytes of the chunks that are on their way back. */
static uint64_t leaving_bytes(const struct fastspool *fs)
{
    uint64_t bytes = 0;

    for (uint32_t number = 0; number < LOAD(fs->header->blocks.chunks_used); number++)
        bytes += chunk_at(fs, number)->state == CHUNK_LEAVING ? CHUNK_SIZE : 0;
    return bytes;
}

uint32_t blocks_to_vacate(const struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint32_t found = CHUNKS_MAX;

    if (!tables_want(h, leaving_bytes(fs)))
        return CHUNKS_MAX;
    for (uint32_t number = 0; number < LOAD(h->blocks.chunks_used); number++) {
        const struct chunk *chunk = chunk_at(fs, number);
        if (is_empty(fs, number))
            return CHUNKS_MAX;
        if (chunk->state == CHUNK_PRESENT &&
            (found == CHUNKS_MAX || chunk->free_count > chunk_at(fs, found)->free_count))
            found = number;
    }
    return found;
}

int blocks_take_last(struct fastspool *fs, uint32_t number)
{
    if (chunk_at(fs, number)->state != CHUNK_PRESENT)
        return -ESTALE;
    if (chunk_at(fs, number)->free_count == 0)
        return 0; /* it will be the last when it gets one */
    partial_remove(fs, number);
    partial_insert(fs, number);
    return 0;
}

int blocks_give_back(struct fastspool *fs, uint64_t keep)
{
    const struct header *h = fs->header;
    uint32_t used = LOAD(h->blocks.chunks_used);
    uint64_t leaving = leaving_bytes(fs);

    for (uint32_t number = 0; number < used; number++) {
        if (may_leave(fs, number, keep, leaving)) {
            int result = section_run(fs, begin_leaving, &number);
            if (result < 0)
                return result;
            leaving += result ? CHUNK_SIZE : 0;
        }
        if (chunk_at(fs, number)->state != CHUNK_LEAVING || !for_long(fs, number))
            continue;
        if (fallocate(fs->segment_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(DATA_AT + (uint64_t)number * CHUNK_SIZE), CHUNK_SIZE) < 0)
            return -errno;
        int result = section_run(fs, end_leaving, &number);
        if (result < 0)
            return result;
        leaving -= CHUNK_SIZE;
    }
    STORE(h->blocks.tables_wanted, 0); /* whoever waits says it again */
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Blocks: the memory of the content of files, and the chunks that it comes in.
 *
 * The happy path:
 *   - A chunk is 256 blocks with a bitmap.  Memory comes and goes by the chunk.
 *   - blocks_take() takes the first free block of the first chunk that has one.  blocks_give() frees it.
 *   - Whoever takes one of the last AHEAD free blocks adds a chunk behind its section, while the others go on.  Without
 *     that all of them would ask for the same memory at once: with 32 connections they spun for 5 % of Exim's time.
 *   - While a commit copies data (header.tickets.committing), freed blocks go to quarantine.  So no message ever shows
 *     the bytes of another one on the disk.  blocks_release_held() ends the quarantine.
 *   - The mirror gives back a chunk that has been empty for UNUSED_TIME: the chunk leaves the lists (LEAVING), then its
 *     memory goes, then the chunk is absent.  The chunks of a huge page leave together, as half a huge page can't go:
 *     the kernel would split it into small ones.  And they leave late and slowly: the process that takes memory anew
 *     pays for it, ten times as much where the machine is a virtual one that has given it to its host meanwhile
 *     (docs/benchmarks.md).
 *
 * Chunks and tables share the limit.  Data grows by the chunk, and blocks are used again and again.  Names and inodes
 * grow by small steps and stay.  Without a bound, data would take all memory and leave the tables none.  So the last
 * part of the limit, as large as the reserve, is for tables: no chunk may take it.  If tables have grown into that
 * part, or have found no memory, an empty chunk leaves the lists at once.  If no chunk is empty, compaction.c empties
 * one.
 *
 * Failure modes:
 *   - No chunk has a free block: the section wants one more (TABLE_CHUNKS), which gets its memory outside the lock.
 *   - Two processes take memory for the same chunk: the second finds the chunk present, or the limit reached.  In the
 *     latter case the memory stays for the next new chunk.
 *   - The mirror dies while it gives a chunk back: the chunk is LEAVING, and the next mirror goes on from there.
 */
#include "store/blocks.h"

#include "base/clock.h"
#include "base/fd.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>

/* Time that a chunk must be empty before its memory goes.  It is longer than any reader without the lock uses a block
 * number that it has loaded: reading the hole would take memory again. */
#define EMPTY_TIME (2 * NS_PER_S)

/* Time that a chunk must be empty before it leaves, unless tables want its memory: what a burst has taken stays for
 * those that follow it within so long. */
#define UNUSED_TIME (120 * NS_PER_S)

/* So many free blocks are left, beside the reserve, when the next chunk is asked for: a rush of 15,000 blocks a second
 * takes them in the time that a slow machine needs to zero 2 MiB. */
#define AHEAD CHUNK_BLOCKS

/* The share of the free blocks, and the bytes at least, that one call gives back: called each second, it gives back
 * half of what a large burst has left within 25 seconds, and of a small one within less. */
#define GIVEN_SHARE 32
#define GIVEN_LEAST HUGE_PAGE

/* Lines of the next block that are fetched when one is taken: behind them the processor sees where it goes. */
#define FETCHED_LINES 4u

#define PAGE_CHUNKS ((uint32_t)(HUGE_PAGE / CHUNK_SIZE))
_Static_assert(PAGE_CHUNKS == 2, "a chunk of a huge page has one neighbour");

/* Chunks whose quarantine one section ends, at most. */
#define RELEASE_STEP 64

#define WORDS (CHUNK_BLOCKS / 64)

static __thread bool few_left; /* this thread has taken one of the last AHEAD free blocks */

/* The chunk of a link: links hold the number of a chunk + 1, 0: none.  NULL too: there is no such chunk. */
static const struct chunk *listed(const struct fastspool *fs, uint32_t link)
{
    return link >= 1 && link <= fs->header->blocks.chunks_used && link <= CHUNKS_MAX ? chunk_at(fs, link - 1) : NULL;
}

/* Chunks ever taken, at most as many as there can be: the count may be nonsense. */
static uint32_t chunks_taken(const struct fastspool *fs)
{
    uint32_t used = LOAD(fs->header->blocks.chunks_used);
    return used < CHUNKS_MAX ? used : CHUNKS_MAX;
}

/* Is @link 0, or that of a chunk? */
static bool leads(const struct fastspool *fs, uint32_t link)
{
    return link == 0 || listed(fs, link);
}

/* Block 0 means "none" everywhere, so it is never handed out. */
static uint32_t usable_blocks(uint32_t number)
{
    return number == 0 ? CHUNK_BLOCKS - 1 : CHUNK_BLOCKS;
}

/* At the end of the list, so that a chunk that eviction has just begun to empty has time to become empty. */
static void partial_insert(struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    const struct chunk *tail = listed(fs, fs->header->blocks.chunks_partial_tail);

    if (!leads(fs, fs->header->blocks.chunks_partial_tail)) {
        section_damaged(fs, "the list of chunks with free blocks leads nowhere");
        return;
    }
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

    if (!leads(fs, chunk->next) || !leads(fs, chunk->prev) ||
        (next ? next->prev : fs->header->blocks.chunks_partial_tail) != number + 1 ||
        (prev ? prev->next : fs->header->blocks.chunks_partial) != number + 1) {
        section_damaged(fs, "the list of chunks with free blocks does not agree both ways");
        return;
    }
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

/* Block @block is taken next.  Its memory was zeroed by another process, or long ago.  The first stores into it wait
 * for the page's address and its lines, 0.4 us in a virtual machine, and with them the end of the section. */
static void fetch_ahead(const struct fastspool *fs, uint32_t block)
{
    const char *bytes = block_at(fs, block);

    for (unsigned line = 0; line < FETCHED_LINES; line++)
        __builtin_prefetch(bytes + line * CACHE_LINE, 1);
}

int blocks_take(struct fastspool *fs, uint32_t *block)
{
    const struct header *h = fs->header;
    const uint32_t link = h->blocks.chunks_partial;
    const uint64_t spare = blocks_spare(h);

    if (link == 0 || (!fs->mirror && spare <= h->reserve))
        return section_want(TABLE_CHUNKS);
    if (!fs->mirror && spare == h->reserve + AHEAD)
        few_left = true;
    const struct chunk *chunk = listed(fs, link);
    if (!chunk || chunk->state != CHUNK_PRESENT)
        return section_damaged(fs, "the list of chunks with free blocks leads nowhere");
    for (unsigned word = 0; word < WORDS; word++) {
        uint64_t free = LOAD(chunk->free[word]);
        if (free == 0)
            continue;
        unsigned bit = (unsigned)__builtin_ctzll(free);
        SET(fs, chunk->free[word], free & ~(UINT64_C(1) << bit));
        SET(fs, chunk->free_count, chunk->free_count - 1);
        SET(fs, fs->header->blocks.used, fs->header->blocks.used + 1);
        if (chunk->free_count == 0)
            partial_remove(fs, link - 1);
        *block = (link - 1) * CHUNK_BLOCKS + word * 64 + bit;
        if (free & (free - 1))
            fetch_ahead(fs, (link - 1) * CHUNK_BLOCKS + word * 64 + (unsigned)__builtin_ctzll(free & (free - 1)));
        return 0;
    }
    return section_damaged(fs, "a chunk counts free blocks and has none");
}

/* Set @bits, @count of them, in the bitmap of free blocks. */
static void make_free(struct fastspool *fs, uint32_t number, unsigned word, uint64_t bits, uint32_t count)
{
    const struct chunk *chunk = chunk_at(fs, number);

    if (chunk->free_count + count > usable_blocks(number)) {
        section_damaged(fs, "a chunk counts more free blocks than it has");
        return;
    }
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
        if (!chunk || chunk->held_count == 0) /* none: it was released before */
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

/* ---- memory of chunks ---- */

struct candidate {
    uint32_t number;
    uint32_t epoch;
};

/* Memory in use that a new chunk may reach, bytes: the limit less the part for tables, which is as large as the
 * reserve. The first chunk may reach the limit. */
static uint64_t data_limit(const struct header *h)
{
    uint64_t limit = LOAD(h->memory_limit), tables = LOAD(h->blocks.total) ? h->reserve * BLOCK_SIZE : 0;
    return limit > tables ? limit - tables : 0;
}

/* Choose the chunk that gets memory: one that was given back, else the first one never taken. */
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
        return -EAGAIN; /* others were faster; the next new chunk uses the memory */
    if (h->blocks.chunks_absent == candidate->number + 1 && chunk->epoch == candidate->epoch)
        SET(fs, h->blocks.chunks_absent, chunk->next);
    else if (h->blocks.chunks_absent == 0 && h->blocks.chunks_used == candidate->number)
        SET(fs, h->blocks.chunks_used, candidate->number + 1);
    else
        return 0; /* another process was faster: the caller tries again */
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
    /* First the memory of the entry of the chunk, a page of the table at a time. */
    uint64_t entry = CHUNKS_AT + (uint64_t)candidate.number * sizeof(struct chunk);
    result = fd_take_room(fs->segment_fd, entry / BLOCK_SIZE * BLOCK_SIZE, BLOCK_SIZE);
    if (result == 0)
        result = fd_take_zeroed(fs->segment_fd, DATA_AT + (uint64_t)candidate.number * CHUNK_SIZE, CHUNK_SIZE);
    return result < 0 ? result : section_run(fs, add_chunk, &candidate);
}

void blocks_add_ahead(struct fastspool *fs)
{
    if (few_left)
        (void)blocks_add_chunk(fs); /* whoever finds no block at all asks again */
    few_left = false;
}

static bool is_empty(const struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    return chunk->state == CHUNK_PRESENT && chunk->free_count == usable_blocks(number);
}

/* Since a chunk that is empty, or LEAVING, has been empty. */
static uint64_t empty_time(const struct fastspool *fs, uint32_t number)
{
    return clock_monotonic() - chunk_at(fs, number)->emptied;
}

static bool is_unused(const struct fastspool *fs, uint32_t number)
{
    return is_empty(fs, number) && empty_time(fs, number) >= UNUSED_TIME;
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

/* Whether tables want the memory of a chunk (or the limit has become smaller), and the free blocks allow it.  @leaving:
 * bytes of chunks that are LEAVING already. */
static bool tables_want(const struct header *h, uint64_t leaving)
{
    return (LOAD(h->tables.memory_bytes) > data_limit(h) + leaving ||
            (LOAD(h->blocks.tables_wanted) && leaving == 0)) &&
           blocks_spare(h) >= h->reserve + CHUNK_BLOCKS;
}

/* Whether the chunk may leave with its huge page, and @keep bytes of free blocks stay: the first chunk of the page goes
 * before the other one, which follows. */
static bool page_may_leave(const struct fastspool *fs, uint32_t number, uint64_t keep)
{
    uint32_t other = number ^ 1;
    bool first = number < other;
    bool gone = other >= chunks_taken(fs) || chunk_at(fs, other)->state != CHUNK_PRESENT;

    return is_unused(fs, number) && (gone || (first && is_unused(fs, other))) &&
           blocks_spare(fs->header) * BLOCK_SIZE >= keep + (first ? HUGE_PAGE : CHUNK_SIZE);
}

/* Whether the chunk may leave: it must be empty. */
static bool may_leave(const struct fastspool *fs, uint32_t number, uint64_t keep, uint64_t leaving)
{
    return is_empty(fs, number) && (tables_want(fs->header, leaving) || page_may_leave(fs, number, keep));
}

/* Bytes of the chunks that are LEAVING. */
static uint64_t leaving_bytes(const struct fastspool *fs)
{
    uint64_t bytes = 0;

    for (uint32_t number = 0; number < chunks_taken(fs); number++)
        bytes += chunk_at(fs, number)->state == CHUNK_LEAVING ? CHUNK_SIZE : 0;
    return bytes;
}

uint32_t blocks_to_vacate(const struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint32_t found = CHUNKS_MAX;

    if (!tables_want(h, leaving_bytes(fs)))
        return CHUNKS_MAX;
    for (uint32_t number = 0; number < chunks_taken(fs); number++) {
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
        return 0; /* it joins the list at its end when a block becomes free */
    partial_remove(fs, number);
    partial_insert(fs, number);
    return 0;
}

/* Bytes of free blocks that one call leaves, if @keep are to stay in the end. */
static uint64_t kept(const struct header *h, uint64_t keep)
{
    uint64_t spare = blocks_spare(h) * BLOCK_SIZE, given = spare / GIVEN_SHARE;

    if (given < GIVEN_LEAST)
        given = GIVEN_LEAST;
    return spare > given && spare - given > keep ? spare - given : keep;
}

static int begin_leaving_all(struct fastspool *fs, uint64_t keep)
{
    const uint64_t stays = kept(fs->header, keep);
    uint64_t leaving = leaving_bytes(fs);

    for (uint32_t number = 0; number < chunks_taken(fs); number++) {
        int result = may_leave(fs, number, stays, leaving) ? section_run(fs, begin_leaving, &number) : 0;
        if (result < 0)
            return result;
        leaving += result ? CHUNK_SIZE : 0;
    }
    return 0;
}

static bool goes(const struct fastspool *fs, uint32_t number)
{
    return number < chunks_taken(fs) && chunk_at(fs, number)->state == CHUNK_LEAVING &&
           empty_time(fs, number) >= EMPTY_TIME;
}

/* Give back the memory of @count chunks, by one call: a huge page goes in one piece. */
static int give_memory(struct fastspool *fs, uint32_t first, uint32_t count)
{
    int result = 0;

    if (fallocate(fs->segment_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(DATA_AT + (uint64_t)first * CHUNK_SIZE), (off_t)count * CHUNK_SIZE) < 0)
        return -errno;
    for (uint32_t number = first; number < first + count && result == 0; number++)
        result = section_run(fs, end_leaving, &number);
    return result;
}

int blocks_give_back(struct fastspool *fs, uint64_t keep)
{
    int result = begin_leaving_all(fs, keep);

    for (uint32_t number = 0; number < chunks_taken(fs) && result == 0; number++) {
        if (number % PAGE_CHUNKS == 0 && goes(fs, number) && goes(fs, number + 1))
            result = give_memory(fs, number, PAGE_CHUNKS);
        else if (goes(fs, number))
            result = give_memory(fs, number, 1);
    }
    if (result == 0)
        STORE(fs->header->blocks.tables_wanted, 0); /* a call that still waits sets it again */
    return result;
}

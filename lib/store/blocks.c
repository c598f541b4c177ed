/* SPDX-License-Identifier: MIT
 *
 * Blocks: the memory of the content of files, and the chunks that it comes in.
 *
 * The happy path:
 *   - A chunk is 256 blocks of four parts, with a bitmap of these.  Memory comes and goes by the chunk.
 *   - blocks_take() takes the first free block of the first chunk that has one.  For less than a block it takes parts
 *     that are left of a broken block, in the first chunks that have any; otherwise it breaks a free one.  So a part
 *     never takes more memory than a block would, and mostly a quarter.  blocks_give() frees either.  A block is free
 *     again with the last of its parts.
 *   - All that counts memory counts blocks: a broken one is in use.
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

/* Chunks whose quarantine one section ends, at most: each may take some ninety undo entries. */
#define RELEASE_STEP 32

/* Chunks with free parts that are looked at before a whole block is broken. */
#define BROKEN_LOOKS 4u

__thread bool blocks_few_left __attribute__((tls_model("initial-exec"))); /* of the last AHEAD */

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

/* ---- the lists of chunks with free blocks, and with free parts of broken ones ---- */

enum chunk_list { PARTIAL, BROKEN };

static const struct list *list_of(const struct fastspool *fs, enum chunk_list which)
{
    return which == PARTIAL ? &fs->header->blocks.partial : &fs->header->blocks.broken;
}

static const struct link *link_in(const struct chunk *chunk, enum chunk_list which)
{
    return which == PARTIAL ? &chunk->partial : &chunk->broken;
}

/* At the end of the list, so that a chunk that eviction has just begun to empty has time to become empty. */
static void list_append(struct fastspool *fs, enum chunk_list which, uint32_t number)
{
    const struct list *list = list_of(fs, which);
    const struct link *link = link_in(chunk_at(fs, number), which);
    const struct chunk *tail = listed(fs, list->tail);

    if (!leads(fs, list->tail)) {
        section_damaged(fs, "the list of chunks with free blocks leads nowhere");
        return;
    }
    SET(fs, link->next, 0);
    SET(fs, link->prev, list->tail);
    if (tail)
        SET(fs, link_in(tail, which)->next, number + 1);
    else
        SET(fs, list->head, number + 1);
    SET(fs, list->tail, number + 1);
}

static void list_remove(struct fastspool *fs, enum chunk_list which, uint32_t number)
{
    const struct list *list = list_of(fs, which);
    const struct link *link = link_in(chunk_at(fs, number), which);
    const struct chunk *next = listed(fs, link->next), *prev = listed(fs, link->prev);

    if (!leads(fs, link->next) || !leads(fs, link->prev) ||
        (next ? link_in(next, which)->prev : list->tail) != number + 1 ||
        (prev ? link_in(prev, which)->next : list->head) != number + 1) {
        section_damaged(fs, "the list of chunks with free blocks does not agree both ways");
        return;
    }
    if (next)
        SET(fs, link_in(next, which)->prev, link->prev);
    else
        SET(fs, list->tail, link->prev);
    if (prev)
        SET(fs, link_in(prev, which)->next, link->next);
    else
        SET(fs, list->head, link->next);
}

/* A chunk has had @before of what the list is for, and has @now. */
static void list_follow(struct fastspool *fs, enum chunk_list which, uint32_t number, uint32_t before, uint32_t now)
{
    if (before == 0 && now > 0)
        list_append(fs, which, number);
    else if (before > 0 && now == 0)
        list_remove(fs, which, number);
}

/* ---- bitmaps ---- */

/* Bits of the first parts of all blocks of a word. */
#define FIRST_PARTS (~UINT64_C(0) / ((1u << BLOCK_PARTS) - 1))
#define ALL_PARTS   ((UINT64_C(1) << BLOCK_PARTS) - 1)

/* The first bit of each place where @parts set bits of one block stand in a row. */
static uint64_t places(uint64_t bits, unsigned parts)
{
    uint64_t firsts = bits & FIRST_PARTS * (ALL_PARTS >> (parts - 1));

    for (unsigned part = 1; part < parts; part++)
        firsts &= bits >> part;
    return firsts;
}

/* Blocks of which all bits are set. */
static uint32_t whole_blocks(uint64_t bits)
{
    return (uint32_t)__builtin_popcountll(places(bits, BLOCK_PARTS));
}

/* Bits that are set.  Of none or one, as mostly, without a call: not all processors count them. */
static uint32_t bits_set(uint64_t bits)
{
    return (bits & (bits - 1)) == 0 ? bits != 0 : (uint32_t)__builtin_popcountll(bits);
}

/* A word of the bitmap of free parts changes: @parts bits are set, or are cleared.  Returns by how many the free blocks
 * grow.  Free parts of blocks with others that are not count by themselves. */
static uint32_t set_free(struct fastspool *fs, uint32_t number, unsigned word, uint64_t before, uint64_t now,
                         uint32_t parts)
{
    const struct chunk *chunk = chunk_at(fs, number);
    const uint64_t changed = places(before, BLOCK_PARTS) ^ places(now, BLOCK_PARTS);
    const uint32_t sign = now > before ? 1 : -1u;
    const uint32_t blocks = sign * bits_set(changed), free = chunk->free_count + blocks;
    const uint32_t loose = sign * parts - blocks * BLOCK_PARTS, broken = chunk->broken_count + loose;

    if (free > usable_blocks(number) || broken > CHUNK_BLOCKS * BLOCK_PARTS) {
        section_damaged(fs, "a chunk counts more free blocks than it has");
        return 0;
    }
    if (blocks) {
        list_follow(fs, PARTIAL, number, chunk->free_count, free);
        SET_PAIR(fs, chunk->free[word], now, chunk->free_count, free);
        if (free == usable_blocks(number))
            SET(fs, chunk->emptied, clock_monotonic());
    } else {
        SET(fs, chunk->free[word], now);
    }
    if (loose) {
        list_follow(fs, BROKEN, number, chunk->broken_count, broken);
        SET(fs, chunk->broken_count, broken);
    }
    return blocks;
}

/* ---- taking ---- */

uint64_t blocks_spare(const struct header *h)
{
    return LOAD(h->blocks.total) - LOAD(h->blocks.used) - LOAD(h->blocks.held);
}

static uint32_t piece_of(uint32_t number, unsigned word, unsigned bit, uint32_t parts)
{
    uint32_t part = word * 64 + bit;

    return (number * CHUNK_BLOCKS + part / BLOCK_PARTS) | part % BLOCK_PARTS << PIECE_FIRST |
           (BLOCK_PARTS - parts) << PIECE_MISSING;
}

/* This piece is taken next.  Its memory was zeroed by another process, or long ago.  The first stores into it wait for
 * the page's address and its lines, 0.4 us in a virtual machine, and with them the end of the section. */
static void fetch_ahead(const struct fastspool *fs, uint32_t piece)
{
    const char *bytes = piece_at(fs, piece);

    for (unsigned line = 0; line < FETCHED_LINES; line++)
        __builtin_prefetch(bytes + line * CACHE_LINE, 1);
}

/* Take @parts of a block of the chunk: of a broken one or of a whole one.  False: no such block has them. */
static bool take_from(struct fastspool *fs, uint32_t number, uint32_t parts, bool broken, uint32_t *piece)
{
    const struct chunk *chunk = chunk_at(fs, number);

    for (unsigned word = 0; word < CHUNK_WORDS; word++) {
        const uint64_t free = LOAD(chunk->free[word]), whole = places(free, BLOCK_PARTS);
        const uint64_t from = broken ? places(free & ~(whole * ALL_PARTS), parts) : whole;
        if (from == 0)
            continue;
        unsigned bit = (unsigned)__builtin_ctzll(from);
        const uint64_t left = free & ~((ALL_PARTS >> (BLOCK_PARTS - parts)) << bit), next = places(left, parts);
        set_free(fs, number, word, free, left, parts);
        *piece = piece_of(number, word, bit, parts);
        if (next)
            fetch_ahead(fs, piece_of(number, word, (unsigned)__builtin_ctzll(next), parts));
        return true;
    }
    return false;
}

/* Take parts of a broken block, out of another chunk than that of @avoid.  1: taken.  0: none where it looks. */
static int take_parts(struct fastspool *fs, uint32_t parts, uint32_t avoid, uint32_t *piece)
{
    uint32_t link = fs->header->blocks.broken.head;

    for (unsigned looks = 0; link && looks < BROKEN_LOOKS; looks++) {
        const struct chunk *chunk = listed(fs, link);
        if (!chunk || chunk->state != CHUNK_PRESENT)
            return section_damaged(fs, "the list of chunks with free parts leads nowhere");
        if (link != avoid && take_from(fs, link - 1, parts, true, piece))
            return 1;
        link = chunk->broken.next;
    }
    return 0;
}

/* A whole block, or the first parts of one, which is broken then. */
static int take_block(struct fastspool *fs, uint32_t parts, uint32_t avoid, uint32_t *piece)
{
    const struct header *h = fs->header;
    const uint32_t link = h->blocks.partial.head;
    const uint64_t spare = blocks_spare(h);

    if (link == 0 || (!fs->mirror && spare <= h->reserve))
        return section_want(TABLE_CHUNKS);
    if (link == avoid) /* it is the last one */
        return -ENOSPC;
    if (!fs->mirror && spare == h->reserve + AHEAD)
        blocks_few_left = true;
    const struct chunk *chunk = listed(fs, link);
    if (!chunk || chunk->state != CHUNK_PRESENT)
        return section_damaged(fs, "the list of chunks with free blocks leads nowhere");
    if (parts < BLOCK_PARTS && chunk->broken_count > 0 && take_from(fs, link - 1, parts, true, piece))
        return 0;
    if (!take_from(fs, link - 1, parts, false, piece))
        return section_damaged(fs, "a chunk counts free blocks and has none");
    SET(fs, fs->header->blocks.used, fs->header->blocks.used + 1);
    return 0;
}

static int take(struct fastspool *fs, uint32_t size, uint32_t avoid, uint32_t *piece)
{
    const uint32_t parts = (size + PART_SIZE - 1) / PART_SIZE;
    int result = parts < BLOCK_PARTS ? take_parts(fs, parts, avoid, piece) : 0;

    if (result == 0)
        result = take_block(fs, parts, avoid, piece);
    return result < 0 ? result : 0;
}

int blocks_take(struct fastspool *fs, uint32_t size, uint32_t *piece)
{
    return take(fs, size, 0, piece);
}

int blocks_take_elsewhere(struct fastspool *fs, uint32_t size, uint32_t chunk, uint32_t *piece)
{
    return take(fs, size, chunk + 1, piece);
}

/* ---- giving ---- */

static void hold(struct fastspool *fs, uint32_t number, unsigned word, uint64_t bits)
{
    const struct chunk *chunk = chunk_at(fs, number);
    const struct blocks_state *blocks = &fs->header->blocks;
    const uint64_t before = LOAD(chunk->held[word]), now = before | bits;

    if (chunk->held_count == 0) {
        SET(fs, chunk->held_next, blocks->chunks_held);
        SET(fs, blocks->chunks_held, number + 1);
    }
    SET(fs, chunk->held[word], now);
    SET(fs, chunk->held_count, chunk->held_count + (uint32_t)__builtin_popcountll(bits));
    if (whole_blocks(now) > whole_blocks(before)) {
        SET(fs, blocks->used, blocks->used - 1);
        SET(fs, blocks->held, blocks->held + 1);
    }
}

void blocks_give(struct fastspool *fs, uint32_t piece)
{
    const uint32_t block = piece_block(piece), number = block / CHUNK_BLOCKS;
    const uint32_t part = block % CHUNK_BLOCKS * BLOCK_PARTS + piece_first(piece);
    const unsigned word = part / 64;
    const uint64_t bits = (ALL_PARTS >> (BLOCK_PARTS - piece_parts(piece))) << part % 64;
    const uint64_t free = LOAD(chunk_at(fs, number)->free[word]);

    if (block == 0 || !piece_possible(piece) || number >= fs->header->blocks.chunks_used || (free & bits))
        section_damaged(fs, "a block is freed that is not in use");
    else if (fs->header->tickets.committing)
        hold(fs, number, word, bits);
    else if (set_free(fs, number, word, free, free | bits, piece_parts(piece)) > 0)
        SET(fs, fs->header->blocks.used, fs->header->blocks.used - 1);
}

/* ---- the quarantine ---- */

/* Blocks that are free then count as used or as held, with all their parts, until now. */
static void release_chunk(struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);
    const struct blocks_state *blocks = &fs->header->blocks;
    uint64_t held_blocks = 0, free_blocks = 0;

    for (unsigned word = 0; word < CHUNK_WORDS; word++) {
        const uint64_t held = LOAD(chunk->held[word]), free = LOAD(chunk->free[word]);
        if (held == 0)
            continue;
        held_blocks += whole_blocks(held);
        free_blocks += set_free(fs, number, word, free, free | held, bits_set(held & ~free));
        SET(fs, chunk->held[word], 0);
    }
    SET(fs, blocks->held, blocks->held - held_blocks);
    if (free_blocks != held_blocks)
        SET(fs, blocks->used, blocks->used - (free_blocks - held_blocks));
    SET(fs, chunk->held_count, 0);
    SET(fs, blocks->chunks_held, chunk->held_next);
}

static int release_step(struct fastspool *fs, void *argument)
{
    (void)argument;
    for (int step = 0; step < RELEASE_STEP && fs->header->blocks.chunks_held; step++) {
        const uint32_t link = fs->header->blocks.chunks_held;
        const struct chunk *chunk = listed(fs, link);
        if (!chunk || chunk->held_count == 0) /* none: it was released before */
            return section_damaged(fs, "the list of chunks with quarantined blocks leads nowhere");
        release_chunk(fs, link - 1);
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
        SET(fs, h->blocks.chunks_absent, chunk->partial.next);
    else if (h->blocks.chunks_absent == 0 && h->blocks.chunks_used == candidate->number)
        SET(fs, h->blocks.chunks_used, candidate->number + 1);
    else
        return 0; /* another process was faster: the caller tries again */
    for (unsigned word = 0; word < CHUNK_WORDS; word++) {
        uint64_t bits = ~(candidate->number == 0 && word == 0 ? ALL_PARTS : 0); /* block 0 is never free */
        SET(fs, chunk->free[word], bits);
        SET(fs, chunk->held[word], 0);
    }
    SET(fs, chunk->state, CHUNK_PRESENT);
    SET(fs, chunk->free_count, usable_blocks(candidate->number));
    SET(fs, chunk->broken_count, 0);
    SET(fs, chunk->emptied, clock_monotonic());
    list_append(fs, PARTIAL, candidate->number);
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

void blocks_add_for_others(struct fastspool *fs)
{
    (void)blocks_add_chunk(fs); /* whoever finds no block at all asks again */
    blocks_few_left = false;
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
    list_remove(fs, PARTIAL, number);
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
    SET(fs, chunk->partial.next, fs->header->blocks.chunks_absent);
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

/* To the end of the list; if it is in none, that is where it joins it. */
static void move_last(struct fastspool *fs, enum chunk_list which, uint32_t number, uint32_t count)
{
    if (count == 0)
        return;
    list_remove(fs, which, number);
    list_append(fs, which, number);
}

int blocks_take_last(struct fastspool *fs, uint32_t number)
{
    const struct chunk *chunk = chunk_at(fs, number);

    if (chunk->state != CHUNK_PRESENT)
        return -ESTALE;
    move_last(fs, PARTIAL, number, chunk->free_count);
    move_last(fs, BROKEN, number, chunk->broken_count);
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

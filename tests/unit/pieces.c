/* SPDX-License-Identifier: MIT
 *
 * Parts of blocks: what a small file, or the end of one, takes; and that nobody sees how pieces grow, move and go.
 */
#include "base/clock.h"
#include "base/findings.h"
#include "evicting.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/compaction.h"
#include "mirror/journal.h"
#include "random.h"
#include "store/blocks.h"
#include "store/change.h"
#include "store/check.h"
#include "store/data.h"
#include "store/inodes.h"
#include "store/orphans.h"
#include "store/store.h"

TestSuite(pieces, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

#define DIRECT_SIZE (INODE_DIRECT * BLOCK_SIZE)

/* Sizes at which a file begins to take another part, and some beside them. */
static const size_t sizes[] = {0,    1,    600,  1023, 1024, 1025, 2047, 2048, 2049,  3072,  3073,  4095,
                               4096, 4097, 4600, 5120, 5121, 8191, 8192, 8193, 16383, 16384, 16385, 17000};
#define SIZES (sizeof(sizes) / sizeof(*sizes))

static uint32_t parts_of(const char *path)
{
    return inode_at(fs, number(path))->parts;
}

/* Parts of a file of @size bytes without holes: of the direct blocks by the part, else by the block, and an index
 * block.
 */
static uint32_t parts_for(size_t size)
{
    if (size <= DIRECT_SIZE)
        return (uint32_t)((size + PART_SIZE - 1) / PART_SIZE);
    return (data_blocks(size) + 1) * BLOCK_PARTS;
}

/* The file is @size bytes of fill()'s with @seed, of which those from @zeros on are zeros. */
static void holds(const char *path, unsigned seed, size_t size, size_t zeros)
{
    static char got[sizeof(bytes)];
    int d = fastspool_open(fs, path, O_RDONLY, 0);

    cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), (ssize_t)size, "%s", path);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(got[i], i < zeros ? (char)(seed * 7 + i * 31 + i / 251) : 0, "%s: byte %zu of %zu", path, i, size);
    fastspool_close(fs, d);
}

/* A file takes memory by the kilobyte, and st_blocks says so. */
Test(pieces, by_the_kilobyte)
{
    struct stat st;

    for (size_t i = 0; i < SIZES; i++) {
        fill("f", 1, sizes[i]);
        cr_assert_eq(parts_of("f"), parts_for(sizes[i]), "%zu bytes take %u", sizes[i], parts_of("f"));
        cr_assert_eq(fastspool_stat(fs, "f", &st), 0);
        cr_assert_eq(st.st_blocks, parts_of("f") * PART_SIZE / 512);
        holds("f", 1, sizes[i], sizes[i]);
    }
    cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    cr_assert_eq(fs->header->blocks.used, 0);
    cr_assert_eq(fs->header->blocks.broken.head, 0);
}

/* Four files of less than a kilobyte share a block, and what is left by larger ones is used. */
Test(pieces, share_blocks)
{
    char path[16];

    for (int i = 0; i < 80; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, i < 40 ? 3000 : 600);
    }
    cr_assert_eq(fs->header->blocks.used, 40);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "g%d", i);
        fill(path, (unsigned)i, 600);
    }
    cr_assert_eq(fs->header->blocks.used, 50);
    for (int i = 0; i < 80; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        holds(path, (unsigned)i, i < 40 ? 3000 : 600, SIZE_MAX);
        cr_assert_eq(fastspool_unlink(fs, path), 0);
    }
    cr_assert_eq(fs->header->blocks.used, 10);
}

/* A file never takes more blocks than it has: pieces that no free parts fit break whole ones. */
Test(pieces, no_more_than_blocks)
{
    char path[16];

    for (int i = 0; i < 400; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, (size_t)(i * 7 % 4 + 1) * PART_SIZE);
        if (i % 3 == 0)
            cr_assert_eq(fastspool_unlink(fs, path), 0);
        cr_assert_leq(fs->header->blocks.used, (uint64_t)i + 1);
    }
}

/* A file grows from each size to each larger one, by a write at its end, and is cut again: its bytes are what was
 * written, and it takes what its size needs.  A longer one reads as zeros behind what was written, and takes no more.
 */
Test(pieces, grow_and_shrink)
{
    checking_every(10);
    for (size_t from = 0; from < SIZES; from++) {
        for (size_t to = from + 1; to < SIZES; to++) {
            fill("f", 1, sizes[from]);
            fill("other", 2, 100);       /* takes the part behind, where there is one */
            fill("whole", 1, sizes[to]); /* bytes[] has what follows */
            put("f", 0, bytes + sizes[from], sizes[to] - sizes[from], (off_t)sizes[from]);
            cr_assert_eq(parts_of("f"), parts_for(sizes[to]), "%zu, %zu", sizes[from], sizes[to]);
            holds("f", 1, sizes[to], sizes[to]);
            cr_assert_eq(fastspool_truncate(fs, "f", (off_t)sizes[from]), 0);
            cr_assert_eq(parts_of("f"), parts_for(sizes[from]), "%zu, %zu, %zu", sizes[from], sizes[to], sizes[from]);
            cr_assert_eq(fastspool_truncate(fs, "f", (off_t)sizes[to]), 0);
            cr_assert_eq(parts_of("f"), parts_for(sizes[from]), "a hole takes memory");
            holds("f", 1, sizes[to], sizes[from]);
            holds("other", 2, 100, 100);
        }
    }
}

/* Bytes in the middle of a hole that a piece leaves: what is before and behind them reads as zeros. */
Test(pieces, write_into_the_hole_behind)
{
    char got[BLOCK_SIZE], expected[BLOCK_SIZE];

    for (size_t at = 0; at < BLOCK_SIZE; at += 100) {
        fill("garbage", 3, 4 * BLOCK_SIZE);
        cr_assert_eq(fastspool_unlink(fs, "garbage"), 0);
        fill("f", 1, 700);
        memset(expected, 0, sizeof(expected));
        memcpy(expected, bytes, 700);
        cr_assert_eq(fastspool_truncate(fs, "f", BLOCK_SIZE - 1), 0);
        put("f", 0, "written", 7, (off_t)at);
        memcpy(expected + at, "written", at + 7 < BLOCK_SIZE ? 7 : BLOCK_SIZE - at);
        int d = fastspool_open(fs, "f", O_RDONLY, 0);
        ssize_t size = fastspool_pread(fs, d, got, sizeof(got), 0);
        cr_assert_geq(size, BLOCK_SIZE - 1);
        cr_assert_arr_eq(got, expected, (size_t)size, "at %zu", at);
        fastspool_close(fs, d);
    }
}

/* ---- commits ---- */

/* A part that is freed while a commit copies is not used again before the commit ends.  Then it is free. */
Test(pieces, quarantine)
{
    fill("f", 1, 600);
    const uint32_t old = data_piece(fs, inode_at(fs, number("f")), 0);
    char copy[600], path[16];

    memcpy(copy, bytes, sizeof(copy));
    STORE(fs->header->tickets.committing, 1);
    put("f", 0, bytes, 600, 600); /* a larger piece */
    cr_assert_neq(data_piece(fs, inode_at(fs, number("f")), 0), old);
    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof(path), "g%d", i);
        fill(path, 2, 600);
    }
    cr_assert_arr_eq(piece_at(fs, old), copy, sizeof(copy), "a part of the running commit was used");
    cr_assert_eq(fs->header->blocks.held, 0, "a block of which others use parts counts as held");
    STORE(fs->header->tickets.committing, 0);
    cr_assert_eq(blocks_release_held(fs), 0);
    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof(path), "g%d", i);
        cr_assert_eq(fastspool_unlink(fs, path), 0);
    }
    cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    cr_assert_eq(fs->header->blocks.used, 0);
    cr_assert_eq(fs->header->blocks.broken.head, 0);
}

/* All parts of a block go while a commit copies, some before it began: one after the other, each of them once. */
Test(pieces, quarantine_of_whole_blocks)
{
    for (int before = 0; before < 4; before++) {
        for (int i = 0; i < 4; i++)
            fill((const char *[]){"a", "b", "c", "d"}[i], 1, 600);
        cr_assert_eq(fs->header->blocks.used, 1);
        for (int i = 0; i < 4; i++) {
            STORE(fs->header->tickets.committing, i >= before);
            cr_assert_eq(fastspool_unlink(fs, (const char *[]){"a", "b", "c", "d"}[i]), 0);
        }
        cr_assert_eq(fs->header->blocks.held, before == 0);
        cr_assert_eq(fs->header->blocks.used, before > 0);
        STORE(fs->header->tickets.committing, 0);
        cr_assert_eq(blocks_release_held(fs), 0);
        cr_assert_eq(fs->header->blocks.held, 0);
        cr_assert_eq(fs->header->blocks.used, 0);
        cr_assert_eq(blocks_spare(fs->header), fs->header->blocks.total);
    }
}

/* What a commit copies is the file of its instant, whatever is appended, overwritten or cut meanwhile. */
Test(pieces, captured)
{
    checking_every(10);
    for (size_t i = 1; i < SIZES; i++) {
        struct capture capture;
        char path[16];
        fill("appended", 1, sizes[i]);
        fill("cut", 2, sizes[i]);
        fill("overwritten", 3, sizes[i]);
        dump_all(fs, then_dump);
        cr_assert_eq(capture_take(fs, &capture), 0);
        for (int part = 0; part < 5; part++)
            put("appended", 0, bytes, 700, (off_t)sizes[i] + part * 700);
        cr_assert_eq(fastspool_truncate(fs, "cut", (off_t)sizes[i] / 2), 0);
        put("overwritten", 0, "later", 5, (off_t)sizes[i] - 1);
        for (int other = 0; other < 20; other++) { /* these want the parts that were just freed */
            snprintf(path, sizeof(path), "other%d", other);
            fill(path, 9, 900);
        }
        cr_assert_eq(journal_append(&journal, &capture, error), 0, "%s", error);
        cr_assert_eq(capture_end(fs, &capture, 0, 0), 0);
        recovers(then_dump);
        commit(0);
        recovers(dump_all(fs, then_dump));
        for (int other = 0; other < 20; other++) {
            snprintf(path, sizeof(path), "other%d", other);
            cr_assert_eq(fastspool_unlink(fs, path), 0);
        }
        commit(0);
    }
}

/* ---- eviction and page-in ---- */

/* Evicted files are paged in as they were, and take what they took. */
Test(pieces, come_back)
{
    char path[16];
    uint32_t parts[2 * SIZES];

    for (size_t i = 0; i < 2 * SIZES; i++) {
        snprintf(path, sizeof(path), "f%zu", i);
        fill(path, (unsigned)i, sizes[i / 2]);
        if (i % 2)
            cr_assert_eq(fastspool_truncate(fs, path, 20000), 0);
        parts[i] = parts_of(path);
    }
    persist();
    evict(0);
    cr_assert_eq(fs->header->blocks.used, 0);
    paging_begin(fs, NULL);
    for (size_t i = 0; i < 2 * SIZES; i++) {
        snprintf(path, sizeof(path), "f%zu", i);
        holds(path, (unsigned)i, i % 2 ? 20000 : sizes[i / 2], sizes[i / 2]);
        cr_assert_leq(parts_of(path), parts[i] + (i % 2) * BLOCK_PARTS, "%s took %u", path, parts[i]);
    }
    paging_end(fs);
}

struct loading {
    uint32_t inode;
    size_t size[2]; /* of two page-ins, the second one after the first */
};

static int load_twice(struct fastspool *store, void *argument)
{
    const struct loading *loading = argument;
    int result = data_empty(store, loading->inode, UINT32_MAX);
    for (int i = 0; i < 2 && result == 0; i++)
        result = data_load(store, loading->inode, bytes, loading->size[i], 0);
    return result;
}

/* A page-in goes on where another one has left pieces that are shorter, or longer. */
Test(pieces, page_in_over_another)
{
    checking_every(0); /* nobody has asked for them: the file has blocks, and is in no list */
    for (size_t i = 0; i < SIZES; i++) {
        fill("f", 1, sizes[i]);
        if (sizes[i] == 0)
            continue;
        persist();
        evict(0);
        for (size_t before = 0; before <= i && sizes[before] <= DATA_STEP; before++) {
            struct loading loading = {number("f"), {sizes[before], sizes[i]}};
            cr_assert_eq(change_run(fs, load_twice, &loading), 0);
            cr_assert_eq(parts_of("f"), parts_for(sizes[i]), "%zu, %zu", sizes[before], sizes[i]);
        }
        for (size_t at = 0; at < sizes[i]; at++) {
            uint32_t piece = data_piece(fs, inode_at(fs, number("f")), (uint32_t)(at / BLOCK_SIZE));
            cr_assert_eq(piece_at(fs, piece)[at % BLOCK_SIZE], bytes[at], "byte %zu of %zu", at, sizes[i]);
        }
        cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    }
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* ---- compaction ---- */

/* A chunk is vacated, though no other one has free parts: a whole block is broken elsewhere. */
Test(pieces, vacated)
{
    static char filler[CHUNK_SIZE];
    char path[16];

    for (int i = 0; i < 9; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, 700 + (size_t)i * 500);
    }
    put("pad", 0, filler, sizeof(filler), 0);
    cr_assert_eq(fastspool_unlink(fs, "pad"), 0);
    cr_assert_eq(orphans_free(fs), 0);
    cr_assert_eq(fs->header->blocks.broken.head, 1);
    cr_assert_eq(fs->header->blocks.broken.tail, 1);
    for (uint32_t chunk = 0; chunk < 2; chunk++) {
        cr_assert_eq(compaction_vacate(fs, chunk), 0);
        cr_assert_eq(chunk_at(fs, chunk)->free_count, CHUNK_BLOCKS - (chunk == 0));
        for (int i = 0; i < 9; i++) {
            snprintf(path, sizeof(path), "f%d", i);
            holds(path, (unsigned)i, 700 + (size_t)i * 500, SIZE_MAX);
        }
    }
}

/* ---- readers ---- */

/* A reader without the lock can see that a file has left a piece, which others use by now, though no byte of it has
 * changed.  An append that has room where it is disturbs no reader. */
Test(pieces, readers_see_that_it_moves)
{
    fill("f", 1, 600);
    const struct inode *inode = inode_at(fs, number("f"));
    uint32_t version = inode->version;

    put("f", 0, bytes, 400, 600);
    cr_assert_eq(inode->version, version);
    put("f", 0, bytes, 100, 1000);
    cr_assert_neq(inode->version, version);
    version = inode->version;
    put("f", 0, bytes, BLOCK_SIZE, 1100);
    cr_assert_neq(inode->version, version);
}

/* ---- anything, in any order ---- */

#define MODELS     24
#define MODEL_SIZE 20000u

/* What each file must be; -1: it is not there. */
static struct model {
    int size;
    unsigned char bytes[MODEL_SIZE];
} models[MODELS], at_capture[MODELS];

static uint64_t dice;

static uint32_t roll(uint32_t below)
{
    return (uint32_t)(random_next(&dice) % below);
}

/* Mostly small ones, and those beside a boundary of parts. */
static uint32_t roll_size(void)
{
    uint32_t boundary = roll(20) * PART_SIZE + roll(5);

    return roll(2) ? roll(5000) : boundary < 2 ? boundary : boundary - 2;
}

static const char *model_path(int m)
{
    static char path[16];

    snprintf(path, sizeof(path), "m%d", m);
    return path;
}

struct failing {
    uint32_t inode;
    bool cuts;
    uint32_t size, offset;
    int error;
};

/* A change that takes place, and then comes to nothing. */
static int fail_behind(struct fastspool *store, void *argument)
{
    const struct failing *failing = argument;
    int result = failing->cuts ? data_truncate(store, failing->inode, failing->offset)
                               : data_write(store, failing->inode, bytes, failing->size, failing->offset);

    return result < 0 ? result : failing->error;
}

static void roll_write(int m, bool fails)
{
    struct model *model = &models[m];
    uint32_t at = model->size < 0 || roll(3) ? (uint32_t)(model->size < 0 ? 0 : model->size) : roll_size();
    uint32_t size = 1 + roll(3000);

    if (at + size > MODEL_SIZE)
        return;
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (char)(1 + roll(255));
    if (fails && model->size >= 0) {
        struct failing failing = {number(model_path(m)), roll(2), size, at, -EPERM - (int)roll(30)};
        if (change_run(fs, fail_behind, &failing) >= 0)
            cr_assert_fail("it has not failed");
        return;
    }
    if (model->size < 0)
        *model = (struct model){0};
    put(model_path(m), 0, bytes, size, at);
    memcpy(model->bytes + at, bytes, size);
    if ((int)(at + size) > model->size)
        model->size = (int)(at + size);
}

static void roll_truncate(int m)
{
    struct model *model = &models[m];
    uint32_t size = roll_size();

    if (model->size < 0 || size > MODEL_SIZE)
        return;
    cr_assert_eq(fastspool_truncate(fs, model_path(m), size), 0);
    if ((int)size < model->size)
        memset(model->bytes + size, 0, (size_t)model->size - size);
    model->size = (int)size;
}

static void roll_unlink(int m)
{
    if (models[m].size >= 0)
        cr_assert_eq(fastspool_unlink(fs, model_path(m)), 0);
    models[m].size = -1;
}

static void is_as(struct fastspool *store, const struct model *expected, const char *when)
{
    static unsigned char got[MODEL_SIZE + 1];

    for (int m = 0; m < MODELS; m++) {
        int d = fastspool_open(store, model_path(m), O_RDONLY, 0);
        if (expected[m].size < 0) {
            cr_assert_eq(d, -ENOENT, "%s", when);
            continue;
        }
        cr_assert_eq(fastspool_pread(store, d, got, sizeof(got), 0), expected[m].size, "%s: file %d", when, m);
        for (int i = 0; i < expected[m].size; i++)
            cr_assert_eq(got[i], expected[m].bytes[i], "%s: byte %d of %d of file %d is %u, not %u", when, i,
                         expected[m].size, m, got[i], expected[m].bytes[i]);
        fastspool_close(store, d);
    }
}

static void is_sound(unsigned step)
{
    struct findings *findings = findings_new(3);

    if (check_segment(fs, findings) != 0)
        cr_assert_fail("step %u: %s", step, findings_kept(findings) ? findings->sentence[0] : "?");
    findings_free(findings, 3);
}

/* The commit of an instant ends: a recovery gives what was there then. */
static void end_commit(struct capture *capture)
{
    bool fails = roll(4) == 0; /* before anything is written */

    if (!fails)
        cr_assert_eq(journal_append(&journal, capture, error), 0, "%s", error);
    cr_assert_eq(capture_end(fs, capture, fails ? -EIO : 0, 0), 0);
    if (fails)
        return;
    struct fastspool *second = second_store();
    struct recovered recovered;
    cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
    STORE(second->header->state, SEGMENT_READY);
    paging_all(second);
    is_as(second, at_capture, "after a recovery");
    remove_second(second);
}

/* Files with bytes that are not 0, written, cut, removed, evicted, moved and committed in any order, and sections that
 * fail behind the change: each file is what was written to it, in memory and on the disk, and the store is sound. */
Test(pieces, anything)
{
    static char garbage[3 << 20];
    struct capture capture = {0};
    bool commits = false;

    checking_every(0);
    memset(garbage, 0xee, sizeof(garbage));
    put("garbage", 0, garbage, sizeof(garbage), 0);
    cr_assert_eq(fastspool_unlink(fs, "garbage"), 0);
    cr_assert_eq(orphans_free(fs), 0);
    for (int m = 0; m < MODELS; m++)
        models[m].size = -1;
    dice = (uint64_t)clock_realtime();
    printf("pieces: anything: seed %llu\n", (unsigned long long)dice);
    for (unsigned step = 0; step < 8000; step++) {
        int m = (int)roll(MODELS);
        uint32_t what = roll(100);
        if (what < 45)
            roll_write(m, false);
        else if (what < 65)
            roll_truncate(m);
        else if (what < 80)
            roll_write(m, true);
        else if (what < 90)
            roll_unlink(m);
        else if (what < 93 && !commits) {
            memcpy(at_capture, models, sizeof(models));
            cr_assert_eq(capture_take(fs, &capture), 0);
            commits = capture.count > 0;
        } else if (what < 95 && commits) {
            end_commit(&capture);
            commits = false;
        } else if (what == 96 && !commits && roll(4) == 0) {
            persist();
            evict(roll(20));
            paging_all(fs);
        } else if (what == 97) {
            cr_assert_eq(compaction_vacate(fs, roll(fs->header->blocks.chunks_used)), 0);
        } else if (what == 98) {
            is_as(fs, models, "in memory");
        }
        is_sound(step);
    }
}

/* SPDX-License-Identifier: MIT
 *
 * The content of files: holes, index blocks, overwriting and truncating, without leaking a block.
 */
#include "store/data.h"
#include "fastspool.h"
#include "fixture.h"
#include "store/blocks.h"
#include "store/change.h"
#include "store/descriptions.h"
#include "store/inodes.h"
#include "store/segment.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <pthread.h>

TestSuite(data, .init = fixture_setup, .fini = fixture_teardown);

static int create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT | O_EXCL, 0640);
    cr_assert_geq(d, 0);
    return d;
}

/* The file's byte at @offset; -1: it has none there. */
static int byte_at(int d, off_t offset)
{
    unsigned char byte;
    ssize_t got = fastspool_pread(fs, d, &byte, 1, offset);
    return got == 1 ? byte : -1;
}

/* Two bytes written at each kind of place in a file's block map read back, and unlinking frees all blocks. */
struct place_case {
    off_t offset;
    const char *what;
};
ParameterizedTestParameters(data, sparse)
{
    static struct place_case cases[] = {
        {0, "the first block"},
        {4095, "across two blocks"},
        {4 * 4096 - 1, "from the direct blocks to the index block"},
        {(4 + 1024) * 4096L - 1, "from the index block to the index block of index blocks"},
        {(4 + 1024 + 1024) * 4096L - 1, "from one index block to the next"},
        {(4 + 1024 + 1024L * 1024) * 4096L - 2, "the last two bytes that a file can have"},
    };
    return cr_make_param_array(struct place_case, cases, sizeof(cases) / sizeof(*cases));
}
ParameterizedTest(struct place_case *c, data, sparse)
{
    int d = create("f");
    struct stat st;

    cr_assert_eq(fastspool_pwrite(fs, d, "ab", 2, c->offset), 2, "%s", c->what);
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_size, c->offset + 2);
    cr_assert_eq(byte_at(d, c->offset), 'a');
    cr_assert_eq(byte_at(d, c->offset + 1), 'b');
    if (c->offset > 0)
        cr_assert_eq(byte_at(d, c->offset - 1), 0);
    cr_assert_eq(byte_at(d, c->offset + 2), -1);
    cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(fs->header->blocks.used, 0, "a block leaks");
}

/* One byte beyond the largest size gives EFBIG, and takes no block. */
Test(data, too_big)
{
    int d = create("f");
    cr_assert_eq(fastspool_pwrite(fs, d, "ab", 2, (4 + 1024 + 1024L * 1024) * 4096L - 1), -EFBIG);
    cr_assert_eq(fastspool_ftruncate(fs, d, (4 + 1024 + 1024L * 1024) * 4096L + 1), -EFBIG);
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* However much memory there is, no larger file is promised. */
Test(data, largest_is_possible)
{
    struct fastspool_status status;

    segment_limit(fs->header, UINT64_C(64) << 30);
    cr_assert_eq(fastspool_status(fs, &status), 0);
    cr_assert_eq(status.largest_bytes, (4 + 1024 + 1024L * 1024) * 4096L);
}

/* Random writes, truncations and reads agree with a plain array. */
Test(data, model)
{
    enum { SIZE = 40 * 4096 };
    static unsigned char model[SIZE], got[SIZE];
    static char bytes[9000];
    size_t size = 0;
    unsigned seed = 7;
    int d = create("f");

    for (int round = 0; round < 5000; round++) {
        size_t offset = (size_t)rand_r(&seed) % (SIZE - sizeof(bytes));
        size_t part = (size_t)rand_r(&seed) % sizeof(bytes) + 1;
        switch (rand_r(&seed) % 6) {
        case 0: { /* truncate, up or down */
            cr_assert_eq(fastspool_ftruncate(fs, d, (off_t)offset), 0);
            if (offset < size)
                memset(model + offset, 0, size - offset);
            size = offset;
            break;
        }
        case 1: /* append */
            offset = size;
            /* fall through */
        default: /* write */
            if (offset + part > SIZE)
                break;
            memset(bytes, 'a' + round % 26, part);
            cr_assert_eq(fastspool_pwrite(fs, d, bytes, part, (off_t)offset), (ssize_t)part);
            memcpy(model + offset, bytes, part);
            if (offset + part > size)
                size = offset + part;
        }
        cr_assert_eq(fastspool_pread(fs, d, got, SIZE, 0), (ssize_t)size);
        cr_assert_eq(memcmp(got, model, size), 0, "round %d", round);
    }
    fastspool_unlink(fs, "f");
    fastspool_close(fs, d);
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* O_TRUNC frees all blocks of a file that is too large to be freed in one section. */
Test(data, large_files_are_freed_in_steps)
{
    static char bytes[1 << 20];
    int d = create("f");

    for (int i = 0; i < 30; i++)
        cr_assert_eq(fastspool_write(fs, d, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    int again = fastspool_open(fs, "f", O_RDWR | O_TRUNC, 0);
    cr_assert_geq(again, 0);
    cr_assert_eq(byte_at(d, 0), -1);
    cr_assert_eq(fs->header->blocks.used, 0);
    cr_assert_eq(fs->header->tree.files, 1);
    cr_assert_eq(fastspool_ftruncate(fs, d, 1 << 24), 0);
    cr_assert_eq(byte_at(d, 5 << 20), 0);
}

/* A block that is freed during a commit is not reused before the commit ends.  Then it is free. */
Test(data, quarantine)
{
    int d = create("f");
    cr_assert_eq(fastspool_write(fs, d, "old", 3), 3);
    uint32_t inode, generation;
    cr_assert_eq(descriptions_file(fs, (uint32_t)d, &inode, &generation), 0);
    uint32_t block = data_piece(fs, inode_at(fs, inode), 0);

    STORE(fs->header->tickets.committing, 1);
    cr_assert_eq(fastspool_pwrite(fs, d, "new", 3, 0), 3);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(fastspool_pwrite(fs, d, "other", 5, i * 4096L), 5);
    cr_assert_eq(memcmp(piece_at(fs, block), "old", 3), 0, "a block of the running commit was reused");
    STORE(fs->header->tickets.committing, 0);
    cr_assert_eq(blocks_release_held(fs), 0);
    cr_assert_eq(fs->header->blocks.chunks_held, 0);
    cr_assert_eq(fastspool_ftruncate(fs, d, 0), 0);
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* With `memory` used up a write gives ENOSPC, and another file keeps its content.  Truncating makes room again. */
Test(data, full)
{
    static char bytes[1 << 20];
    int d = create("f"), e = create("g");
    ssize_t result;

    checking_every(100); /* some 5,000 sections, over 65,000 blocks in the end */
    cr_assert_eq(fastspool_write(fs, e, "kept", 4), 4);
    while ((result = fastspool_write(fs, d, bytes, sizeof(bytes))) == (ssize_t)sizeof(bytes))
        ;
    while (result > 0)
        result = fastspool_write(fs, d, bytes, 4096);
    cr_assert_eq(result, -ENOSPC);
    cr_assert_leq(fs->header->tables.memory_bytes, FIXTURE_MEMORY);
    cr_assert_eq(byte_at(e, 3), 't');
    cr_assert_eq(fastspool_ftruncate(fs, d, 0), 0);
    cr_assert_eq(fastspool_write(fs, e, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
}

/* ---- readers beside sections that fail ---- */

#define FAILURES 100000

static char wrong_bytes[DATA_STEP];
static uint32_t written_file, failures;

static int write_and_fail(struct fastspool *store, void *unused)
{
    (void)unused;
    int result = data_write(store, written_file, wrong_bytes, sizeof(wrong_bytes), 0);
    return result < 0 ? result : -ECANCELED;
}

static void *fail_again_and_again(void *unused)
{
    for (uint32_t i = 0; i < FAILURES; i++) {
        change_run(fs, write_and_fail, unused);
        STORE(failures, i + 1);
    }
    return unused;
}

/* A reader without the lock never returns what a section has written that was rolled back. */
Test(data, rolled_back_writes_are_never_read, .timeout = 60)
{
    static char bytes[DATA_STEP], read[DATA_STEP];
    pthread_t thread;
    struct stat st;
    int d = create("f"), wrong = 0;

    checking_every(100);
    memset(bytes, 'a', sizeof(bytes));
    memset(wrong_bytes, 'b', sizeof(wrong_bytes));
    cr_assert_eq(fastspool_pwrite(fs, d, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    written_file = (uint32_t)(st.st_ino - inodes_number(0));
    cr_assert_eq(pthread_create(&thread, NULL, fail_again_and_again, NULL), 0);
    while (LOAD(failures) < FAILURES) {
        cr_assert_eq(fastspool_pread(fs, d, read, sizeof(read), 0), (ssize_t)sizeof(read));
        wrong += memchr(read, 'b', sizeof(read)) != NULL;
    }
    pthread_join(thread, NULL);
    cr_assert_eq(wrong, 0, "%d reads returned bytes of a write that failed", wrong);
}

/* SPDX-License-Identifier: MIT
 *
 * The memory that data and tables get: before anybody waits for it, zeroed outside sections, and all of it zero when
 * a recovery begins.
 */
#include "store/blocks.h"

#include "base/clock.h"
#include "base/fd.h"
#include "fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/mman.h>

#define FILES 1500 /* a block each: some chunks */

TestSuite(blocks, .init = fixture_setup, .fini = fixture_teardown);

static void write_block(int i)
{
    static const char bytes[BLOCK_SIZE] = "x";
    char path[16];

    snprintf(path, sizeof(path), "%d", i);
    int file = fastspool_open(fs, path, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(file, 0);
    cr_assert_eq(fastspool_write(fs, file, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    cr_assert_eq(fastspool_close(fs, file), 0);
}

/* Whoever writes never meets the end of the free blocks, but for the first chunks: no other has to wait then. */
Test(blocks, added_ahead)
{
    const struct header *h = fs->header;
    uint32_t first = 0;

    fs->mirror = false; /* the rule is for those that write mail */
    for (int i = 0; i < FILES; i++) {
        write_block(i);
        if (first == 0 && blocks_spare(h) > h->reserve + CHUNK_BLOCKS)
            first = h->blocks.chunks_used;
        cr_assert(first == 0 || blocks_spare(h) >= h->reserve + CHUNK_BLOCKS, "file %d: %lu free", i,
                  (unsigned long)(blocks_spare(h) - h->reserve));
    }
    cr_assert(first > 0 && h->blocks.chunks_used > first, "%u chunks at first, %u now", first, h->blocks.chunks_used);
    fs->mirror = true;
}

static void unlink_all(void)
{
    char path[16];

    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof(path), "%d", i);
        cr_assert_eq(fastspool_unlink(fs, path), 0);
    }
}

/* The mirror's look, @seconds later. */
static void give_back_after(uint64_t seconds)
{
    for (uint32_t chunk = 0; chunk < fs->header->blocks.chunks_used; chunk++)
        WRITABLE(chunk_at(fs, chunk)->emptied) -= seconds * NS_PER_S;
    cr_assert_eq(blocks_give_back(fs, 0), 0);
}

/* Its look long after the chunks became empty. */
static void give_back(void)
{
    give_back_after(1000);
}

static uint32_t present(void)
{
    uint32_t count = 0;

    for (uint32_t chunk = 0; chunk < fs->header->blocks.chunks_used; chunk++)
        count += chunk_at(fs, chunk)->state == CHUNK_PRESENT;
    return count;
}

/* What a burst has left goes slowly, because the next one has to pay for it: one huge page at each look. */
Test(blocks, given_back_slowly)
{
    for (int i = 0; i < FILES; i++)
        write_block(i);
    unlink_all();
    const uint32_t chunks = present();
    cr_assert_gt(chunks, 4);
    for (uint32_t looks = 1; looks <= 2; looks++) {
        give_back();
        cr_assert_eq(present(), chunks - 2 * looks, "%u of %u chunks after %u looks", present(), chunks, looks);
    }
    for (uint32_t looks = 0; looks < chunks; looks++)
        give_back();
    cr_assert_eq(present(), 0);
}

/* It stays for a burst that follows within two minutes. */
Test(blocks, kept_for_minutes)
{
    for (int i = 0; i < FILES; i++)
        write_block(i);
    unlink_all();
    const uint32_t chunks = present();
    give_back_after(115);
    cr_assert_eq(present(), chunks);
    give_back_after(10);
    cr_assert_lt(present(), chunks);
}

/* A chunk stays while its neighbour, of the same huge page, has a block in use: the kernel would split the page. */
Test(blocks, given_back_by_the_huge_page)
{
    for (int i = 0; i < FILES; i++)
        write_block(i);
    int keeper = fastspool_open(fs, "keeper", O_CREAT | O_WRONLY, 0600);
    cr_assert_eq(fastspool_write(fs, keeper, "x", 1), 1);
    cr_assert_eq(fastspool_close(fs, keeper), 0);
    unlink_all();
    for (int looks = 0; looks < 8; looks++)
        give_back();
    cr_assert_eq(present(), 2);
    cr_assert_eq(fastspool_unlink(fs, "keeper"), 0);
    give_back();
    cr_assert_eq(present(), 0);
}

static bool is_zeroed(int fd, uint64_t at)
{
    return lseek(fd, (off_t)at, SEEK_DATA) == (off_t)at; /* of a page that nobody has used it says that it is a hole */
}

Test(blocks, zeroed_when_taken)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    cr_assert_eq(fd_take_room(fd, 0, 65536), 0);
    cr_assert_not(is_zeroed(fd, 0));
    cr_assert_eq(fd_take_zeroed(fd, 65536, 65536), 0);
    cr_assert(is_zeroed(fd, 65536));
    close(fd);
    for (int i = 0; i < 3000; i++)
        write_block(i);
    const struct header *h = fs->header;
    uint64_t chunk = h->blocks.chunks_used - 1, page = (uint64_t)CHUNK_SIZE - BLOCK_SIZE;
    cr_assert(is_zeroed(fs->segment_fd, DATA_AT + chunk * CHUNK_SIZE + page));
    cr_assert(is_zeroed(fs->segment_fd,
                        INODES_AT + (h->tables.inodes.capacity - 1) * sizeof(struct inode) / BLOCK_SIZE * BLOCK_SIZE));
}

/* The rest of the header's huge page is zeroed by itself, as a hole would split it. */
Test(blocks, nothing_is_left_of_an_earlier_recovery)
{
    static const uint64_t at[] = {CHUNKS_AT,  HUGE_PAGE - 8, HUGE_PAGE, DESCRIPTIONS_AT,
                                  BUCKETS_AT, INODES_AT,     NAMES_AT,  DATA_AT};

    write_block(0);
    for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
        const uint64_t word = ~UINT64_C(0);
        cr_assert_eq(pwrite(fs->segment_fd, &word, sizeof(word), (off_t)at[i]), (ssize_t)sizeof(word));
    }
    STORE(fs->header->state, SEGMENT_RECOVERING); /* until there is a root */
    cr_assert_eq(segment_reset(fs), 0);
    for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
        uint64_t word = 1;
        cr_assert_eq(pread(fs->segment_fd, &word, sizeof(word), (off_t)at[i]), (ssize_t)sizeof(word));
        cr_assert_eq(word, 0, "%llx", (unsigned long long)at[i]);
    }
    cr_assert_eq(directories_make_root(fs), 0);
    STORE(fs->header->state, SEGMENT_READY);
}

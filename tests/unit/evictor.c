/* SPDX-License-Identifier: MIT
 *
 * Eviction and page-in: what may be evicted, what is evicted first, and that a process sees no difference.
 */
#include "mirror/evictor.h"
#include "evicting.h"
#include "fastspool.h"
#include "store/inside.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/store.h"

TestSuite(evictor, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

/* The coldest files are evicted first, as many as are needed.  A file that was opened gets one second chance. */
Test(evictor, coldest_first)
{
    char path[16];

    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, 12000);
        commit(0); /* in this order */
    }
    checkpoint();
    put("f1", 0, "", 0, 0); /* opened, not changed */
    evict(9);
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        cr_assert_eq(evicted(path), i == 0 || i == 2 || i == 3, "%s", path);
    }
    cr_assert_eq(fs->header->residency.evicted, 3);
    evict(0);
    cr_assert_eq(fs->header->residency.evicted, 8, "a file got two second chances");
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* Who only peeks at a file sees its data while that is in memory, and brings nothing back. */
Test(evictor, peeks)
{
    char start[8] = "";

    put("f", O_TRUNC, "content", 7, 0);
    cr_assert_eq(inside_peek(fs, "f", start, 4), 4);
    cr_assert_str_eq(start, "cont");
    cr_assert_eq(inside_peek(fs, "g", start, 4), -ENOENT);
    persist();
    evict(0);
    cr_assert(evicted("f"));
    cr_assert_eq(inside_peek(fs, "f", start, 4), -EAGAIN);
    cr_assert(evicted("f"));
}

/* A file is not evicted while it is open, while it is dirty, or before a checkpoint holds it. */
Test(evictor, what_stays)
{
    fill("open", 1, 5000);
    fill("changed", 2, 5000);
    fill("new", 3, 5000);
    fill("empty", 4, 0);
    commit(0);
    cr_assert(evict(0), "it was not reported that files wait for a checkpoint");
    cr_assert_eq(fs->header->residency.evicted, 0, "a file that no checkpoint holds was evicted");
    checkpoint();
    int d = fastspool_open(fs, "open", O_RDONLY, 0);
    put("changed", 0, "x", 1, 4999);
    fill("new", 5, 6000);
    commit(0);
    put("changed", 0, "y", 1, 4999);
    evict(0);
    cr_assert_eq(fs->header->residency.evicted, 0);
    fastspool_close(fs, d);
    evict(0);
    cr_assert(evicted("open"));
    cr_assert_eq(fs->header->residency.evicted, 1);
}

/* What all files hold. */
static uint64_t parts_held(void)
{
    uint64_t parts = 0;

    for (uint32_t i = 1; i < fs->header->tables.inodes.used; i++)
        parts += inode_valid(fs, i) ? inode_at(fs, i)->parts : 0;
    return parts;
}

/* Evicted files are paged in unchanged, with their attributes, and clean: sizes around slices, blocks and 64 KiB steps,
 * holes, hard links, large files. */
Test(evictor, comes_back)
{
    static const size_t sizes[] = {1,    4071,  4072,  4073,  4095,  4096,   4097,
                                   8144, 16384, 65535, 65536, 65537, 700000, 1 << 20};
    char path[32];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        snprintf(path, sizeof(path), "f%zu", sizes[i]);
        fill(path, (unsigned)i, sizes[i]);
    }
    put("hole", 0, "end", 3, 900000);
    put("hole", 0, "middle", 6, 65530);
    fill("tail", 1, 10);
    cr_assert_eq(fastspool_truncate(fs, "tail", 100000), 0);
    cr_assert_eq(fastspool_link(fs, "hole", "second"), 0);
    persist();
    dump_all(fs, then_dump);
    const uint64_t parts = parts_held();
    evict(0);
    cr_assert_eq(fs->header->blocks.used, 0);
    cr_assert_eq(fs->header->residency.evicted, sizeof(sizes) / sizeof(*sizes) + 2);
    paging_begin(fs, NULL);
    cr_assert_str_eq(dump_all(fs, now_dump), then_dump);
    paging_end(fs);
    cr_assert_leq(parts_held(), parts, "a hole was filled: %lu, %lu", parts, parts_held());
    cr_assert_eq(fs->header->residency.evicted, 0);
    cr_assert_eq(fs->header->tickets.dirty_files, 0, "a page-in made a file dirty");
    recovers(then_dump);
}

/* Name, mode and times of an evicted file change without a page-in, and a recovery restores them. */
Test(evictor, attributes_change)
{
    const struct timespec times[2] = {{1, 2}, {3, 4}};

    for (int i = 0; i < 6; i++)
        fill((const char *[]){"chmod", "rename", "link", "times", "unlink", "over"}[i], (unsigned)i, 9000);
    persist();
    evict(0);
    cr_assert_eq(fastspool_chmod(fs, "chmod", 0600), 0);
    cr_assert_eq(fastspool_rename(fs, "rename", "renamed", 0), 0);
    cr_assert_eq(fastspool_link(fs, "link", "linked"), 0);
    cr_assert_eq(fastspool_utimens(fs, "times", times), 0);
    cr_assert_eq(fastspool_unlink(fs, "unlink"), 0);
    cr_assert_eq(fastspool_rename(fs, "renamed", "over", 0), 0);
    cr_assert_eq(fs->header->residency.evicted, 4);
    persist();
    paging_begin(fs, NULL);
    dump_all(fs, then_dump);
    paging_end(fs);
    recovers(then_dump);
}

/* truncate to 0 and open with O_TRUNC need no page-in of an evicted file.  Truncating it to any other size waits for
 * its page-in. */
Test(evictor, truncation)
{
    fill("nothing", 1, 9000);
    fill("part", 2, 9000);
    fill("longer", 3, 9000);
    fill("opened", 4, 9000);
    persist();
    evict(0);
    cr_assert_eq(fastspool_truncate(fs, "nothing", 0), 0);
    int d = fastspool_open(fs, "opened", O_WRONLY | O_TRUNC, 0);
    cr_assert_geq(d, 0);
    fastspool_close(fs, d);
    cr_assert_eq(fs->header->residency.evicted, 2);
    cr_assert_eq(fastspool_truncate(fs, "part", 5000), -EDEADLK, "it did not want the data");
    paging_begin(fs, NULL);
    cr_assert_eq(fastspool_truncate(fs, "part", 5000), 0);
    cr_assert_eq(fastspool_truncate(fs, "longer", 20000), 0);
    dump_all(fs, then_dump);
    paging_end(fs);
    commit(0);
    recovers(then_dump);
}

/* Make @count evicted files f0, f1, ... */
static void fill_evicted(int count)
{
    char path[16];

    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, 8000); /* two whole blocks */
    }
    persist();
    evict(0);
}

/* Files that a queue run has paged in are evicted before the working set. */
Test(evictor, a_scan_keeps_the_working_set)
{
    char path[16];

    fill_evicted(40);
    fill("hot", 99, 5000);
    persist();
    paging_begin(fs, NULL);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "", 0, 0);
        evict(1);
        cr_assert_not(evicted("hot"), "after %d of the cold ones", i + 1);
    }
    paging_end(fs);
}

/* The same for a queue run that writes to its files: they can't be evicted before a checkpoint, and the working set
 * stays meanwhile.  Only for a process that waits for memory is the working set evicted instead. */
Test(evictor, a_scan_that_writes_keeps_the_working_set)
{
    char path[16];
    bool unready;

    fill_evicted(40);
    fill("hot", 99, 5000);
    persist();
    paging_begin(fs, NULL);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "x", 1, 0);
        commit(0);
        cr_assert_eq(evictor_run(fs, residency_in_use(fs->header) - BLOCK_SIZE, 0, &unready), 0);
        cr_assert(unready, "no checkpoint was asked for");
        checkpoint();
        evict(1);
        cr_assert(evicted(path));
        cr_assert_not(evicted("hot"), "after %d of the cold ones", i + 1);
    }
    put("f0", 0, "x", 1, 0);
    commit(0);
    evict(1);
    cr_assert(evicted("hot"));
    paging_end(fs);
}

/* Passing over files that wait for a checkpoint does not change their order: the oldest is evicted first afterwards. */
Test(evictor, looking_changes_nothing)
{
    char path[16];
    bool unready;

    fill_evicted(40);
    paging_begin(fs, NULL);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "x", 1, 0);
        commit(0); /* in this order */
    }
    cr_assert_eq(evictor_run(fs, residency_in_use(fs->header) - BLOCK_SIZE, 0, &unready), 0);
    cr_assert(unready);
    checkpoint();
    evict(1);
    cr_assert(evicted("f0"));
    cr_assert_eq(fs->header->residency.evicted, 1);
    paging_end(fs);
}

/* A file that is opened again after its page-in joins the working set, also if that open writes to it. */
Test(evictor, opened_again)
{
    fill_evicted(3);
    paging_begin(fs, NULL);
    put("f0", 0, "", 0, 0);
    put("f0", 0, "x", 1, 0);
    persist();
    put("f1", 0, "", 0, 0);
    evict(1);
    cr_assert(evicted("f1") && !evicted("f0"));
    put("f2", 0, "", 0, 0);
    evict(1);
    cr_assert(evicted("f2") && !evicted("f0"));
    evict(1);
    cr_assert(evicted("f0"), "the last clean file was not evicted");
    paging_end(fs);
}

/* Cold files may be an eighth of all clean files, in case they are opened again.  The others are evicted first, then
 * the coldest files of the clean list. */
Test(evictor, an_eighth_of_the_clean_may_be_cold)
{
    char path[16];

    fill_evicted(8);
    for (int i = 0; i < 32; i++) {
        snprintf(path, sizeof(path), "c%d", i);
        fill(path, (unsigned)i, 4000);
        commit(0); /* in this order */
    }
    checkpoint();
    paging_begin(fs, NULL);
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "", 0, 0);
    }
    paging_end(fs);
    evict(7); /* blocks: two of each paged-in file, then one of another */
    cr_assert(evicted("f0") && evicted("f1") && evicted("f2"),
              "of 40 clean files 8 are cold, three more than an eighth");
    cr_assert(evicted("c0"));
    cr_assert_eq(fs->header->residency.evicted, 4);
    evict(0);
    cr_assert_eq(fs->header->residency.evicted, 40, "not all could be evicted");
}

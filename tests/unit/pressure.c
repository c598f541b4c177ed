/* SPDX-License-Identifier: MIT
 *
 * Pressure: what happens where there is no memory, who waits for it, and what is said to be left.
 */
#include "evicting.h"

TestSuite(pressure, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

/* A store so small that it evicts all the time. */
static void make_small(void)
{
    segment_limit(fs->header, UINT64_C(5) << 20);
}

static volatile sig_atomic_t checkpoints_wanted;

static void note_checkpoint(void *context)
{
    (void)context;
    checkpoints_wanted = 1;
}

/* The rest of a mirror, as a thread: commits, and checkpoints when they are wanted. */
static void *run_mirror(void *stop)
{
    while (!LOAD(*(uint32_t *)stop)) {
        commit(0);
        if (checkpoints_wanted) {
            checkpoints_wanted = 0;
            checkpoint();
        }
        usleep(2000);
    }
    return NULL;
}

static pthread_t mirror_thread;
static uint32_t mirror_stop;

static void mirror_begin_small(void)
{
    make_small();
    mirror_stop = 0;
    paging_begin(fs, note_checkpoint);
    pthread_create(&mirror_thread, NULL, run_mirror, &mirror_stop);
}

static void mirror_end_small(void)
{
    STORE(mirror_stop, 1);
    pthread_join(mirror_thread, NULL);
    paging_end(fs);
}

/* Evicting a large file takes no memory, not even an inode's. */
Test(pressure, large_without_memory)
{
    char path[16];

    for (int i = 0; i < 3; i++)
        put("large", 0, bytes, sizeof(bytes), i * (off_t)sizeof(bytes));
    persist();
    const struct table *inodes = &fs->header->inodes;
    for (int i = 0; inodes->used < inodes->capacity; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "", 0, 0);
    }
    persist();
    segment_limit(fs->header, fs->header->memory_bytes);
    cr_assert_eq(inodes->free, 0);
    cr_assert_eq(fastspool_mkdir(fs, "one more", 0700), -ENOSPC, "there is an inode");
    evict(0);
    cr_assert(evicted("large"));
    cr_assert_eq(fs->header->blocks_used, 0);
}

/* A wish for a checkpoint stands until one holds what is durable, also where the journal has nothing that waits. */
Test(pressure, wish)
{
    fill("f", 1, 9000);
    commit(0);
    uint64_t durable = fs->header->durable;
    STORE(fs->header->durable, 0); /* its batch is durable, and that is yet to be said */
    checkpoint();
    STORE(fs->header->durable, durable);
    cr_assert(evict(0), "what waits for a checkpoint is told");
    cr_assert_not(journal_files_due(&journal.pool));
    journal_files_want_checkpoint(&journal.pool);
    cr_assert(journal_files_due(&journal.pool));
    checkpoint();
    cr_assert_not(journal_files_due(&journal.pool));
    evict(0);
    cr_assert(evicted("f"));
}

/* More than memory can hold is written by one writer after the other, who wait for eviction, and all of it is there. */
Test(pressure, larger_than_memory)
{
    char path[16];
    static char got[30000];

    mirror_begin_small();
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        fill(path, i, 30000);
    }
    cr_assert_gt(fs->header->evicted, 800);
    cr_assert_leq(fs->header->memory_bytes, fs->header->memory_limit);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        int d = fastspool_open(fs, path, O_RDONLY, 0);
        cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
        cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), sizeof(got));
        for (size_t at = 0; at < sizeof(got); at += 997)
            cr_assert_eq(got[at], (char)(i * 7 + at * 31 + at / 251), "%s, byte %zu", path, at);
        fastspool_close(fs, d);
    }
    cr_assert_leq(fs->header->memory_bytes, fs->header->memory_limit);
    mirror_end_small();
}

static void *wish_to_close(void *database)
{
    usleep(100000);
    __atomic_add_fetch(&((struct shared_database *)database)->closing, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

/* Whoever has to close the database doesn't wait until a file has got its memory: it is still wanted, and served later.
 */
Test(pressure, gives_way_to_who_closes)
{
    pthread_t closer;

    fill("f", 1, 9000);
    persist();
    evict(0);
    segment_limit(fs->header, fs->header->memory_bytes);
    int d = fastspool_open(fs, "open", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 4096) > 0)
        ;
    uint32_t i = number("f");
    cr_assert_eq(section_run(fs, paging_want, &i), 0);
    struct pager pager = paging_of(fs);
    pthread_create(&closer, NULL, wish_to_close, &paging_database);
    uint64_t begun = clock_monotonic();
    cr_assert_eq(pager_bring_back(&pager, error), 1, "it has to be asked again");
    cr_assert_lt(clock_monotonic() - begun, UINT64_C(900000000), "it waited to the end, a second");
    pthread_join(closer, NULL);
    cr_assert_eq(fs->header->spilled, 0, "the file was put aside");
    cr_assert(inode_at(fs, i)->flags & INODE_WANTED);
    paging_database.closing = 0;
    fastspool_close(fs, d);
    cr_assert_eq(fastspool_unlink(fs, "open"), 0);
    cr_assert_eq(inodes_free_orphans(fs), 0);
    cr_assert_eq(pager_bring_back(&pager, error), 0);
    cr_assert_not(evicted("f"));
    shared_database_end(&paging_database);
}

static bool is_at(const char *name)
{
    char path[FASTSPOOL_PATH_MAX + 64];
    struct stat st;

    snprintf(path, sizeof(path), "%s/spill/%s", fs->state, name);
    return stat(path, &st) == 0;
}

/* A file that is larger than memory should hold is read from the disk while it is open, also when it is unlinked
 * meanwhile; it can be replaced, not written to. */
Test(pressure, spilled)
{
    static char got[3 << 20];
    enum { SIZE = 2 << 20 };
    char name[40];
    struct stat st;

    for (size_t at = 0; at < SIZE; at += sizeof(bytes)) {
        memset(bytes, (int)(at >> 20) + 'a', sizeof(bytes));
        put("large", 0, bytes, sizeof(bytes), (off_t)at);
    }
    put("large", 0, "end", 3, SIZE + 100000); /* behind a hole */
    persist();
    evict(0);
    snprintf(name, sizeof(name), "%u-%u", number("large"), inode_at(fs, number("large"))->generation);
    make_small();
    paging_begin(fs, NULL);
    int d = fastspool_open(fs, "large", O_RDWR, 0), other = fastspool_open(fs, "large", O_RDONLY, 0);
    cr_assert_geq(d, 0, "%s", strerror(-d));
    cr_assert_geq(other, 0);
    cr_assert_eq(fs->header->spilled, 1);
    cr_assert_eq(fs->header->blocks_used, 0);
    cr_assert(is_at(name));
    cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), SIZE + 100003);
    for (size_t at = 0; at < SIZE; at += 4097)
        cr_assert_eq(got[at], (char)(at >> 20) + 'a', "byte %zu", at);
    cr_assert_eq(got[SIZE + 50000], 0);
    cr_assert_eq(memcmp(got + SIZE + 100000, "end", 3), 0);
    cr_assert_eq(fastspool_write(fs, d, "x", 1), -ENOSPC);
    cr_assert_eq(fastspool_ftruncate(fs, d, 5), -ENOSPC);
    cr_assert_eq(fastspool_fchmod(fs, d, 0600), 0);
    cr_assert_eq(fastspool_close(fs, other), 0);
    persist();
    cr_assert_eq(fastspool_unlink(fs, "large"), 0);
    persist();
    cr_assert_eq(fastspool_pread(fs, d, got, 3, SIZE + 100000), 3, "unlinked, its data is gone");
    cr_assert_eq(memcmp(got, "end", 3), 0);
    cr_assert_eq(fastspool_close(fs, d), 0);
    for (int tries = 0; is_at(name) && tries < 500; tries++)
        usleep(10000);
    cr_assert_not(is_at(name), "the spill file stays");
    cr_assert_eq(fs->header->spilled, 0);
    cr_assert_eq(fastspool_stat(fs, "large", &st), -ENOENT);
    paging_end(fs);
}

/* Closed by all, a spilled file is evicted as before; a recovery knows none; replacing one frees it at once. */
Test(pressure, spilled_no_more)
{
    char name[40];

    for (int i = 0; i < 2; i++)
        for (size_t at = 0; at < 2; at++)
            put(i ? "replaced" : "closed", 0, bytes, sizeof(bytes), (off_t)(at * sizeof(bytes)));
    persist();
    evict(0);
    make_small();
    paging_begin(fs, NULL);
    int closed = fastspool_open(fs, "closed", O_RDONLY, 0), replaced = fastspool_open(fs, "replaced", O_RDONLY, 0);
    cr_assert_eq(fs->header->spilled, 2);
    snprintf(name, sizeof(name), "%u-%u", number("closed"), inode_at(fs, number("closed"))->generation);
    fill("replaced", 1, 100);
    cr_assert_eq(fs->header->spilled, 1);
    fastspool_close(fs, closed);
    fastspool_close(fs, replaced);
    for (int tries = 0; is_at(name) && tries < 500; tries++)
        usleep(10000);
    cr_assert(evicted("closed"));
    cr_assert_eq(fs->header->spilled, 0);
    closed = fastspool_open(fs, "closed", O_RDONLY, 0);
    cr_assert(is_at(name));
    paging_end(fs);
    commit(0);
    struct recovered recovered;
    struct fastspool *second = second_store();
    cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
    cr_assert_eq(second->header->spilled, 0);
    cr_assert_eq(second->header->evicted, 2);
    cr_assert_not(is_at(name), "a recovery leaves spill files");
    remove_second(second);
}

/* What the mail user puts in a spill file's place is not read: not a link, not a pipe, not another's file. */
Test(pressure, spill_file_replaced)
{
    char command[4 * FASTSPOOL_PATH_MAX], name[40];

    for (int i = 0; i < 2; i++)
        put("large", 0, bytes, sizeof(bytes), i * (off_t)sizeof(bytes));
    persist();
    evict(0);
    make_small();
    paging_begin(fs, NULL);
    int d = fastspool_open(fs, "large", O_RDONLY, 0);
    cr_assert_geq(d, 0);
    snprintf(name, sizeof(name), "%u-%u", number("large"), inode_at(fs, number("large"))->generation);
    static const char *const instead[] = {"ln -s /etc/passwd", "mkfifo", "touch"};
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof(command), "cd %s/spill && rm -f %s && %s %s", fs->state, name, instead[i], name);
        cr_assert_eq(system(command), 0);
        cr_assert_lt(fastspool_open(fs, "large", O_RDONLY, 0), 0, "%s", instead[i]);
    }
    char byte;
    cr_assert_eq(fastspool_pread(fs, d, &byte, 1, 5), 1, "who has it open reads on");
    fastspool_close(fs, d);
    paging_end(fs);
}

/* Blocks in quarantine are no reserve: while a commit copies, an ordinary process leaves the mirror's blocks alone. */
Test(pressure, quarantine_is_no_reserve)
{
    fill("f", 1, 500000);
    fill("g", 1, 300000);
    const struct header *h = fs->header;
    segment_limit(fs->header, h->memory_bytes);
    struct capture capture;
    cr_assert_eq(commit_capture(fs, &capture), 0);
    cr_assert_eq(fastspool_unlink(fs, "f"), 0); /* so its blocks are held */
    cr_assert_gt(h->blocks_held, h->reserve);
    fs->mirror = false;
    STORE(fs->header->commit_error, EIO); /* no long wait */
    int d = fastspool_open(fs, "h", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 4096) > 0)
        ;
    fs->mirror = true;
    cr_assert_geq(h->blocks_total - h->blocks_used - h->blocks_held, h->reserve);
    commit_end(fs, &capture, EIO, 0);
    fastspool_close(fs, d);
}

/* Where nothing may be evicted a writer waits, and then it is ENOSPC; with the first file closed there is room again.
 */
Test(pressure, nothing_may_go)
{
    mirror_begin_small();
    int d = fastspool_open(fs, "open", O_RDWR | O_CREAT, 0600);
    uint64_t begun = clock_monotonic();
    ssize_t put_ = 0, all = 0;
    while (all < 8 << 20 && (put_ = fastspool_write(fs, d, bytes, 65536)) > 0)
        all += put_;
    cr_assert_eq(put_, -ENOSPC);
    cr_assert_gt(all, 2 << 20);
    cr_assert_geq(clock_monotonic() - begun, UINT64_C(5000000000), "it didn't wait");
    cr_assert_neq(fs->header->space_told, 0, "syslog was not told");
    begun = clock_monotonic();
    cr_assert_eq(fastspool_write(fs, d, bytes, 65536), -ENOSPC);
    cr_assert_leq(clock_monotonic() - begun, UINT64_C(1000000000), "it waited again");
    fs->mirror = true;
    cr_assert_eq(fastspool_write(fs, d, bytes, 65536), 65536, "the mirror has no reserve");
    fs->mirror = false;
    fastspool_close(fs, d);
    fill("another", 1, 500000);
    mirror_end_small();
}

/* While commits fail nothing can go: the wait is short, and statvfs tells what is left. */
Test(pressure, nothing_may_go_while_commits_fail)
{
    struct statvfs before, after;

    make_small();
    paging_begin(fs, NULL);
    cr_assert_eq(fastspool_statvfs(fs, &before), 0);
    STORE(fs->header->commit_error, EIO);
    uint64_t begun = clock_monotonic();
    int d = fastspool_open(fs, "f", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 65536) > 0)
        ;
    cr_assert_leq(clock_monotonic() - begun, UINT64_C(4000000000));
    cr_assert_eq(fastspool_statvfs(fs, &after), 0);
    cr_assert_gt(before.f_bavail, 1000);
    cr_assert_leq(after.f_bavail, 256, "%lu blocks are said to be left", (unsigned long)after.f_bavail);
    fastspool_close(fs, d);
    paging_end(fs);
}

/* statvfs counts the files that memory has room for: names stay in memory. */
Test(pressure, room_for_files)
{
    struct statvfs before, after;
    char path[16];

    make_small();
    cr_assert_eq(fastspool_statvfs(fs, &before), 0);
    for (int i = 0; i < 5000; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "", 0, 0);
    }
    cr_assert_eq(fastspool_statvfs(fs, &after), 0);
    cr_assert_geq(before.f_favail - after.f_favail, 4600);
    cr_assert_leq(before.f_favail - after.f_favail, 5800);
    cr_assert_leq(after.f_bavail, after.f_favail, "a file takes a block at least");
}

/* Entries that one table has to spare make the next files cheaper: names that came and went leave as much room as there
 * was. */
Test(pressure, room_for_files_beside_free_names)
{
    struct statvfs before, after;
    char path[16];

    make_small();
    put("f", 0, "", 0, 0);
    cr_assert_eq(fastspool_statvfs(fs, &before), 0);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < 4000; i++) {
            snprintf(path, sizeof(path), "l%d", i);
            cr_assert_eq(pass ? fastspool_unlink(fs, path) : fastspool_link(fs, "f", path), 0);
        }
    }
    cr_assert_eq(fastspool_statvfs(fs, &after), 0);
    cr_assert_leq(before.f_favail, after.f_favail + 500, "%lu of %lu", (unsigned long)after.f_favail,
                  (unsigned long)before.f_favail);
    cr_assert_leq(after.f_favail, before.f_favail + 100, "%lu of %lu", (unsigned long)after.f_favail,
                  (unsigned long)before.f_favail);
}

static pthread_barrier_t together;

static void *grow_buckets(void *unused)
{
    pthread_barrier_wait(&together);
    segment_grow(fs, TABLE_BUCKETS);
    return unused;
}

/* Two tables grow at the same moment, and there is memory for one: one of them grows. */
Test(pressure, limit_holds_for_who_grows_side_by_side)
{
    struct header *h = fs->header;
    pthread_t thread;

    pthread_barrier_init(&together, NULL, 2);
    for (int i = 0; i < 60; i++) {
        uint64_t before = h->memory_bytes;
        segment_limit(h, before + (64 << 10));
        pthread_create(&thread, NULL, grow_buckets, NULL);
        pthread_barrier_wait(&together);
        segment_grow(fs, TABLE_DESCRIPTIONS);
        pthread_join(thread, NULL);
        cr_assert_eq(h->memory_bytes, before + (64 << 10), "round %d", i);
    }
}

/* Random work on more than memory holds, by processes side by side, agrees with a plain array, and with the disk. */
Test(pressure, model)
{
    enum { FILES = 120, SIZE = 200000 };
    static unsigned char model[FILES][SIZE];
    static size_t sizes[FILES];
    unsigned seed = 3;
    char path[16];

    mirror_begin_small();
    for (int round = 0; round < 4000; round++) {
        int f = (int)(rand_r(&seed) % FILES);
        snprintf(path, sizeof(path), "f%d", f);
        size_t offset = (size_t)rand_r(&seed) % (SIZE / 2), size = (size_t)rand_r(&seed) % (SIZE / 2) + 1;
        int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0600);
        cr_assert_geq(d, 0, "%s", strerror(-d));
        static unsigned char got[SIZE];
        switch (rand_r(&seed) % 6) {
        case 0:
            cr_assert_eq(fastspool_ftruncate(fs, d, (off_t)offset), 0);
            if (offset > sizes[f])
                memset(model[f] + sizes[f], 0, offset - sizes[f]);
            sizes[f] = offset;
            break;
        case 1:
            cr_assert_eq(fastspool_unlink(fs, path), 0);
            sizes[f] = 0;
            break;
        case 2:
        case 3:
            for (size_t i = 0; i < size; i++)
                got[i] = (unsigned char)rand_r(&seed);
            cr_assert_eq(fastspool_pwrite(fs, d, got, size, (off_t)offset), (ssize_t)size);
            if (offset > sizes[f])
                memset(model[f] + sizes[f], 0, offset - sizes[f]);
            memcpy(model[f] + offset, got, size);
            if (offset + size > sizes[f])
                sizes[f] = offset + size;
            break;
        default:
            cr_assert_eq(fastspool_pread(fs, d, got, SIZE, 0), (ssize_t)sizes[f], "round %d", round);
            cr_assert_eq(memcmp(got, model[f], sizes[f]), 0, "round %d, %s", round, path);
        }
        fastspool_close(fs, d);
    }
    cr_assert_gt(fs->header->brought_back, 1000);
    dump_all(fs, then_dump);
    mirror_end_small();
    commit(0);
    recovers(then_dump);
}

/* SPDX-License-Identifier: MIT
 *
 * Memory pressure: eviction, waiting for memory, spill files, and what statvfs reports.
 */
#include "base/clock.h"
#include "evicting.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/pager.h"
#include "mirror/recovery.h"
#include "store/change.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/orphans.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"
#include "store/table.h"

TestSuite(pressure, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

/* Make the store so small, 5 MiB, that it evicts all the time. */
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

/* The rest of the mirror, as a thread: it commits, and makes a checkpoint when one is wanted. */
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

/* Evicting a large file takes no memory, not even for an inode. */
Test(pressure, large_without_memory)
{
    char path[16];

    for (int i = 0; i < 3; i++)
        put("large", 0, bytes, sizeof(bytes), i * (off_t)sizeof(bytes));
    persist();
    const struct table *inodes = &fs->header->tables.inodes;
    for (int i = 0; inodes->used < inodes->capacity; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "", 0, 0);
    }
    persist();
    segment_limit(fs->header, fs->header->tables.memory_bytes);
    cr_assert_eq(inodes->free, 0);
    cr_assert_eq(fastspool_mkdir(fs, "one more", 0700), -ENOSPC, "an inode was free");
    evict(0);
    cr_assert(evicted("large"));
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* A wanted checkpoint stays due until one holds all durable changes, also with nothing pending in the journal. */
Test(pressure, wish)
{
    fill("f", 1, 9000);
    commit(0);
    uint64_t durable = fs->header->tickets.durable;
    STORE(fs->header->tickets.durable, 0); /* as before the batch was marked as durable */
    checkpoint();
    STORE(fs->header->tickets.durable, durable);
    cr_assert(evict(0), "it was not reported that files wait for a checkpoint");
    cr_assert_not(journal_files_due(&journal.pool));
    journal_files_want_checkpoint(&journal.pool);
    cr_assert(journal_files_due(&journal.pool));
    checkpoint();
    cr_assert_not(journal_files_due(&journal.pool));
    evict(0);
    cr_assert(evicted("f"));
}

/* A writer writes 30 MB into 5 MiB of memory, and all of it reads back. */
Test(pressure, larger_than_memory)
{
    char path[16];
    static char got[30000];

    mirror_begin_small();
    checking_every(10);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        fill(path, i, 30000);
    }
    cr_assert_gt(fs->header->residency.evicted, 800);
    cr_assert_leq(fs->header->tables.memory_bytes, fs->header->memory_limit);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        int d = fastspool_open(fs, path, O_RDONLY, 0);
        cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
        cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), sizeof(got));
        for (size_t at = 0; at < sizeof(got); at += 997)
            cr_assert_eq(got[at], (char)(i * 7 + at * 31 + at / 251), "%s, byte %zu", path, at);
        fastspool_close(fs, d);
    }
    cr_assert_leq(fs->header->tables.memory_bytes, fs->header->memory_limit);
    mirror_end_small();
}

/* Open files that were paged in leave memory for writers: the rest of them is spilled. */
Test(pressure, page_ins_leave_room)
{
    enum { FILES = 24 };
    int open_files[FILES];
    char path[16];

    segment_limit(fs->header, FILES * sizeof(bytes));
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        fill(path, i, sizeof(bytes));
        if (i % 4 == 3) {
            persist();
            evict(0);
        }
    }
    paging_begin(fs, note_checkpoint);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        open_files[i] = fastspool_open(fs, path, O_RDONLY, 0);
        cr_assert_geq(open_files[i], 0, "%s: %s", path, strerror(-open_files[i]));
    }
    cr_assert_leq(residency_in_use(fs->header), residency_most_large(fs->header));
    cr_assert_gt(fs->header->residency.spilled, 0);
    cr_assert_lt(fs->header->residency.spilled, FILES / 2);
    uint64_t before = clock_monotonic();
    put("small", 0, bytes, 9000, 0);
    cr_assert_lt(clock_monotonic() - before, 5 * NS_PER_S, "a writer waited for memory");
    for (unsigned i = 0; i < FILES; i++)
        fastspool_close(fs, open_files[i]);
    paging_end(fs);
}

static struct shared_database *closes_at_nap; /* in the first nap of a pager */
static int naps;

/* A pager that waits for memory sleeps again and again. */
int nanosleep(const struct timespec *time, struct timespec *left)
{
    if (closes_at_nap && naps++ == 0)
        __atomic_add_fetch(&closes_at_nap->closing, 1, __ATOMIC_ACQ_REL);
    errno = clock_nanosleep(CLOCK_MONOTONIC, 0, time, left);
    return errno ? -1 : 0;
}

/* A pager that waits for a file's memory gives way to a thread that must close the database.  The file stays wanted,
 * and is paged in later. */
Test(pressure, gives_way_to_a_closing_thread)
{
    fill("f", 1, 9000);
    persist();
    evict(0);
    segment_limit(fs->header, fs->header->tables.memory_bytes);
    int d = fastspool_open(fs, "open", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 4096) > 0)
        ;
    uint32_t i = number("f");
    cr_assert_eq(change_run(fs, paging_want, &i), 0);
    struct pager pager = paging_of(fs);
    closes_at_nap = &paging_database;
    cr_assert_eq(pager_serve(&pager, error), 1, "the file is not left for another call");
    closes_at_nap = NULL;
    cr_assert_eq(naps, 1, "it waited on");
    cr_assert_eq(fs->header->residency.spilled, 0, "the file was spilled");
    cr_assert(inode_at(fs, i)->flags & INODE_WANTED);
    paging_database.closing = 0;
    fastspool_close(fs, d);
    cr_assert_eq(fastspool_unlink(fs, "open"), 0);
    cr_assert_eq(orphans_free(fs), 0);
    cr_assert_eq(pager_serve(&pager, error), 0);
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

/* A file that is too large for memory is read from a spill file while it is open, also after it is unlinked.  Writing
 * to it and truncating it give ENOSPC. */
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
    put("large", 0, "end", 3, SIZE + 100000); /* after a hole */
    persist();
    evict(0);
    snprintf(name, sizeof(name), "%u-%u", number("large"), inode_at(fs, number("large"))->generation);
    make_small();
    paging_begin(fs, NULL);
    int d = fastspool_open(fs, "large", O_RDWR, 0), other = fastspool_open(fs, "large", O_RDONLY, 0);
    cr_assert_geq(d, 0, "%s", strerror(-d));
    cr_assert_geq(other, 0);
    cr_assert_eq(fs->header->residency.spilled, 1);
    cr_assert_eq(fs->header->blocks.used, 0);
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
    cr_assert_eq(fastspool_pread(fs, d, got, 3, SIZE + 100000), 3, "its data went with its name");
    cr_assert_eq(memcmp(got, "end", 3), 0);
    cr_assert_eq(fastspool_close(fs, d), 0);
    for (int tries = 0; is_at(name) && tries < 6000; tries++)
        usleep(10000);
    cr_assert_not(is_at(name), "the spill file was left");
    cr_assert_eq(fs->header->residency.spilled, 0);
    cr_assert_eq(fastspool_stat(fs, "large", &st), -ENOENT);
    paging_end(fs);
}

/* A spilled file is evicted again once every process has closed it.  Replacing it ends the spilling at once.  A
 * recovery knows no spilled file, and removes the spill files. */
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
    cr_assert_eq(fs->header->residency.spilled, 2);
    snprintf(name, sizeof(name), "%u-%u", number("closed"), inode_at(fs, number("closed"))->generation);
    fill("replaced", 1, 100);
    cr_assert_eq(fs->header->residency.spilled, 1);
    fastspool_close(fs, closed);
    fastspool_close(fs, replaced);
    for (int tries = 0; is_at(name) && tries < 6000; tries++)
        usleep(10000);
    cr_assert(evicted("closed"));
    cr_assert_eq(fs->header->residency.spilled, 0);
    closed = fastspool_open(fs, "closed", O_RDONLY, 0);
    cr_assert(is_at(name));
    paging_end(fs);
    commit(0);
    struct recovered recovered;
    struct fastspool *second = second_store();
    cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
    cr_assert_eq(second->header->residency.spilled, 0);
    cr_assert_eq(second->header->residency.evicted, 2);
    cr_assert_not(is_at(name), "a recovery left a spill file");
    remove_second(second);
}

/* What the mail user puts in place of a spill file is not read: a symbolic link, a FIFO, a file that is too short.  A
 * process that had the file open reads on. */
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
    cr_assert_eq(fastspool_pread(fs, d, &byte, 1, 5), 1, "a process that had it open can't read on");
    fastspool_close(fs, d);
    paging_end(fs);
}

/* Held blocks do not count as reserve: during a commit an ordinary process does not take the mirror's blocks. */
Test(pressure, quarantine_is_no_reserve)
{
    fill("f", 1, 500000);
    fill("g", 1, 300000);
    const struct header *h = fs->header;
    segment_limit(fs->header, h->tables.memory_bytes);
    struct capture capture;
    cr_assert_eq(capture_take(fs, &capture), 0);
    cr_assert_eq(fastspool_unlink(fs, "f"), 0); /* its blocks are held until the commit ends */
    cr_assert_gt(h->blocks.held, h->reserve);
    fs->mirror = false;
    STORE(fs->header->tickets.commit_error, -EIO); /* keeps the wait short */
    int d = fastspool_open(fs, "h", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 4096) > 0)
        ;
    fs->mirror = true;
    cr_assert_geq(h->blocks.total - h->blocks.used - h->blocks.held, h->reserve);
    capture_end(fs, &capture, -EIO, 0);
    fastspool_close(fs, d);
}

/* A writer waits while nothing can be evicted, then gets ENOSPC; its next write does not wait again.  Closing the first
 * file makes room again. */
Test(pressure, nothing_may_go)
{
    mirror_begin_small();
    int d = fastspool_open(fs, "open", O_RDWR | O_CREAT, 0600);
    uint64_t begun = clock_monotonic();
    ssize_t put_ = 0, all = 0;
    while (all < 8 << 20 && (put_ = fastspool_write(fs, d, bytes, 65536)) > 0)
        all += put_;
    cr_assert_eq(put_, -ENOSPC);
    cr_assert_gt(all, 1 << 20);
    cr_assert_geq(clock_monotonic() - begun, UINT64_C(5000000000), "it did not wait");
    cr_assert_neq(fs->header->residency.space_told, 0, "nothing was written to syslog");
    begun = clock_monotonic();
    cr_assert_eq(fastspool_write(fs, d, bytes, 65536), -ENOSPC);
    cr_assert_leq(clock_monotonic() - begun, UINT64_C(3000000000), "it waited again");
    fs->mirror = true;
    cr_assert_eq(fastspool_write(fs, d, bytes, 65536), 65536, "the mirror has no reserve");
    fs->mirror = false;
    fastspool_close(fs, d);
    fill("another", 1, 500000);
    mirror_end_small();
}

/* While commits fail nothing can be evicted: the wait is short, and statvfs shows what is left, to small files. */
Test(pressure, nothing_may_go_while_commits_fail)
{
    struct statvfs before, after;

    make_small();
    paging_begin(fs, NULL);
    cr_assert_eq(fastspool_statvfs(fs, &before), 0);
    STORE(fs->header->tickets.commit_error, -EIO);
    uint64_t begun = clock_monotonic();
    int d = fastspool_open(fs, "f", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 65536) > 0)
        ;
    cr_assert_leq(clock_monotonic() - begun, UINT64_C(4000000000));
    cr_assert_eq(fastspool_statvfs(fs, &after), 0);
    cr_assert_gt(before.f_bavail, 1000);
    cr_assert_leq(after.f_bavail, 600, "statvfs shows %lu blocks left", (unsigned long)after.f_bavail);
    fastspool_close(fs, d);
    paging_end(fs);
}

/* statvfs counts the files that fit into memory, because names stay there: 5,000 files take 4,600 to 5,800. */
Test(pressure, room_for_files)
{
    struct statvfs before, after;
    char path[16];

    checking_every(100);
    make_small();
    cr_assert_eq(fastspool_statvfs(fs, &before), 0);
    for (int i = 0; i < 5000; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, "", 0, 0);
    }
    cr_assert_eq(fastspool_statvfs(fs, &after), 0);
    cr_assert_geq(before.f_favail - after.f_favail, 4600);
    cr_assert_leq(before.f_favail - after.f_favail, 5800);
    cr_assert_leq(after.f_bavail, after.f_favail, "more free blocks than files, though a file takes a block at least");
}

/* Free entries of one table count as room for files: after 4,000 names were made and unlinked, statvfs shows about as
 * many free files as before. */
Test(pressure, room_for_files_beside_free_names)
{
    struct statvfs before, after;
    char path[16];

    checking_every(100);
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
    table_grow(fs, TABLE_BUCKETS);
    return unused;
}

/* Two tables grow at the same moment with memory for one: only one of them grows. */
Test(pressure, limit_holds_for_tables_that_grow_together)
{
    const struct header *h = fs->header;
    pthread_t thread;

    pthread_barrier_init(&together, NULL, 2);
    for (int i = 0; i < 60; i++) {
        uint64_t before = h->tables.memory_bytes;
        segment_limit(h, before + (64 << 10));
        pthread_create(&thread, NULL, grow_buckets, NULL);
        pthread_barrier_wait(&together);
        table_grow(fs, TABLE_DESCRIPTIONS);
        pthread_join(thread, NULL);
        cr_assert_eq(h->tables.memory_bytes, before + (64 << 10), "round %d", i);
    }
}

/* Random work on more than memory holds, with a pager and commits beside it, agrees with a plain array, and a recovery
 * restores it. */
Test(pressure, model)
{
    enum { FILES = 120, SIZE = 200000 };
    static unsigned char model[FILES][SIZE];
    static size_t sizes[FILES];
    unsigned seed = 3;
    char path[16];

    mirror_begin_small();
    checking_every(10);
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
    cr_assert_gt(fs->header->residency.brought_back, 1000);
    dump_all(fs, then_dump);
    mirror_end_small();
    commit(0);
    recovers(then_dump);
}

/* SPDX-License-Identifier: MIT
 *
 * Eviction and coming back: what may go and what goes first, that nobody sees a difference, who waits for what, and what
 * happens where there is no memory.
 */
#include "durable.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>

TestSuite(eviction, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

static char bytes[1 << 20];

/* A file of @size bytes that tell its @seed. */
static void fill(const char *path, unsigned seed, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(seed * 7 + i * 31 + i / 251);
    put(path, O_TRUNC, bytes, size, 0);
}

static uint32_t number(const char *path)
{
    struct stat st;

    cr_assert_eq(fastspool_stat(fs, path, &st), 0, "%s", path);
    return (uint32_t)st.st_ino;
}

static bool evicted(const char *path)
{
    return inode_at(fs, number(path))->flags & INODE_EVICTED;
}

static bool evict(uint64_t least)
{
    bool unready;

    cr_assert_geq(eviction_run(fs, least ? UINT64_MAX : 0, least ? least : UINT64_MAX, &unready), 0);
    return unready;
}

static void persist(void)
{
    commit(0);
    checkpoint();
}

/* What is coldest goes first, as much as is asked for; what was opened since gets a second chance. */
Test(eviction, coldest_first)
{
    char path[16];

    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, 10000);
        commit(0); /* one after the other */
    }
    checkpoint();
    put("f1", 0, "", 0, 0); /* opened, not changed */
    evict(9);
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        cr_assert_eq(evicted(path), i == 0 || i == 2 || i == 3, "%s", path);
    }
    cr_assert_eq(fs->header->evicted, 3);
    evict(0);
    cr_assert_eq(fs->header->evicted, 8, "a second chance is one");
    cr_assert_eq(fs->header->blocks_used, 0);
}

/* What is open, what has changed, and what no checkpoint holds stays. */
Test(eviction, what_stays)
{
    fill("open", 1, 5000);
    fill("changed", 2, 5000);
    fill("new", 3, 5000);
    fill("empty", 4, 0);
    commit(0);
    cr_assert(evict(0), "what waits for a checkpoint is told");
    cr_assert_eq(fs->header->evicted, 0, "what no checkpoint holds went");
    checkpoint();
    int d = fastspool_open(fs, "open", O_RDONLY, 0);
    put("changed", 0, "x", 1, 4999);
    fill("new", 5, 6000);
    commit(0);
    put("changed", 0, "y", 1, 4999);
    evict(0);
    cr_assert_eq(fs->header->evicted, 0);
    fastspool_close(fs, d);
    evict(0);
    cr_assert(evicted("open"));
    cr_assert_eq(fs->header->evicted, 1);
}

/* Sizes around blocks, chunks and windows, holes, long files: all comes back as it was, attributes as if it had not gone. */
Test(eviction, comes_back)
{
    static const size_t sizes[] = {1, 4071, 4072, 4073, 4095, 4096, 4097, 8144, 16384, 65535, 65536, 65537, 700000, 1 << 20};
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
    uint64_t used = fs->header->blocks_used;
    evict(0);
    cr_assert_eq(fs->header->blocks_used, 0);
    cr_assert_eq(fs->header->evicted, sizeof(sizes) / sizeof(*sizes) + 2);
    paging_begin(fs, NULL);
    cr_assert_str_eq(dump_all(fs, now_dump), then_dump);
    paging_end(fs);
    cr_assert_leq(fs->header->blocks_used, used + 4, "holes were filled");
    cr_assert_eq(fs->header->evicted, 0);
    cr_assert_eq(fs->header->dirty_files, 0, "what came back is as clean as it went");
    recovers(then_dump);
}

/* Names, modes, owners and times of an evicted file change without its data; the disk follows. */
Test(eviction, attributes_change)
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
    cr_assert_eq(fs->header->evicted, 4);
    persist();
    paging_begin(fs, NULL);
    dump_all(fs, then_dump);
    paging_end(fs);
    recovers(then_dump);
}

/* By path and evicted: truncated to nothing at once, to a part when it is back; opened to be truncated without waiting. */
Test(eviction, truncation)
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
    cr_assert_eq(fs->header->evicted, 2);
    cr_assert_eq(fastspool_truncate(fs, "part", 5000), -EDEADLK, "without a pager it would wait");
    paging_begin(fs, NULL);
    cr_assert_eq(fastspool_truncate(fs, "part", 5000), 0);
    cr_assert_eq(fastspool_truncate(fs, "longer", 20000), 0);
    dump_all(fs, then_dump);
    paging_end(fs);
    commit(0);
    recovers(then_dump);
}

/* What a queue run reads through goes again before what is hot. */
Test(eviction, a_scan_keeps_what_is_hot)
{
    char path[16];

    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        fill(path, (unsigned)i, 5000);
    }
    persist();
    evict(0);
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

/* ---- waiting ---- */

static int want_it(struct fastspool *store, void *argument)
{
    eviction_want(store, *(uint32_t *)argument);
    return 0;
}

struct reader {
    const char *path;
    int result;  /* of the open */
    bool whole;
};

static void *read_it(void *argument)
{
    struct reader *reader = argument;
    char got[9000];
    int d = reader->result = fastspool_open(fs, reader->path, O_RDONLY, 0);

    if (d >= 0) {
        reader->whole = fastspool_pread(fs, d, got, sizeof(got), 0) == sizeof(got) && memcmp(got, bytes, sizeof(got)) == 0;
        fastspool_close(fs, d);
    }
    return NULL;
}

static void wait_until_wanted(void)
{
    while (LOAD(fs->header->faults.head) == 0)
        usleep(1000);
}

static int unlinked;

static void *unlink_f(void *argument)
{
    (void)argument;
    unlinked = fastspool_unlink(fs, "f");
    return NULL;
}

struct half_file {
    uint32_t inode;
    uint64_t offset;
};

static int half_load(struct fastspool *store, void *argument)
{
    const struct half_file *half = argument;
    return data_load(store, half->inode, "wrong", 5, half->offset);
}

/* A file that is wanted can be unlinked, renamed over, and deleted on the disk: its opener gets all of it. */
Test(eviction, unlinked_while_wanted)
{
    struct reader reader = {.path = "f"};
    pthread_t waiter, unlinker;

    fill("f", 1, 9000);
    persist();
    evict(0);
    fs->mirror = false;
    pthread_create(&waiter, NULL, read_it, &reader);
    wait_until_wanted();
    pthread_create(&unlinker, NULL, unlink_f, NULL);
    usleep(200000);
    persist(); /* were its end in this, it could not be read any more */
    paging_begin(fs, NULL);
    pthread_join(waiter, NULL);
    pthread_join(unlinker, NULL);
    paging_end(fs);
    cr_assert_geq(reader.result, 0);
    cr_assert(reader.whole);
    cr_assert_eq(unlinked, 0);
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "f", &st), -ENOENT);
    persist();
}

/* A file that can't be brought back can be unlinked all the same. */
Test(eviction, unlinked_while_wanted_in_vain)
{
    struct reader reader = {.path = "f"};
    pthread_t waiter, unlinker;
    char command[4 * FASTSPOOL_PATH_MAX];

    fill("f", 1, 9000);
    persist();
    evict(0);
    fs->mirror = false;
    unlinked = 1;
    pthread_create(&waiter, NULL, read_it, &reader);
    wait_until_wanted();
    pthread_create(&unlinker, NULL, unlink_f, NULL);
    usleep(100000);
    snprintf(command, sizeof(command), "rm -r %s/mirror", fs->state);
    cr_assert_eq(system(command), 0);
    paging_begin(fs, NULL);
    pthread_join(waiter, NULL);
    pthread_join(unlinker, NULL);
    paging_end(fs);
    cr_assert_eq(reader.result, -EIO);
    cr_assert_eq(unlinked, 0);
}

/* A file that is truncated while it is read from the database, which doesn't wait for that, keeps its new content. */
Test(eviction, truncated_while_read)
{
    struct pager pager = paging_of(fs);
    struct mirror *mirror;
    MDB_txn *transaction;
    struct fault fault;
    uint32_t i;

    fill("f", 1, 9000);
    persist();
    evict(0);
    i = number("f");
    cr_assert_eq(section_run(fs, want_it, &i), 0);
    cr_assert_eq(eviction_faults(fs, &fault, 1), 1);
    cr_assert_eq(database_enter(pager.database, &mirror, error), 0);
    cr_assert_eq(mdb_txn_begin(mirror->environment, NULL, MDB_RDONLY, &transaction), 0);
    fill("f", 2, 9000);
    cr_assert_eq(pager_load(fs, mirror, transaction, &fault, -1), -ESTALE);
    cr_assert_eq(eviction_end_fault(fs, &fault, false, 0, false), 0);
    mdb_txn_abort(transaction);
    database_leave(pager.database, false);
    database_end(&paging_database);
    char got[9000];
    int d = fastspool_open(fs, "f", O_RDONLY, 0);
    cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), sizeof(got));
    cr_assert_eq(memcmp(got, bytes, sizeof(got)), 0);
    fastspool_close(fs, d);
}

/* A pager that died in the middle of a file is replaced; who waits gets the file. */
Test(eviction, pager_dies)
{
    struct reader reader = {.path = "f"};
    pthread_t waiter;

    fill("f", 1, 9000);
    persist();
    evict(0);
    fs->mirror = false;
    pthread_create(&waiter, NULL, read_it, &reader);
    wait_until_wanted();
    for (int half = 0; half < 2; half++) { /* it had filled in this much */
        struct half_file part = {number("f"), half * BLOCK_SIZE};
        cr_assert_eq(section_run(fs, half_load, &part), 0);
    }
    paging_begin(fs, NULL);
    pthread_join(waiter, NULL);
    paging_end(fs);
    cr_assert_geq(reader.result, 0);
    cr_assert(reader.whole);
}

/* A page that can't be read was the end of the mirror: its file fails, with EIO, and the others come. */
Test(eviction, fatal_page)
{
    struct reader bad = {.path = "bad"}, good = {.path = "f"};
    pthread_t waiters[2];

    fill("bad", 1, 9000);
    fill("f", 1, 9000);
    persist();
    evict(0);
    STORE(fs->header->fault_fatal, number("bad"));
    fs->mirror = false;
    pthread_create(&waiters[0], NULL, read_it, &bad);
    pthread_create(&waiters[1], NULL, read_it, &good);
    while (fs->header->faults.head == fs->header->faults.tail)
        usleep(1000);
    paging_begin(fs, NULL);
    pthread_join(waiters[0], NULL);
    pthread_join(waiters[1], NULL);
    cr_assert_eq(bad.result, -EIO);
    cr_assert(good.whole);
    read_it(&bad);
    cr_assert_eq(bad.result, -EIO, "it was the end of another mirror");
    fill("bad", 2, 100);
    cr_assert_geq(fastspool_open(fs, "bad", O_RDONLY, 0), 0, "replaced, it is as good as any");
    paging_end(fs);
}

/* A database without the file, or with another one under its number: EIO for who opens it, and nobody hangs. */
Test(eviction, damaged)
{
    char away[FASTSPOOL_PATH_MAX + 16], path[FASTSPOOL_PATH_MAX + 16];
    struct reader reader = {.path = "f"};

    fill("f", 1, 9000);
    persist();
    evict(0);
    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    snprintf(away, sizeof(away), "%s/away", fs->state);
    cr_assert_eq(rename(path, away), 0);
    paging_begin(fs, NULL);
    read_it(&reader);
    cr_assert_eq(reader.result, -EIO);
    paging_end(fs);
    char command[4 * FASTSPOOL_PATH_MAX];
    snprintf(command, sizeof(command), "rm -r %s && mv %s %s", path, away, path);
    cr_assert_eq(system(command), 0);
    paging_begin(fs, NULL);
    read_it(&reader);
    cr_assert(reader.whole, "with its database back the file is there");
    paging_end(fs);
}

/* A database of before, in which another file had this number: EIO, and never another file's bytes. */
Test(eviction, another_ones_data)
{
    struct reader reader = {.path = "g"};

    fill("f", 1, 9000);
    persist();
    uint32_t i = number("f");
    cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    char command[4 * FASTSPOOL_PATH_MAX];
    snprintf(command, sizeof(command), "cp -r %s/mirror %s/before", fs->state, fs->state);
    cr_assert_eq(system(command), 0);
    persist();
    fill("g", 2, 9000);
    cr_assert_eq(number("g"), i, "the number is used again");
    persist();
    evict(0);
    snprintf(command, sizeof(command), "rm -r %s/mirror && mv %s/before %s/mirror", fs->state, fs->state, fs->state);
    cr_assert_eq(system(command), 0);
    paging_begin(fs, NULL);
    read_it(&reader);
    cr_assert_eq(reader.result, -EIO);
    paging_end(fs);
}

/* What was read before the file changed, went and was wanted again is not filled in: it is read anew. */
Test(eviction, changed_since)
{
    struct fault before, now;
    uint32_t i;

    fill("f", 1, 9000);
    persist();
    evict(0);
    i = number("f");
    cr_assert_eq(section_run(fs, want_it, &i), 0);
    cr_assert_eq(eviction_faults(fs, &before, 1), 1);
    fill("f", 2, 9000); /* truncated, so that nobody wants the old content any more */
    cr_assert_eq(eviction_end_fault(fs, &before, false, 0, false), 0);
    persist();
    evict(0);
    cr_assert_eq(section_run(fs, want_it, &i), 0);
    cr_assert_eq(eviction_end_fault(fs, &before, false, 0, false), -ESTALE);
    cr_assert(evicted("f"));
    cr_assert_eq(eviction_faults(fs, &now, 1), 1);
    cr_assert_neq(now.ticket, before.ticket);
}

/* ---- no memory ---- */

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
Test(eviction, large_without_memory)
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
Test(eviction, wish)
{
    fill("f", 1, 9000);
    commit(0);
    uint64_t durable = fs->header->durable;
    STORE(fs->header->durable, 0); /* its batch is durable, and that is yet to be said */
    checkpoint();
    STORE(fs->header->durable, durable);
    cr_assert(evict(0), "what waits for a checkpoint is told");
    cr_assert_not(journal_due(&journal));
    journal_want_checkpoint(&journal);
    cr_assert(journal_due(&journal));
    checkpoint();
    cr_assert_not(journal_due(&journal));
    evict(0);
    cr_assert(evicted("f"));
}

/* More than memory can hold is written by one writer after the other, who wait for eviction, and all of it is there. */
Test(eviction, larger_than_memory)
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
    __atomic_add_fetch(&((struct database *)database)->closing, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

/* Whoever has to close the database doesn't wait until a file has got its memory: it is still wanted, and served later. */
Test(eviction, gives_way_to_who_closes)
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
    uint64_t begun = segment_monotonic();
    cr_assert_eq(pager_bring_back(&pager, error), 1, "it has to be asked again");
    cr_assert_lt(segment_monotonic() - begun, UINT64_C(900000000), "it waited to the end, a second");
    pthread_join(closer, NULL);
    cr_assert_eq(fs->header->spilled, 0, "the file was put aside");
    cr_assert(inode_at(fs, i)->flags & INODE_WANTED);
    paging_database.closing = 0;
    fastspool_close(fs, d);
    cr_assert_eq(fastspool_unlink(fs, "open"), 0);
    cr_assert_eq(inodes_free_orphans(fs), 0);
    cr_assert_eq(pager_bring_back(&pager, error), 0);
    cr_assert_not(evicted("f"));
    database_end(&paging_database);
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
Test(eviction, spilled)
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
Test(eviction, spilled_no_more)
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
Test(eviction, spill_file_replaced)
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
Test(eviction, quarantine_is_no_reserve)
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

/* Where nothing may be evicted a writer waits, and then it is ENOSPC; with the first file closed there is room again. */
Test(eviction, nothing_may_go)
{
    mirror_begin_small();
    int d = fastspool_open(fs, "open", O_RDWR | O_CREAT, 0600);
    uint64_t begun = segment_monotonic();
    ssize_t put_ = 0, all = 0;
    while (all < 8 << 20 && (put_ = fastspool_write(fs, d, bytes, 65536)) > 0)
        all += put_;
    cr_assert_eq(put_, -ENOSPC);
    cr_assert_gt(all, 2 << 20);
    cr_assert_geq(segment_monotonic() - begun, UINT64_C(5000000000), "it didn't wait");
    cr_assert_neq(fs->header->space_told, 0, "syslog was not told");
    begun = segment_monotonic();
    cr_assert_eq(fastspool_write(fs, d, bytes, 65536), -ENOSPC);
    cr_assert_leq(segment_monotonic() - begun, UINT64_C(1000000000), "it waited again");
    fs->mirror = true;
    cr_assert_eq(fastspool_write(fs, d, bytes, 65536), 65536, "the mirror has no reserve");
    fs->mirror = false;
    fastspool_close(fs, d);
    fill("another", 1, 500000);
    mirror_end_small();
}

/* While commits fail nothing can go: the wait is short, and statvfs tells what is left. */
Test(eviction, nothing_may_go_while_commits_fail)
{
    struct statvfs before, after;

    make_small();
    paging_begin(fs, NULL);
    cr_assert_eq(fastspool_statvfs(fs, &before), 0);
    STORE(fs->header->commit_error, EIO);
    uint64_t begun = segment_monotonic();
    int d = fastspool_open(fs, "f", O_RDWR | O_CREAT, 0600);
    while (fastspool_write(fs, d, bytes, 65536) > 0)
        ;
    cr_assert_leq(segment_monotonic() - begun, UINT64_C(4000000000));
    cr_assert_eq(fastspool_statvfs(fs, &after), 0);
    cr_assert_gt(before.f_bavail, 1000);
    cr_assert_leq(after.f_bavail, 256, "%lu blocks are said to be left", (unsigned long)after.f_bavail);
    fastspool_close(fs, d);
    paging_end(fs);
}

/* statvfs counts the files that memory has room for: names stay in memory. */
Test(eviction, room_for_files)
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

/* Entries that one table has to spare make the next files cheaper: names that came and went leave as much room as there was. */
Test(eviction, room_for_files_beside_free_names)
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
    cr_assert_leq(before.f_favail, after.f_favail + 500, "%lu of %lu", (unsigned long)after.f_favail, (unsigned long)before.f_favail);
    cr_assert_leq(after.f_favail, before.f_favail + 100, "%lu of %lu", (unsigned long)after.f_favail, (unsigned long)before.f_favail);
}

static pthread_barrier_t together;

static void *grow_buckets(void *unused)
{
    pthread_barrier_wait(&together);
    segment_grow(fs, TABLE_BUCKETS);
    return unused;
}

/* Two tables grow at the same moment, and there is memory for one: one of them grows. */
Test(eviction, limit_holds_for_who_grows_side_by_side)
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
Test(eviction, model)
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

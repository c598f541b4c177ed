/* SPDX-License-Identifier: MIT
 *
 * Faults: who waits for a file that is not in memory, what becomes of it meanwhile, and what can't be brought back.
 */
#include "evicting.h"
#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/pagein.h"
#include "mirror/pager.h"
#include "store/change.h"
#include "store/data.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"

TestSuite(pageins, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

static int want_it(struct fastspool *store, void *argument)
{
    residency_want(store, *(uint32_t *)argument);
    return 0;
}

/* The file is wanted, in a section, as by somebody who opens it; as the pager finds it. */
static struct pagein want(const char *path)
{
    struct pagein pagein;
    uint32_t i = number(path);

    cr_assert_eq(change_run(fs, want_it, &i), 0);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    return pagein;
}

struct reader {
    const char *path;
    int result; /* of the open */
    bool whole;
};

static void *read_it(void *argument)
{
    struct reader *reader = argument;
    char got[9000];
    int d = reader->result = fastspool_open(fs, reader->path, O_RDONLY, 0);

    if (d >= 0) {
        reader->whole =
            fastspool_pread(fs, d, got, sizeof(got), 0) == sizeof(got) && memcmp(got, bytes, sizeof(got)) == 0;
        fastspool_close(fs, d);
    }
    return NULL;
}

static void wait_until_wanted(void)
{
    while (LOAD(fs->header->residency.pageins.head) == 0)
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
Test(pageins, unlinked_while_wanted)
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
Test(pageins, unlinked_while_wanted_in_vain)
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
Test(pageins, truncated_while_read)
{
    struct pager pager = paging_of(fs);
    struct database *database;
    MDB_txn *transaction;

    fill("f", 1, 9000);
    persist();
    evict(0);
    struct pagein pagein = want("f");
    cr_assert_eq(shared_database_enter(pager.database, &database, error), 0);
    cr_assert_eq(mdb_txn_begin(database->environment, NULL, MDB_RDONLY, &transaction), 0);
    fill("f", 2, 9000);
    cr_assert_eq(pager_load(fs, database, transaction, &pagein, -1), -ESTALE);
    cr_assert_eq(pagein_end(fs, &pagein, false, 0, false), 0);
    mdb_txn_abort(transaction);
    shared_database_leave(pager.database, false);
    shared_database_end(&paging_database);
    char got[9000];
    int d = fastspool_open(fs, "f", O_RDONLY, 0);
    cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), sizeof(got));
    cr_assert_eq(memcmp(got, bytes, sizeof(got)), 0);
    fastspool_close(fs, d);
}

/* A pager that died in the middle of a file is replaced; who waits gets the file. */
Test(pageins, pager_dies)
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
        cr_assert_eq(change_run(fs, half_load, &part), 0);
    }
    paging_begin(fs, NULL);
    pthread_join(waiter, NULL);
    paging_end(fs);
    cr_assert_geq(reader.result, 0);
    cr_assert(reader.whole);
}

/* A page that can't be read was the end of the mirror: its file fails, with EIO, and the others come. */
Test(pageins, fatal_page)
{
    struct reader bad = {.path = "bad"}, good = {.path = "f"};
    pthread_t waiters[2];

    fill("bad", 1, 9000);
    fill("f", 1, 9000);
    persist();
    evict(0);
    STORE(fs->header->residency.pagein_fatal, number("bad"));
    fs->mirror = false;
    pthread_create(&waiters[0], NULL, read_it, &bad);
    pthread_create(&waiters[1], NULL, read_it, &good);
    while (fs->header->residency.pageins.head == fs->header->residency.pageins.tail)
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
Test(pageins, damaged)
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
Test(pageins, another_ones_data)
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
Test(pageins, changed_since)
{
    fill("f", 1, 9000);
    persist();
    evict(0);
    struct pagein before = want("f");
    fill("f", 2, 9000); /* truncated, so that nobody wants the old content any more */
    cr_assert_eq(pagein_end(fs, &before, false, 0, false), 0);
    persist();
    evict(0);
    struct pagein now = want("f");
    cr_assert_eq(pagein_end(fs, &before, false, 0, false), -ESTALE);
    cr_assert(evicted("f"));
    cr_assert_eq(pagein_collect(fs, &now, 1), 1, "it is wanted still");
    cr_assert_neq(now.ticket, before.ticket);
}

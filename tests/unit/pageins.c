/* SPDX-License-Identifier: MIT
 *
 * Page-ins: the waiters for an evicted file, what may happen to the file meanwhile, and page-ins that fail.
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

/* Request the file in a section, as an open does, and return the request as the pager finds it. */
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

/* A thread opens the evicted file "f", and waits for a pager: there is none yet. */
static void open_evicted(pthread_t *waiter, struct reader *reader)
{
    fill("f", 1, 9000);
    persist();
    evict(0);
    fs->mirror = false;
    pthread_create(waiter, NULL, read_it, reader);
    wait_until_wanted();
}

/* A file can be unlinked while an opener waits for it, also across a checkpoint: the opener gets the whole content. */
Test(pageins, unlinked_while_wanted)
{
    struct reader reader = {.path = "f"};
    pthread_t waiter, unlinker;

    open_evicted(&waiter, &reader);
    pthread_create(&unlinker, NULL, unlink_f, NULL);
    usleep(200000);
    persist(); /* if this held the unlink, the file could no longer be read */
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

/* A file whose page-in fails can be unlinked, and its opener gets EIO. */
Test(pageins, unlinked_when_its_page_in_fails)
{
    struct reader reader = {.path = "f"};
    pthread_t waiter, unlinker;
    char command[4 * FASTSPOOL_PATH_MAX];

    unlinked = 1;
    open_evicted(&waiter, &reader);
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

/* Truncating a file does not wait while the pager reads it from the database, and the file keeps its new content. */
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

/* A new pager replaces one that died half-way through a file, and the waiter gets the whole file. */
Test(pageins, pager_dies)
{
    struct reader reader = {.path = "f"};
    pthread_t waiter;

    open_evicted(&waiter, &reader);
    for (int half = 0; half < 2; half++) { /* what the dead pager had filled in */
        struct half_file part = {number("f"), half * BLOCK_SIZE};
        cr_assert_eq(change_run(fs, half_load, &part), 0);
    }
    paging_begin(fs, NULL);
    pthread_join(waiter, NULL);
    paging_end(fs);
    cr_assert_geq(reader.result, 0);
    cr_assert(reader.whole);
}

/* A file whose page-in has killed a mirror fails with EIO, also at the next open.  Other files are paged in, and
 * replacing the file cures it. */
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
    cr_assert_eq(bad.result, -EIO, "the next open tried the page-in again");
    fill("bad", 2, 100);
    cr_assert_geq(fastspool_open(fs, "bad", O_RDONLY, 0), 0, "a replaced file can't be opened");
    paging_end(fs);
}

/* Opening an evicted file gives EIO while the database is missing, and works once the database is back. */
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
    cr_assert(reader.whole, "the file is not read though its database is back");
    paging_end(fs);
}

/* With an older database, in which another file had this inode number, an open gives EIO and no other file's bytes. */
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
    cr_assert_eq(number("g"), i, "the number was not reused");
    persist();
    evict(0);
    snprintf(command, sizeof(command), "rm -r %s/mirror && mv %s/before %s/mirror", fs->state, fs->state, fs->state);
    cr_assert_eq(system(command), 0);
    paging_begin(fs, NULL);
    read_it(&reader);
    cr_assert_eq(reader.result, -EIO);
    paging_end(fs);
}

/* Data that was read before a file changed, was evicted and was wanted again is not filled in: the request stays. */
Test(pageins, changed_since)
{
    fill("f", 1, 9000);
    persist();
    evict(0);
    struct pagein before = want("f");
    fill("f", 2, 9000); /* truncates it, which ends the request */
    cr_assert_eq(pagein_end(fs, &before, false, 0, false), 0);
    persist();
    evict(0);
    struct pagein now = want("f");
    cr_assert_eq(pagein_end(fs, &before, false, 0, false), -ESTALE);
    cr_assert(evicted("f"));
    cr_assert_eq(pagein_collect(fs, &now, 1), 1, "the request was lost");
    cr_assert_neq(now.ticket, before.ticket);
}

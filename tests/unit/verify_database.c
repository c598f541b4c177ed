/* SPDX-License-Identifier: MIT
 *
 * The verification of the database: an entry that is damaged in each kind of field, a file that is missing, cut short
 * or of another time, is found and named; what is well is left in peace, and nothing is changed.
 */
#include "evicting.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/database.h"
#include "mirror/database_view.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"
#include "mirror/verify_inside.h"
#include "store/store.h"
#include "verifying.h"

#include <signal.h>
#include <sys/wait.h>

TestSuite(verify_database, .init = verifying_setup, .fini = verifying_teardown, .timeout = 60);

static void fill_database(void)
{
    fill("input/a", 1, 9000);
    fill("input/b", 2, 100);
    cr_assert_eq(fastspool_mkdir(fs, "input/c", 0750), 0);
    persist();
    fill("input/later", 3, 100);
    commit(0);
}

/* Rewrite a value of the database: its bytes [@at, @at + @size) become @bytes; @size 0: the value goes; @length: it
 * gets so long. */
static void edit(bool data, uint32_t i, uint32_t slice, size_t at, const void *bytes_to, size_t size, size_t length)
{
    const struct format_key name = data ? format_slice_key(i, slice) : format_inode_key(i);
    MDB_val key = database_key(&name), value;
    struct database database;
    struct disk_meta meta;
    MDB_txn *transaction;
    static char copy[8192];

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    cr_assert_eq(database_open(&database, path, error), 0, "%s", error);
    cr_assert_eq(database_begin(&database, &transaction, &meta, error), 0);
    MDB_dbi table = data ? database.data : database.inodes;
    memset(copy, 0, sizeof(copy));
    if (mdb_get(transaction, table, &key, &value) == 0) {
        memcpy(copy, value.mv_data, value.mv_size);
        cr_assert_eq(mdb_del(transaction, table, &key, NULL), 0);
    } else {
        value.mv_size = 0;
    }
    if (size > 0) {
        memcpy(copy + at, bytes_to, size);
        value = (MDB_val){length ? length : value.mv_size > at + size ? value.mv_size : at + size, copy};
        cr_assert_eq(mdb_put(transaction, table, &key, &value, 0), 0);
    }
    cr_assert_eq(database_commit(&database, transaction, &meta, error), 0);
    database_close(&database);
}

static void edit_inode(uint32_t i, size_t at, uint32_t number_to)
{
    edit(false, i, 0, at, &number_to, sizeof(number_to), 0);
}

static void database_mutant(const char *what, const char *words)
{
    cr_expect_gt(verify(false), 0, "%s: NOT FOUND", what);
    cr_expect(told(words), "%s: %s", what, said());
    restore("well");
    must_be_well(what);
}

Test(verify_database, entries_of_the_database)
{
    const size_t name_at_ = sizeof(struct disk_inode);

    fill_database();
    must_be_well("before");
    cr_assert_eq(verified.inodes, 5);
    cr_assert_eq(verified.slices, 4);
    cr_assert_eq(verified.batches, 1);
    keep("well");
    uint32_t a = number("input/a"), b = number("input/b"), c = number("input/c"), input = number("input");

    edit_inode(a, offsetof(struct disk_inode, mode), 0120640);
    database_mutant("mode", "neither a file nor a directory");
    edit_inode(a, offsetof(struct disk_inode, mode), 0040750);
    database_mutant("a file became a directory", "is of no file");
    edit_inode(a, offsetof(struct disk_inode, size), 4000);
    database_mutant("size", "and the file has 4000");
    edit_inode(a, offsetof(struct disk_inode, names), 0);
    database_mutant("no names", "bytes too many");
    edit_inode(a, offsetof(struct disk_inode, names), 2);
    database_mutant("more names", "name 2 of 2 is none that a file can have");
    edit_inode(a, offsetof(struct disk_inode, zero), 1);
    database_mutant("zero", "bytes too many");
    edit_inode(a, name_at_ + offsetof(struct disk_name, parent), b);
    database_mutant("parent is a file", "which is none");
    edit_inode(a, name_at_ + offsetof(struct disk_name, parent), 99);
    database_mutant("parent is missing", "directory 99, which is none");
    edit_inode(c, name_at_ + offsetof(struct disk_name, parent), c);
    database_mutant("a directory above itself", "does not lead up to the root");
    edit_inode(a, name_at_ + offsetof(struct disk_name, length), 300);
    database_mutant("length of a name", "is none that a file can have");
    edit(false, a, 0, name_at_ + sizeof(struct disk_name), "/", 1, 0);
    database_mutant("a slash in a name", "is none that a file can have");
    edit(false, a, 0, name_at_ + sizeof(struct disk_name), "b", 1, 0);
    database_mutant("the name of another", "have the same name in directory");
    edit(false, a, 0, 0, "x", 1, 10);
    database_mutant("a short value", "10 bytes that are neither");
    edit(false, a, 0, 0, NULL, 0, 0);
    database_mutant("an inode is missing", "is of no file");
    edit(false, input, 0, 0, NULL, 0, 0);
    database_mutant("a directory is missing", "which is none");
    edit(false, fs->header->tree.root, 0, 0, NULL, 0, 0);
    database_mutant("the root is missing", "the spool's own directory, inode 1, is missing");
    edit(true, 77, 0, 0, "x", 1, 0);
    database_mutant("a slice of nobody", "slice 0 of inode 77 is of no file");
    edit(true, a, 5, 0, "x", 1, 0);
    database_mutant("a slice behind the end", "slice 5 of inode");
    edit(true, a, 0, 0, "x", 1, 5000);
    database_mutant("a slice too long", "has 5000 bytes");
}

/* What is evicted lies in the database alone: there it must be, with its generation and size. */
Test(verify_database, evicted_files)
{
    fill("input/a", 1, 9000);
    fill("input/b", 2, 100);
    persist();
    evict(0);
    must_be_well("before");
    keep("well");
    uint32_t a = number("input/a");
    cr_assert_eq(verify(true), 0);
    cr_assert_eq(verified.evicted, 2);
    edit_inode(a, offsetof(struct disk_inode, generation), 8);
    cr_assert_eq(verify(true), 1);
    cr_assert(told("is evicted, generation 0, 9000 bytes, and the database holds a file, generation 8"), "%s", said());
    restore("well");
    edit_inode(a, offsetof(struct disk_inode, size), 9001);
    cr_assert_eq(verify(true), 1);
    cr_assert_eq(verify(false), 0, "%s", said());
    restore("well");
    in_state("rm -r mirror", 0, 0);
    cr_assert_geq(verify(true), 1);
    cr_assert(told("it is missing, and 2 files are evicted to it"), "%s", said());
}

Test(verify_database, files_of_the_database)
{
    fill_database();
    keep("well");
    in_state("rm mirror/data.mdb", 0, 0);
    cr_assert_gt(verify(true), 0);
    cr_assert(told("database: open the database's file: No such file"), "%s", said());
    restore("well");
    in_state("truncate -s 12288 mirror/data.mdb", 0, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("the file ends after page 2") || told("a page is damaged"), "%s", said());
    restore("well");
    in_state("truncate -s 100 mirror/data.mdb", 0, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("open the database's file"), "%s", said());
    restore("well");
    in_state("rm mirror/lock.mdb", 0, 0); /* it is no part of what is kept */
    must_be_well("without the lock file");
    struct stat st;
    snprintf(path, sizeof(path), "%s/mirror/lock.mdb", fs->state);
    cr_assert_neq(stat(path, &st), 0, "verify makes a lock file");
}

/* LMDB looks for a key by halves: what is out of order is lost, and a slice that is lost is zeros in a mail. */
Test(verify_database, order_of_keys)
{
    fill_database();
    struct format_key key = format_slice_key(number("input/a"), 1), before = format_slice_key(number("input/a"), 0);
    static char pages[1 << 20];
    snprintf(path, sizeof(path), "%s/mirror/data.mdb", fs->state);
    int fd = open(path, O_RDWR);
    ssize_t size = pread(fd, pages, sizeof(pages), 0);
    cr_assert(size > 0 && size < (ssize_t)sizeof(pages));
    unsigned changed = 0;
    for (char *at = pages; (at = memmem(at, (size_t)(pages + size - at), key.bytes, key.size)); at++, changed++)
        cr_assert_eq(pwrite(fd, before.bytes, before.size, at - pages), (ssize_t)before.size);
    close(fd);
    cr_assert_gt(changed, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("is out of order behind inode"), "%s", said());
}

/* A FIFO as the database's file is not waited for. */
Test(verify_database, a_fifo)
{
    fill_database();
    in_state("rm mirror/data.mdb; mkfifo mirror/data.mdb", 0, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("data.mdb is no file"), "%s", said());
}

/* A reader that was killed does not keep the database's old pages: the next checkpoint forgets it. */
Test(verify_database, a_killed_reader)
{
    struct database database;
    struct database_view view;
    struct disk_meta meta;
    MDB_txn *transaction;
    int status, dead = -1;

    fill_database();
    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    cr_assert_eq(database_open(&database, path, error), 0, "%s", error);
    pid_t child = fork();
    if (child == 0) {
        if (database_view_open(&view, path, true, error) == 0)
            raise(SIGKILL);
        _exit(1);
    }
    cr_assert(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    cr_assert_eq(database_begin(&database, &transaction, &meta, error), 0);
    cr_assert_eq(database_commit(&database, transaction, &meta, error), 0);
    cr_assert_eq(mdb_reader_check(database.environment, &dead), 0);
    database_close(&database);
    cr_assert_eq(dead, 0, "%d dead readers are still in the table", dead);
}

/* Database and journal of two times. */
Test(verify_database, old_database)
{
    fill_database();
    keep("old");
    for (int i = 0; i < 100; i++) { /* every file of the journal is used again */
        fill("input/a", (unsigned)i, 20000);
        commit(0);
        if (i % 20 == 19)
            checkpoint();
    }
    fill("input/b", 9, 200);
    commit(0);
    must_be_well("before");
    in_state("rm -r mirror; cp -a ../old/mirror .", 0, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("it begins behind a batch that the database"), "%s", said());
}

/* A bit in each part of each page: verify may find it or not, but it ends, and says so if the reader has died. */
Test(verify_database, bits_of_pages, .timeout = 120)
{
    unsigned found = 0, died = 0, tried = 0;
    struct stat st;

    fill_database();
    snprintf(path, sizeof(path), "%s/mirror/data.mdb", fs->state);
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0 && fstat(fd, &st) == 0);
    for (off_t page = 0; page < st.st_size; page += 4096) {
        for (off_t at = 8; at < 24; at++) { /* flags, free space, offsets of the first entries */
            char byte;
            cr_assert_eq(pread(fd, &byte, 1, page + at), 1);
            byte ^= 0x11;
            cr_assert_eq(pwrite(fd, &byte, 1, page + at), 1);
            found += verify(false) > 0;
            died += told("whoever reads it dies");
            tried++;
            byte ^= 0x11;
            cr_assert_eq(pwrite(fd, &byte, 1, page + at), 1);
        }
    }
    close(fd);
    printf("of %u bytes that were changed in pages, %u were found, %u of them by a reader's death\n", tried, found,
           died);
    cr_assert_gt(found, tried / 4);
    must_be_well("after all");
}

/* Nothing below STATE changes. */
Test(verify_database, changes_nothing)
{
    fill_database();
    sleep(1);
    in_state("find . -printf '%p %s %T@ %C@\\n' | sort >../before", 0, 0);
    must_be_well("before");
    in_state("find . -printf '%p %s %T@ %C@\\n' | sort | cmp - ../before", 0, 0);
}

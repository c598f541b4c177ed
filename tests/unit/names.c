/* SPDX-License-Identifier: MIT
 *
 * Names: lookup, linear hashing, long names, and listings of a directory that changes.
 */
#include "fastspool.h"
#include "fixture.h"
#include "store/inodes.h"
#include "store/store.h"
#include "store/walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

TestSuite(names, .init = fixture_setup, .fini = fixture_teardown);

static void create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT | O_EXCL, 0640);
    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    cr_assert_eq(fastspool_close(fs, d), 0);
}

static bool exists(const char *path)
{
    struct stat st;
    int result = fastspool_stat(fs, path, &st);
    cr_assert(result == 0 || result == -ENOENT, "%s: %s", path, strerror(-result));
    return result == 0;
}

/* Repeated slashes, "." and ".." lead where the kernel's walk leads, and no path climbs above the spool. */
Test(names, paths)
{
    fastspool_mkdir(fs, "input", 0750);
    fastspool_mkdir(fs, "input/8", 0750);
    create("input//8/./x");
    cr_assert(exists("/input/8/x"));
    cr_assert(exists("input/8/../8//x"));
    cr_assert(exists("../../input/8/x"));
    cr_assert(exists("input/8/."));
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "input/8/x/", &st), -ENOTDIR);
    cr_assert_eq(fastspool_stat(fs, "input/8/x/y", &st), -ENOTDIR);
    cr_assert_eq(fastspool_stat(fs, "input/9/../8/x", &st), -ENOENT);
}

static void become(uid_t uid)
{
    cr_assert_eq(seteuid(uid), 0);
    fastspool_credentials_changed();
}

/* Another thread's call: the trail of this one stays (walk.c). */
struct elsewhere {
    const char *path, *to; /* `to`: rename; else `mode`: chmod, or else make a directory */
    mode_t mode;
};

static void *do_elsewhere(void *argument)
{
    const struct elsewhere *call = argument;

    int result = call->to     ? fastspool_rename(fs, call->path, call->to, 0)
                 : call->mode ? fastspool_chmod(fs, call->path, call->mode)
                              : fastspool_mkdir(fs, call->path, 0777);
    cr_assert_eq(result, 0, "%s: %s", call->path, strerror(-result));
    return NULL;
}

static void elsewhere(struct elsewhere call)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, do_elsewhere, &call), 0);
    pthread_join(thread, NULL);
}

/* A thread that walks through the same directories again finds what their names lead to by then. */
Test(names, directories_change_between_walks)
{
    elsewhere((struct elsewhere){"input", NULL, 0});
    elsewhere((struct elsewhere){"input/a", NULL, 0});
    elsewhere((struct elsewhere){"input/a/b", NULL, 0});
    create("input/a/b/1");
    elsewhere((struct elsewhere){"input/a", "input/c", 0});
    cr_assert_eq(fastspool_unlink(fs, "input/a/b/1"), -ENOENT);
    create("input/c/2");
    elsewhere((struct elsewhere){"input/c", "input/d", 0}); /* its entry is free, and the next name takes it */
    elsewhere((struct elsewhere){"input/e", NULL, 0});
    cr_assert_eq(fastspool_open(fs, "input/c/3", O_RDWR | O_CREAT, 0640), -ENOENT);
    create("input/d/b/3");
    elsewhere((struct elsewhere){"input/d", "input/f", 0});
    elsewhere((struct elsewhere){"input/f/b", "input/e/b", 0});
    elsewhere((struct elsewhere){"input/e", "input/d", 0});
    cr_assert_eq(fastspool_unlink(fs, "input/d/b/3"), 0);

    /* An empty directory is replaced: the name stays. */
    cr_assert_eq(fastspool_unlink(fs, "input/f/2"), 0);
    elsewhere((struct elsewhere){"input/d", "input/f", 0});
    create("input/f/4");
    cr_assert(exists("input/f/b") && exists("input/f/4"));
}

/* The same for one that goes between two directories, and looks without the lock. */
Test(names, two_directories_change_between_walks)
{
    struct stat st;

    elsewhere((struct elsewhere){"input", NULL, 0});
    elsewhere((struct elsewhere){"msglog", NULL, 0});
    elsewhere((struct elsewhere){"input/a", NULL, 0});
    elsewhere((struct elsewhere){"msglog/a", NULL, 0});
    create("input/a/1");
    create("msglog/a/2");
    cr_assert_eq(fastspool_stat(fs, "input/a/1", &st), 0);
    cr_assert_eq(fastspool_stat(fs, "msglog/a/2", &st), 0);
    elsewhere((struct elsewhere){"input/a", "input/b", 0});
    elsewhere((struct elsewhere){"msglog/a", "input/a", 0});
    elsewhere((struct elsewhere){"input/b", "msglog/a", 0});
    cr_assert_eq(fastspool_stat(fs, "input/a/1", &st), -ENOENT);
    cr_assert_eq(fastspool_stat(fs, "msglog/a/2", &st), -ENOENT);
    cr_assert_eq(fastspool_stat(fs, "msglog/a/1", &st), 0);
    cr_assert_eq(fastspool_stat(fs, "input/a/2", &st), 0);
    create("input/3"); /* the other trails stay, and a path that ends on one is none behind it */
    create("msglog/3");
    cr_assert(exists("input/a") && exists("input/a/") && exists("input/a/2") && exists("msglog/a/1"));
}

/* Who may not search a directory of a trail does not come through it. */
Test(names, directory_closed_between_walks)
{
    elsewhere((struct elsewhere){"input", NULL, 0});
    elsewhere((struct elsewhere){"input/a", NULL, 0});
    elsewhere((struct elsewhere){"input/a/b", NULL, 0});
    create("input/a/b/1");
    create("input/a/b/2");
    become(65534);
    cr_assert_eq(fastspool_unlink(fs, "input/a/b/1"), 0);
    become(0);
    elsewhere((struct elsewhere){"input/a", NULL, 0700});
    become(65534);
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "input/a/b/2", &st), -EACCES);
    cr_assert_eq(fastspool_unlink(fs, "input/a/b/2"), -EACCES);
    become(0);
}

/* What a name means in one store it does not mean in another. */
Test(names, two_stores)
{
    fastspool_mkdir(fs, "input", 0755);
    create("input/1");
    struct fastspool *first = fs;
    char directory[sizeof(fixture_directory)];
    strcpy(directory, fixture_directory);
    fixture_setup();
    fastspool_mkdir(fs, "msglog", 0755);
    create("msglog/1");
    cr_assert_eq(fastspool_unlink(first, "msglog/1"), -ENOENT); /* both directories are their store's first name */
    cr_assert_eq(fastspool_unlink(first, "input/1"), 0);
    cr_assert_eq(fastspool_unlink(fs, "input/1"), -ENOENT);
    cr_assert_eq(fastspool_unlink(fs, "msglog/1"), 0);
    fixture_teardown();
    strcpy(fixture_directory, directory);
    fs = first;
}

#define LONG "a-directory-with-a-long-name"

#define ROUNDS 50000

static uint32_t rounds;

static void *rename_to_and_fro(void *argument)
{
    int result = 0;

    for (int i = 0; i < ROUNDS && result == 0; i++) {
        result = fastspool_rename(fs, "input/" LONG, "input/d", 0);
        if (result == 0)
            result = fastspool_rename(fs, "input/d", "input/" LONG, 0);
        STORE(rounds, result == 0 ? (uint32_t)i + 1 : ROUNDS);
    }
    return result == 0 ? argument : (void *)1;
}

/* The path of a directory that is renamed meanwhile is the old one or the new one, and nothing else. */
Test(names, path_of_a_directory, .timeout = 60)
{
    pthread_t thread;
    struct stat st;
    char path[PATH_MAX];
    void *failed;

    checking_every(100);
    fastspool_mkdir(fs, "input", 0750);
    fastspool_mkdir(fs, "input/" LONG, 0750);
    cr_assert_eq(fastspool_stat(fs, "input/" LONG, &st), 0);
    uint32_t inode = (uint32_t)(st.st_ino - inodes_number(0));
    int others = 0, length = 0;
    pthread_create(&thread, NULL, rename_to_and_fro, NULL);
    while (LOAD(rounds) < ROUNDS && others == 0) {
        length = walk_path(fs, inode, path, sizeof(path));
        others += length < 0 || (strcmp(path, "input/" LONG) != 0 && strcmp(path, "input/d") != 0);
    }
    pthread_join(thread, &failed);
    cr_assert_null(failed);
    cr_assert_eq(others, 0, "%d, %s", length, length < 0 ? "" : path);
}

/* Names of every length up to 255 bytes are kept, and one of 256 gives ENAMETOOLONG. */
Test(names, every_length)
{
    char path[300] = "";

    for (size_t length = 1; length <= 255; length++) {
        memset(path, 'n', length);
        create(path);
    }
    for (size_t length = 1; length <= 255; length++) {
        memset(path, 'n', length);
        path[length] = '\0';
        cr_assert(exists(path));
        cr_assert_eq(fastspool_unlink(fs, path), 0);
        cr_assert_not(exists(path));
    }
    memset(path, 'n', 256);
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, path, &st), -ENAMETOOLONG);
    cr_assert_eq(fs->header->tables.names.count, 0);
}

/* A name with another byte anywhere is another name, even where its chain leads to it. */
Test(names, each_byte)
{
    char path[300] = "";
    struct stat st;

    for (size_t length = 1; length <= NAME_INLINE + 9; length++) {
        memset(path, 'n', length);
        create(path);
        cr_assert_eq(fastspool_stat(fs, path, &st), 0);
        const struct name *name = name_at(fs, inode_at(fs, (uint32_t)(st.st_ino - inodes_number(0)))->names);
        for (size_t at = 0; at < length && at < NAME_INLINE; at++) {
            WRITABLE(name->text[at]) ^= 1;
            cr_assert_not(exists(path), "byte %zu of %zu", at, length);
            WRITABLE(name->text[at]) ^= 1;
        }
        cr_assert(exists(path));
    }
}

/* Any of a file's names can move, into another directory and back: the others stay, and lead to it. */
Test(names, one_of_many_moves)
{
    const char *const names[] = {"a", "b", "c"};
    struct stat st;

    cr_assert_eq(fastspool_mkdir(fs, "d", 0750), 0);
    create("a");
    cr_assert_eq(fastspool_link(fs, "a", "b"), 0);
    cr_assert_eq(fastspool_link(fs, "a", "c"), 0);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(fastspool_rename(fs, names[i], "d/moved", 0), 0);
        cr_assert_not(exists(names[i]));
        cr_assert(exists(names[(i + 1) % 3]) && exists(names[(i + 2) % 3]));
        cr_assert_eq(fastspool_stat(fs, "d/moved", &st), 0);
        cr_assert_eq(st.st_nlink, 3u);
        cr_assert_eq(fastspool_rename(fs, "d/moved", names[i], 0), 0);
    }
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(fastspool_unlink(fs, names[i]), 0);
    cr_assert_eq(fastspool_rmdir(fs, "d"), 0);
    cr_assert_eq(fs->header->tables.names.count, 0);
}

/* The hash table grows with its names, to a bucket for each of 20,000.  After every second one is unlinked, the others
 * are found. */
Test(names, growth)
{
    enum { MANY = 20000 };
    char path[64];

    checking_every(1000);
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof(path), "1abcde-%06d-AB-D", i);
        create(path);
    }
    cr_assert_geq(fs->header->tables.buckets, MANY - 1);
    for (int i = 0; i < MANY; i += 2) {
        snprintf(path, sizeof(path), "1abcde-%06d-AB-D", i);
        cr_assert_eq(fastspool_unlink(fs, path), 0);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof(path), "1abcde-%06d-AB-D", i);
        cr_assert_eq(exists(path), i % 2 == 1, "%s", path);
    }
}

static struct fastspool_entry entries[64];

/* List up to @size names after position @after, and move @after.  How many. */
static ssize_t list(int directory, uint64_t *after, size_t size)
{
    ssize_t count = fastspool_list(fs, directory, *after, entries, size);
    cr_assert_geq(count, 0);
    if (count > 0)
        *after = entries[count - 1].position;
    return count;
}

/* A listing whose names are unlinked as they are read, as by a queue run, gives every name once. */
Test(names, listing_while_removing)
{
    enum { MANY = 1000 };
    char path[64];
    uint64_t after = 0;
    int seen = 0, directory = fastspool_open(fs, "", O_RDONLY | O_DIRECTORY, 0);

    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof(path), "m%d", i);
        create(path);
    }
    for (ssize_t count; (count = list(directory, &after, 7)) > 0;) {
        seen += (int)count;
        for (ssize_t i = 0; i < count; i++)
            cr_assert_eq(fastspool_unlink(fs, entries[i].name), 0);
    }
    cr_assert_eq(seen, MANY);
    fastspool_close(fs, directory);
}

/* A name that exists during the whole listing is listed exactly once, whatever names are created, unlinked and reused
 * around it. */
Test(names, listing_under_change)
{
    enum { MANY = 200 };
    char path[64];
    unsigned seed = 1;
    int directory = fastspool_open(fs, "", O_RDONLY | O_DIRECTORY, 0);

    for (int round = 0; round < 50; round++) {
        int seen[MANY] = {0};
        uint64_t after = 0;
        for (int i = 0; i < MANY; i++) {
            snprintf(path, sizeof(path), "%s%d", i % 3 ? "goes" : "stays", i);
            if (!exists(path))
                create(path);
        }
        for (ssize_t count; (count = list(directory, &after, 1 + (size_t)rand_r(&seed) % 9)) > 0;) {
            for (ssize_t i = 0; i < count; i++) {
                int number;
                if (sscanf(entries[i].name, "stays%d", &number) == 1)
                    seen[number]++;
            }
            for (int change = 0; change < 20; change++) {
                int i = rand_r(&seed) % MANY;
                snprintf(path, sizeof(path), "goes%d", i);
                if (i % 3 && fastspool_unlink(fs, path) == 0 && rand_r(&seed) % 4 == 0)
                    create(path);
            }
        }
        for (int i = 0; i < MANY; i += 3)
            cr_assert_eq(seen[i], 1, "round %d: stays%d was listed %d times", round, i, seen[i]);
    }
    fastspool_close(fs, directory);
}

/* A name that a rename puts in another one's place is where that was: a listing that is under way has each name once,
 * wherever it is, and none is new to it. */
Test(names, listing_while_replacing)
{
    char path[20];

    fastspool_mkdir(fs, "d", 0755);
    for (int i = 0; i < 10; i++) {
        snprintf(path, sizeof(path), "d/f%d", i);
        fastspool_close(fs, fastspool_open(fs, path, O_WRONLY | O_CREAT, 0600));
    }
    int d = fastspool_open(fs, "d", O_RDONLY | O_DIRECTORY, 0);
    uint64_t end = fastspool_list_end(fs);
    cr_assert_eq(fastspool_list(fs, d, 0, entries, 4), 4);
    for (int i = 0; i < 10; i++) {
        fastspool_close(fs, fastspool_open(fs, "d/new", O_WRONLY | O_CREAT, 0600));
        snprintf(path, sizeof(path), "d/f%d", i);
        cr_assert_eq(fastspool_rename(fs, "d/new", path, 0), 0);
    }
    cr_assert_eq(fastspool_list(fs, d, entries[3].position, entries + 4, 16), 6);
    for (int i = 0; i < 10; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        cr_assert_str_eq(entries[i].name, path);
        cr_assert_leq(entries[i].position, end);
    }
    fastspool_close(fs, d);
}

/* A rename that can't be done gives the kernel's errno.  A directory's move changes the link counts of both parents. */
Test(names, rename_errors)
{
    fastspool_mkdir(fs, "d", 0750);
    fastspool_mkdir(fs, "d/e", 0750);
    fastspool_mkdir(fs, "full", 0750);
    create("full/x");
    create("f");
    cr_assert_eq(fastspool_rename(fs, "d", "d/e/x", 0), -EINVAL);
    cr_assert_eq(fastspool_rename(fs, "f", "d", 0), -EISDIR);
    cr_assert_eq(fastspool_rename(fs, "d", "f", 0), -ENOTDIR);
    cr_assert_eq(fastspool_rename(fs, "d", "full", 0), -ENOTEMPTY);
    cr_assert_eq(fastspool_rename(fs, "f", "g/", 0), -ENOTDIR);
    cr_assert_eq(fastspool_rename(fs, "nothing", "g", 0), -ENOENT);
    cr_assert_eq(fastspool_rename(fs, "f", "full/x", 1 /* RENAME_NOREPLACE */), -EEXIST);
    cr_assert_eq(fastspool_rename(fs, "f", "f", 0), 0);
    cr_assert_eq(fastspool_rename(fs, "d/e", "e", 0), 0);
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "d", &st), 0);
    cr_assert_eq(st.st_nlink, 2);
    cr_assert_eq(fastspool_stat(fs, "e/..", &st), 0);
    cr_assert_eq(st.st_nlink, 2 + 3);
}

/* SPDX-License-Identifier: MIT
 *
 * A segment that the mail user has written to: what leaves it is what a file system could have, and every walk ends.
 *
 * Each test damages a store that was well, and makes the calls that meet the damage.  A call that should not end is in
 * a child with an alarm.
 */
#include "fastspool.h"
#include "fixture.h"
#include "store/inside.h"
#include "store/names.h"
#include "store/walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>

static void setup(void)
{
    fixture_setup();
    checking_every(0);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
}
TestSuite(hostile, .init = setup, .fini = fixture_teardown, .timeout = 120);

static int create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);
    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    return d;
}

static uint32_t inode_of(const char *path)
{
    struct stat st;

    cr_assert_eq(fastspool_stat(fs, path, &st), 0);
    return (uint32_t)(st.st_ino - inodes_number(0));
}

static uint32_t entry_of(const char *path)
{
    return inode_at(fs, inode_of(path))->names;
}

static bool is_failed(void)
{
    return LOAD(fs->header->state) == SEGMENT_FAILED;
}

/* As the store is after the operator has mended it: the next damage can be met. */
static void mend(void)
{
    STORE(fs->header->state, SEGMENT_READY);
}

/* All names of a directory, at most @most: how many there were, or the error. */
static ssize_t list(const char *path, size_t most)
{
    struct fastspool_entry entries[7];
    uint64_t after = 0;
    ssize_t count = 0;
    size_t all = 0;
    int d = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);

    cr_assert_geq(d, 0);
    while (all < most && (count = fastspool_list(fs, d, after, entries, 7)) > 0) {
        all += (size_t)count;
        after = entries[count - 1].position;
    }
    fastspool_close(fs, d);
    return count < 0 ? count : (ssize_t)all;
}

/* ---- names ---- */

static const struct bad_name {
    const char *text;
    uint8_t length;
} bad_names[] = {
    {"../../../../etc/x", 17}, {"a/b", 3}, {".", 1}, {"..", 2}, {"", 0}, {"a\0b", 3}, {"/", 1},
};
#define BAD_NAMES (sizeof(bad_names) / sizeof(*bad_names))

static void rename_in_place(uint32_t entry, const struct bad_name *bad)
{
    memcpy(WRITABLE(*name_at(fs, entry)).text, bad->text, bad->length);
    WRITABLE(name_at(fs, entry)->length) = bad->length;
}

/* No name leads out of its directory, by whatever call it leaves the store. */
Test(hostile, names)
{
    int d = fastspool_mkdir(fs, "input/directory", 0750);
    char path[PATH_MAX];

    cr_assert_eq(d, 0);
    uint32_t entry = entry_of("input/directory"), inode = inode_of("input/directory");
    d = fastspool_open(fs, "input/directory", O_RDONLY | O_DIRECTORY, 0);
    cr_assert_geq(d, 0);
    for (size_t i = 0; i < BAD_NAMES; i++) {
        rename_in_place(entry, &bad_names[i]);
        cr_assert_eq(list("input", 100), -EIO, "name %zu is listed", i);
        cr_assert(is_failed());
        mend();
        cr_assert_eq(walk_path(fs, inode, path, sizeof(path)), -EIO, "name %zu is in a path: %s", i, path);
        cr_assert(is_failed());
        mend();
        cr_assert_eq(inside_path(fs, (uint32_t)d, path, sizeof(path)), -EIO, "name %zu is in a descriptor's path", i);
        mend();
    }
}

/* A name whose rest is missing, or goes on in the first part. */
Test(hostile, long_names)
{
    char name[256] = "input/";

    memset(name + 6, 'n', 240);
    fastspool_close(fs, create(name));
    const struct name *entry = name_at(fs, entry_of(name));
    const uint32_t more = entry->more;
    WRITABLE(entry->more) = 0;
    cr_assert_eq(list("input", 100), -EIO);
    mend();
    WRITABLE(entry->more) = more;
    WRITABLE(entry->length) = 0;
    cr_assert_eq(list("input", 100), -EIO);
}

/* ---- names that follow each other ---- */

/* A list of names that leads back to its start, to itself, or into another directory, is no endless one. */
Test(hostile, endless_directory)
{
    for (int i = 0; i < 20; i++) {
        char path[32];
        snprintf(path, sizeof(path), "input/%d", i);
        fastspool_close(fs, create(path));
    }
    fastspool_mkdir(fs, "other", 0750);
    fastspool_close(fs, create("other/x"));
    cr_assert_eq(list("input", 100), 20);
    const struct name *last = name_at(fs, entry_of("input/19"));
    const uint32_t leads_to[] = {entry_of("input/19"), entry_of("input/0"), entry_of("input/12"), entry_of("other/x")};
    for (size_t i = 0; i < sizeof(leads_to) / sizeof(*leads_to); i++) {
        WRITABLE(last->next) = leads_to[i];
        cr_assert_eq(list("input", 100), -EIO, "leads to %u", leads_to[i]);
        cr_assert(is_failed());
        mend();
    }
    WRITABLE(last->next) = 0;
    cr_assert_eq(list("input", 100), 20);
}

/* ---- attributes ---- */

static void look_at(const char *path, int d, int expected, const char *what)
{
    struct stat st;
    uint64_t handle;

    cr_assert_eq(fastspool_stat(fs, path, &st), expected, "%s", what);
    mend();
    cr_assert_eq(fastspool_fstat(fs, d, &st), expected, "%s", what);
    mend();
    cr_assert_eq(fastspool_lookup(fs, path, &handle, &st), expected, "%s", what);
    mend();
}

/* No attributes that no file of the store can have. */
Test(hostile, attributes)
{
    int d = create("input/x");
    const struct inode *inode = inode_at(fs, inode_of("input/x"));
    const struct inode before = *inode;
    char byte;

    WRITABLE(inode->mode) = S_IFBLK | 0666;
    look_at("input/x", d, -EIO, "a device");
    WRITABLE(inode->mode) = S_IFLNK | 0777;
    look_at("input/x", d, -EIO, "a link");
    WRITABLE(*inode) = before;
    WRITABLE(inode->size) = UINT64_C(1) << 62;
    look_at("input/x", d, -EIO, "2^62 bytes");
    cr_assert_eq(fastspool_pread(fs, d, &byte, 1, 0), -EIO);
    mend();
    WRITABLE(inode->size) = UINT64_MAX;
    look_at("input/x", d, -EIO, "-1 bytes");
    cr_assert_eq(fastspool_write(fs, d, "x", 1), -EIO);
    mend();
    WRITABLE(*inode) = before;
    WRITABLE(inode->uid) = UINT32_MAX;
    look_at("input/x", d, -EIO, "nobody's");
    WRITABLE(*inode) = before;
    WRITABLE(inode->links) = UINT32_MAX;
    look_at("input/x", d, -EIO, "links");
    WRITABLE(*inode) = before;
    look_at("input/x", d, 0, "as before");
}

/* A set-ID bit shows where the spool's owner could have set it. */
Test(hostile, set_id)
{
    int d = create("input/x");
    const struct inode *inode = inode_at(fs, inode_of("input/x"));
    struct stat st;

    fs->owner = 100;
    fs->group = 101;
    WRITABLE(inode->mode) = S_IFREG | 06755;
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0755, "root's: %o", st.st_mode);
    WRITABLE(inode->uid) = 100;
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 04755, "the owner's, of another group: %o", st.st_mode);
    WRITABLE(inode->gid) = 101;
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 06755, "the owner's: %o", st.st_mode);
}

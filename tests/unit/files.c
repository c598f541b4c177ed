/* SPDX-License-Identifier: MIT
 *
 * The public calls: permissions, modes, owners and errors are those of a real file system.
 */
#include "fastspool.h"
#include "fixture.h"
#include "store/directories.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>

TestSuite(files, .init = fixture_setup, .fini = fixture_teardown);

static int create(const char *path, mode_t mode)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT | O_EXCL, mode);
    cr_assert_geq(d, 0);
    return d;
}

static void become(uid_t uid, gid_t gid)
{
    cr_assert_eq(setegid(gid), 0);
    cr_assert_eq(seteuid(uid), 0);
    fastspool_credentials_changed();
}

/* The last of @count supplementary groups gives access, and errno stays as it was. */
static void check_groups(int count)
{
    static gid_t groups[NGROUPS_MAX];

    for (int i = 0; i < count; i++)
        groups[i] = (gid_t)(1000 + i);
    cr_assert_eq(setgroups((size_t)count, groups), 0);
    fastspool_close(fs, create("f", 0640));
    cr_assert_eq(fastspool_chown(fs, "f", 0, groups[count - 1]), 0);
    become(1000, 99);
    errno = ENOTRECOVERABLE;
    cr_assert_eq(fastspool_access(fs, "f", R_OK, true), 0, "with %d groups", count);
    cr_assert_eq(errno, ENOTRECOVERABLE);
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(setgroups((size_t)count - 1, groups), 0);
    become(1000, 99);
    cr_assert_eq(fastspool_access(fs, "f", R_OK, true), -EACCES, "without the last of %d groups", count);
    cr_assert_eq(seteuid(0), 0);
    become(0, 0);
    fastspool_unlink(fs, "f");
}

/* A removed directory that is still open has no links. */
Test(files, links_of_a_removed_directory)
{
    struct stat st;

    cr_assert_eq(fastspool_mkdir(fs, "d", 0700), 0);
    int d = fastspool_open(fs, "d", O_RDONLY | O_DIRECTORY, 0);
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_nlink, 2);
    cr_assert_eq(fastspool_rmdir(fs, "d"), 0);
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_nlink, 0);
    fastspool_close(fs, d);
    cr_assert_eq(fastspool_stat(fs, "", &st), 0);
    cr_assert_geq(st.st_nlink, 2);
}

/* Any number of supplementary groups counts: 1, 64, 65, 65,536. */
Test(files, supplementary_groups)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    fastspool_chmod(fs, "", 0755);
    check_groups(1);
    check_groups(64);
    check_groups(65);
    check_groups(NGROUPS_MAX);
}

/* Owner, group and others have their own permission bits, and the first class that fits decides. */
Test(files, permissions)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    fastspool_chmod(fs, "", 0755);
    fastspool_close(fs, create("mine", 0460));
    cr_assert_eq(fastspool_chown(fs, "mine", 1000, 2000), 0);
    become(1000, 3000);
    cr_assert_eq(fastspool_access(fs, "mine", R_OK, true), 0);
    cr_assert_eq(fastspool_open(fs, "mine", O_RDWR, 0), -EACCES, "the owner's bits did not decide for the owner");
    cr_assert_eq(fastspool_open(fs, "new", O_RDWR | O_CREAT, 0600), -EACCES);
    cr_assert_eq(fastspool_chmod(fs, "mine", 0660), 0);
    cr_assert_eq(fastspool_chown(fs, "mine", 1001, (gid_t)-1), -EPERM);
    cr_assert_eq(seteuid(0), 0);
    become(1001, 2000);
    int d = fastspool_open(fs, "mine", O_RDWR, 0);
    cr_assert_geq(d, 0, "the group has no access");
    cr_assert_eq(fastspool_fchmod(fs, d, 0600), -EPERM);
    cr_assert_eq(seteuid(0), 0);
    become(1002, 3000);
    cr_assert_eq(fastspool_access(fs, "mine", F_OK, true), 0);
    cr_assert_eq(fastspool_open(fs, "mine", O_RDONLY, 0), -EACCES);
    cr_assert_eq(seteuid(0), 0);
    become(0, 0);
    cr_assert_eq(fastspool_access(fs, "mine", R_OK | W_OK, true), 0);
    cr_assert_eq(fastspool_access(fs, "mine", X_OK, true), -EACCES);
}

/* A directory without x permission hides what is below it. */
Test(files, search_permission)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    fastspool_chmod(fs, "", 0755);
    fastspool_mkdir(fs, "d", 0700);
    fastspool_close(fs, create("d/f", 0644));
    become(1000, 1000);
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "d/f", &st), -EACCES);
    cr_assert_eq(fastspool_unlink(fs, "d/f"), -EACCES);
    cr_assert_eq(fastspool_stat(fs, "d", &st), 0);
}

/* A description allows only its access mode, and a number that is not open gives EBADF. */
Test(files, access_modes)
{
    char byte;
    int d = create("f", 0640);
    int r = fastspool_open(fs, "f", O_RDONLY, 0), w = fastspool_open(fs, "f", O_WRONLY, 0);

    cr_assert_eq(fastspool_write(fs, r, "x", 1), -EBADF);
    cr_assert_eq(fastspool_read(fs, w, &byte, 1), -EBADF);
    cr_assert_eq(fastspool_ftruncate(fs, r, 0), -EINVAL);
    cr_assert_eq(fastspool_write(fs, d, "x", 1), 1);
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(fastspool_close(fs, d), -EBADF);
    cr_assert_eq(fastspool_read(fs, 0, &byte, 1), -EBADF);
    cr_assert_eq(fastspool_read(fs, 60000, &byte, 1), -EBADF);
    cr_assert_eq(fastspool_read(fs, -1, &byte, 1), -EBADF);
}

/* O_APPEND writes at the end, whatever the offset is, and two appending descriptions do not overwrite each other. */
Test(files, append)
{
    char bytes[16];
    int a = fastspool_open(fs, "f", O_WRONLY | O_CREAT | O_APPEND, 0640),
        b = fastspool_open(fs, "f", O_RDWR | O_APPEND, 0);

    cr_assert_eq(fastspool_write(fs, a, "one", 3), 3);
    cr_assert_eq(fastspool_write(fs, b, "two", 3), 3);
    cr_assert_eq(fastspool_lseek(fs, a, 0, SEEK_SET), 0);
    cr_assert_eq(fastspool_write(fs, a, "three", 5), 5);
    cr_assert_eq(fastspool_lseek(fs, a, 0, SEEK_CUR), 11);
    cr_assert_eq(fastspool_pread(fs, b, bytes, 16, 0), 11);
    cr_assert_eq(memcmp(bytes, "onetwothree", 11), 0);
}

/* open, unlink, rmdir, link and mkdir give the kernel's errno for a path that does not fit, and take no description. */
Test(files, open_errors)
{
    fastspool_mkdir(fs, "d", 0750);
    fastspool_close(fs, create("f", 0640));
    cr_assert_eq(fastspool_open(fs, "f", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
    cr_assert_eq(fastspool_open(fs, "d", O_RDWR, 0), -EISDIR);
    cr_assert_eq(fastspool_open(fs, "d", O_RDONLY | O_CREAT, 0640), -EISDIR);
    cr_assert_eq(fastspool_open(fs, "new/", O_RDWR | O_CREAT, 0640), -EISDIR);
    cr_assert_eq(fastspool_open(fs, "f", O_RDONLY | O_DIRECTORY, 0), -ENOTDIR);
    cr_assert_eq(fastspool_open(fs, "f/", O_RDONLY, 0), -ENOTDIR);
    cr_assert_eq(fastspool_open(fs, "no/f", O_RDWR | O_CREAT, 0640), -ENOENT);
    cr_assert_eq(fastspool_unlink(fs, "d"), -EISDIR);
    cr_assert_eq(fastspool_rmdir(fs, "f"), -ENOTDIR);
    cr_assert_eq(fastspool_rmdir(fs, "d/."), -EINVAL);
    cr_assert_eq(fastspool_rmdir(fs, "d/.."), -ENOTEMPTY);
    cr_assert_eq(fastspool_rmdir(fs, ""), -EBUSY);
    cr_assert_eq(fastspool_link(fs, "d", "e"), -EPERM);
    cr_assert_eq(fastspool_mkdir(fs, "d/", 0750), -EEXIST);
    cr_assert_eq(fs->header->tables.descriptions.count, 1, "a failed open kept a description");
}

/* A file with two names is one file.  Renaming one to the other does nothing, and unlinking one leaves the other. */
Test(files, hard_links)
{
    struct stat st, other;
    int d = create("a", 0640);

    cr_assert_eq(fastspool_link(fs, "a", "b"), 0);
    cr_assert_eq(fastspool_stat(fs, "a", &st), 0);
    cr_assert_eq(fastspool_stat(fs, "b", &other), 0);
    cr_assert_eq(st.st_ino, other.st_ino);
    cr_assert_eq(st.st_nlink, 2);
    cr_assert_eq(fastspool_rename(fs, "a", "b", 0), 0, "renaming to another name of the same file failed");
    cr_assert_eq(fastspool_stat(fs, "a", &st), 0);
    cr_assert_eq(fastspool_unlink(fs, "a"), 0);
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_nlink, 1);
}

/* Files that are created and unlinked between two commits leave nothing dirty. */
Test(files, short_lives_leave_no_dirt)
{
    uint64_t before = fs->header->tickets.dirty_files;

    for (int i = 0; i < 100; i++) {
        int d = create("f", 0640);
        fastspool_write(fs, d, "x", 1);
        fastspool_unlink(fs, "f");
        fastspool_close(fs, d);
    }
    cr_assert_eq(fs->header->tickets.dirty_files, before);
    cr_assert_eq(fs->header->tickets.dirty_bytes, 0);
    cr_assert_eq(fs->header->tables.inodes.count, 1);
}

/* directories_adopt() makes a real directory's path in the store, level by level, with its mode and owner.  A second
 * call succeeds too. */
Test(files, adopting)
{
    struct stat real = {.st_mode = S_IFDIR | 02750, .st_uid = 7, .st_gid = 8}, st;

    cr_assert_eq(directories_adopt(fs, "q/input/8", &real), 0);
    cr_assert_eq(directories_adopt(fs, "q/input/8", &real), 0);
    cr_assert_eq(fastspool_stat(fs, "q/input/8", &st), 0);
    cr_assert_eq(st.st_mode, (mode_t)(S_IFDIR | 02750));
    cr_assert_eq(st.st_uid, 7u);
    fastspool_close(fs, create("q/input/8/f", 0640));
    cr_assert_eq(fastspool_stat(fs, "q/input/8/f", &st), 0);
    cr_assert_eq(st.st_gid, 8u, "a new file has not the group of its set-group-ID directory");
}

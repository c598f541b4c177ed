/* SPDX-License-Identifier: MIT
 *
 * What a server of the store for other programs needs: handles, the user it acts for, appending, locks for owners.
 */
#include "fastspool.h"
#include "fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(handles, .init = fixture_setup, .fini = fixture_teardown);

static int create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    cr_assert_geq(d, 0);
    return d;
}

/* "//HANDLE" of the file at @path, and @rest behind it; one at a time. */
static const char *by_handle(const char *path, const char *rest)
{
    static char text[64];
    uint64_t handle;
    struct stat st;

    cr_assert_eq(fastspool_lookup(fs, path, &handle, &st), 0);
    snprintf(text, sizeof(text), "//%llx%s", (unsigned long long)handle, rest);
    return text;
}

/* A handle leads to the file, and from a directory on, in every call with a path. */
Test(handles, paths_begin_at_a_handle)
{
    struct stat st, other;

    cr_assert_eq(fastspool_mkdir(fs, "d", 0700), 0);
    fastspool_close(fs, create("d/f"));
    fastspool_stat(fs, "d/f", &st);
    cr_assert_eq(fastspool_stat(fs, by_handle("d/f", ""), &other), 0);
    cr_assert_eq(other.st_ino, st.st_ino);
    cr_assert_eq(fastspool_stat(fs, by_handle("d", "/f"), &other), 0);
    cr_assert_eq(other.st_ino, st.st_ino);
    fastspool_close(fs, create(by_handle("d", "/g")));
    cr_assert_eq(fastspool_chmod(fs, by_handle("d/g", ""), 0640), 0);
    cr_assert_eq(fastspool_truncate(fs, by_handle("d/g", ""), 7), 0);
    cr_assert_eq(fastspool_stat(fs, "d/g", &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0640);
    cr_assert_eq(st.st_size, 7);
    cr_assert_eq(fastspool_link(fs, by_handle("d/g", ""), "d/h"), 0);
    cr_assert_eq(fastspool_rename(fs, by_handle("d", "/h"), "i", 0), 0);
    cr_assert_eq(fastspool_unlink(fs, by_handle("d", "/g")), 0);
    cr_assert_eq(fastspool_mkdir(fs, by_handle("d", "/e"), 0700), 0);
    cr_assert_eq(fastspool_rmdir(fs, by_handle("d", "/e")), 0);
    cr_assert_eq(fastspool_stat(fs, by_handle("d", "/../i"), &other), 0);
}

/* A handle alone has no name that could be removed, moved or made. */
Test(handles, a_handle_has_no_name)
{
    fastspool_close(fs, create("f"));
    cr_assert_eq(fastspool_unlink(fs, by_handle("f", "")), -EISDIR);
    cr_assert_eq(fastspool_rename(fs, by_handle("f", ""), "g", 0), -EBUSY);
    cr_assert_eq(fastspool_rename(fs, "f", by_handle("f", ""), 0), -EBUSY);
    cr_assert_eq(fastspool_mkdir(fs, by_handle("f", ""), 0700), -EEXIST);
    cr_assert_eq(fastspool_open(fs, by_handle("f", "/g"), O_RDONLY, 0), -ENOTDIR);
    cr_assert_eq(fastspool_open(fs, by_handle("f", ""), O_RDWR | O_CREAT | O_EXCL, 0600), -EEXIST);
    cr_assert_eq(fastspool_open(fs, by_handle("f", "/"), O_RDWR | O_CREAT, 0600), -EISDIR);
}

/* Without a name the file is there while it is open, and no name can be made for it.  Then it is stale, for ever. */
Test(handles, unlinked_and_gone)
{
    uint64_t handle, next;
    struct stat st;
    char path[32];
    int d = create("f");

    cr_assert_eq(fastspool_flookup(fs, d, &handle, &st), 0);
    snprintf(path, sizeof(path), "//%llx", (unsigned long long)handle);
    cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    cr_assert_eq(fastspool_stat(fs, path, &st), 0);
    cr_assert_eq(st.st_nlink, 0);
    int again = fastspool_open(fs, path, O_RDWR, 0);
    cr_assert_geq(again, 0);
    cr_assert_eq(fastspool_write(fs, again, "abc", 3), 3);
    cr_assert_eq(fastspool_link(fs, path, "g"), -ENOENT);
    fastspool_close(fs, d);
    fastspool_close(fs, again);
    cr_assert_eq(fastspool_stat(fs, path, &st), -ESTALE);
    cr_assert_eq(fastspool_open(fs, path, O_RDWR, 0), -ESTALE);
    for (int i = 0; i < 10; i++) { /* the inode's number is used again */
        d = create("f");
        fastspool_flookup(fs, d, &next, &st);
        cr_assert_neq(next, handle);
        fastspool_unlink(fs, "f");
        fastspool_close(fs, d);
    }
    cr_assert_eq(fastspool_stat(fs, path, &st), -ESTALE);
    cr_assert_eq(fastspool_stat(fs, "//", &st), -ENOENT);
    cr_assert_eq(fastspool_stat(fs, "//nonsense", &st), -ENOENT);
    cr_assert_eq(fastspool_stat(fs, "//ffffffffffffffff", &st), -ESTALE);
    cr_assert_eq(fastspool_stat(fs, "//0", &st), -ESTALE);
}

/* A removed directory that is still open gets no names. */
Test(handles, nothing_new_in_a_removed_directory)
{
    char file[64], other[64], directory[64];

    cr_assert_eq(fastspool_mkdir(fs, "d", 0700), 0);
    fastspool_close(fs, create("f"));
    int d = fastspool_open(fs, "d", O_RDONLY | O_DIRECTORY, 0);
    strcpy(file, by_handle("d", "/f"));
    strcpy(other, by_handle("d", "/g"));
    strcpy(directory, by_handle("d", "/e"));
    cr_assert_eq(fastspool_rmdir(fs, "d"), 0);
    cr_assert_eq(fastspool_open(fs, file, O_RDWR | O_CREAT, 0600), -ENOENT);
    cr_assert_eq(fastspool_mkdir(fs, directory, 0700), -ENOENT);
    cr_assert_eq(fastspool_link(fs, "f", other), -ENOENT);
    cr_assert_eq(fastspool_rename(fs, "f", other, 0), -ENOENT);
    fastspool_close(fs, d);
}

/* New files are the client's, and nothing is refused; afterwards all is as before. */
Test(handles, acting_for_a_client)
{
    const struct fastspool_client client = {1234, 567, NULL};
    struct stat st;

    cr_assert_eq(fastspool_mkdir(fs, "d", 0), 0);
    fastspool_act_for(&client);
    fastspool_close(fs, create("d/f"));
    cr_assert_eq(fastspool_chown(fs, "d/f", 1234, 99), 0);
    fastspool_act_for(NULL);
    cr_assert_eq(fastspool_stat(fs, "d", &st), 0);
    cr_assert_eq(st.st_uid, geteuid());
    fastspool_act_for(&client);
    cr_assert_eq(fastspool_stat(fs, "d/f", &st), 0);
    fastspool_act_for(NULL);
    cr_assert_eq(st.st_uid, 1234);
    cr_assert_eq(st.st_gid, 99);
    fastspool_close(fs, create("g"));
    cr_assert_eq(fastspool_stat(fs, "g", &st), 0);
    cr_assert_eq(st.st_uid, geteuid());
}

/* An append goes to the end, wherever the description's offset is. */
Test(handles, appending)
{
    char bytes[8];
    int d = create("f");

    fastspool_write(fs, d, "abcd", 4);
    fastspool_lseek(fs, d, 1, SEEK_SET);
    cr_assert_eq(fastspool_append(fs, d, "ef", 2), 2);
    cr_assert_eq(fastspool_lseek(fs, d, 0, SEEK_CUR), 1);
    cr_assert_eq(fastspool_pread(fs, d, bytes, sizeof(bytes), 0), 6);
    cr_assert_arr_eq(bytes, "abcdef", 6);
}

/* Allocating extends, and never shortens. */
Test(handles, allocating)
{
    struct stat st;
    int d = create("f"), reads = fastspool_open(fs, "f", O_RDONLY, 0);

    cr_assert_eq(fastspool_allocate(fs, d, 10, 20), 0);
    fastspool_fstat(fs, d, &st);
    cr_assert_eq(st.st_size, 30);
    cr_assert_eq(fastspool_allocate(fs, d, 0, 20), 0);
    fastspool_fstat(fs, d, &st);
    cr_assert_eq(st.st_size, 30);
    cr_assert_eq(fastspool_allocate(fs, d, -1, 20), -EINVAL);
    cr_assert_eq(fastspool_allocate(fs, d, 1, 0), -EINVAL);
    cr_assert_eq(fastspool_allocate(fs, d, INT64_MAX, 1), -EFBIG);
    cr_assert_eq(fastspool_allocate(fs, reads, 0, 40), -EBADF);
}

/* A listing up to its end knows nothing of later names. */
Test(handles, a_listing_ends)
{
    struct fastspool_entry entries[8];

    fastspool_close(fs, create("a"));
    fastspool_close(fs, create("b"));
    uint64_t end = fastspool_list_end(fs);
    fastspool_close(fs, create("c"));
    int d = fastspool_open(fs, "", O_RDONLY | O_DIRECTORY, 0);
    cr_assert_eq(fastspool_list(fs, d, 0, entries, 8), 3);
    cr_assert_leq(entries[1].position, end);
    cr_assert_gt(entries[2].position, end);
}

/* A time before 1970 becomes 1970. */
Test(handles, times_before_1970)
{
    const struct timespec times[2] = {{-10, 0}, {-1, 5}};
    struct stat st;

    fastspool_close(fs, create("f"));
    cr_assert_eq(fastspool_utimens(fs, "f", times), 0);
    fastspool_stat(fs, "f", &st);
    cr_assert_eq(st.st_atim.tv_sec, 0);
    cr_assert_eq(st.st_mtim.tv_sec, 0);
}

static int try_lock(int d, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
    return fastspool_lock(fs, d, F_SETLK, &lock);
}

static int try_lock_for(int d, int owner, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
    return fastspool_lock_for(fs, d, owner, F_SETLK, &lock);
}

/* Run @attempt in a process of its own: another owner of POSIX locks. */
static int in_child(int d, short type)
{
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(-try_lock(d, type) & 0xff);
    waitpid(child, &status, 0);
    return -WEXITSTATUS(status);
}

/* Locks of two owners and of a process exclude each other as POSIX says, and go with the owner. */
Test(handles, locks_of_owners)
{
    struct flock found = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int d = create("f"), other = create("g");
    int one = fastspool_lock_owner(fs), two = fastspool_lock_owner(fs);

    cr_assert_eq(try_lock_for(d, one, F_RDLCK), 0);
    cr_assert_eq(try_lock_for(d, two, F_RDLCK), 0);
    cr_assert_eq(try_lock_for(d, two, F_WRLCK), -EAGAIN);
    cr_assert_eq(in_child(d, F_RDLCK), 0);
    cr_assert_eq(in_child(d, F_WRLCK), -EAGAIN);
    cr_assert_eq(in_child(other, F_WRLCK), 0);
    cr_assert_eq(fastspool_lock_for(fs, d, two, F_GETLK, &found), 0);
    cr_assert_eq(found.l_type, F_RDLCK);
    cr_assert_eq(found.l_start, 2);
    cr_assert_eq(found.l_len, 3);
    close(one);
    cr_assert_eq(try_lock_for(d, two, F_WRLCK), 0);
    cr_assert_eq(in_child(d, F_RDLCK), -EAGAIN);
    cr_assert_eq(try_lock_for(d, two, F_UNLCK), 0);
    cr_assert_eq(in_child(d, F_WRLCK), 0);
    close(two);
}

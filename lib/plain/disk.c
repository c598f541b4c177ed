/* SPDX-License-Identifier: MIT
 *
 * The plain spool on the disk.  The kernel resolves each path without symbolic links (openat2(2)), because all names
 * below the spool are the mail user's.
 *
 * Failure modes: a file system without leases can't tell whether a file is open (disk_is_alone()).
 */
#include "plain/disk.h"
#include "base/places.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BEING_MADE 10 /* seconds: Exim makes an empty -D file, and locks it a moment later */

int disk_open_beneath(int disk, const char *path, int flags, uint64_t resolve)
{
    unsigned more = flags & O_PATH ? O_CLOEXEC : O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    struct open_how how = {.flags = (unsigned)flags | more,
                           .mode = flags & O_CREAT ? 0600 : 0,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | resolve};
    int fd = (int)syscall(SYS_openat2, disk, path, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

int disk_open(int disk, const char *path, int flags, struct stat *st)
{
    int fd = disk_open_beneath(disk, path, flags, 0);

    if (fd >= 0 && fstat(fd, st) < 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

/* Open the directory of @path.  *@name: the rest of the path. */
static int open_directory_of(int disk, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX];

    *name = slash ? slash + 1 : path;
    snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return disk_open_beneath(disk, directory, O_RDONLY | O_DIRECTORY, 0);
}

int disk_unlink(int disk, const char *path)
{
    const char *name;
    int directory = open_directory_of(disk, path, &name), result;

    if (directory < 0)
        return directory;
    result = unlinkat(directory, name, 0) < 0 ? -errno : 0;
    close(directory);
    return result;
}

int disk_sync_around(int disk, const char *path)
{
    const char *name;
    int directory = open_directory_of(disk, path, &name), result;

    if (directory < 0)
        return directory;
    result = fsync(directory) < 0 && errno != EINVAL ? -errno : 0;
    close(directory);
    return result;
}

/* The clock may have been set back by a day since an empty file was left. */
bool disk_is_being_made(const struct stat *st)
{
    time_t age = time(NULL) - st->st_mtim.tv_sec;

    return st->st_size == 0 && age > -BEING_MADE && age < BEING_MADE;
}

bool disk_is_locked(int disk, const char *data)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;
    int fd = disk_open(disk, data, O_RDONLY, &st);

    if (fd < 0)
        return false;
    bool locked = S_ISREG(st.st_mode) &&
                  (disk_is_being_made(&st) || (fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK));
    close(fd);
    return locked;
}

int disk_lock(int disk, const char *data)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET}; /* Exim locks the first 19 or 26 bytes */
    struct stat opened, named;
    const char *name;
    int fd = disk_open(disk, data, O_RDWR, &opened), result = 0;

    if (fd < 0)
        return fd;
    int directory = open_directory_of(disk, data, &name);
    /* Of the description: a close of another descriptor of the file must not drop it. */
    if (!S_ISREG(opened.st_mode))
        result = -EINVAL;
    else if (disk_is_being_made(&opened)) /* the lock would be in the way of the one that Exim takes */
        result = -EAGAIN;
    else if (fcntl(fd, F_OFD_SETLK, &whole) < 0)
        result = errno == EACCES ? -EAGAIN : -errno;
    else if (directory < 0 || fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
             named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
        result = -EAGAIN;
    if (directory >= 0)
        close(directory);
    if (result < 0)
        close(fd);
    return result < 0 ? result : fd;
}

bool disk_is_alone(int lock)
{
    fcntl(lock, F_SETSIG, SIGURG); /* ignored, should another name of the file be opened right now */
    if (fcntl(lock, F_SETLEASE, F_WRLCK) < 0)
        return errno != EAGAIN;
    fcntl(lock, F_SETLEASE, F_UNLCK);
    return true;
}

/* ---- other names ---- */

/* As fastspool's own calls of a directory's entries: @name, or the same with @prefix. */
static int rename_new(int directory, const char *from, const char *to)
{
    int result = renameat2(directory, from, directory, to, RENAME_NOREPLACE);

    if (result < 0 && errno == EINVAL)
        result = renameat(directory, from, directory, to); /* a file system without the flag */
    return result < 0 ? -errno : 0;
}

enum other { TAKE, GIVE_BACK, REMOVE, SHOW };

/* @to, for SHOW: another name than @path's own; NULL: that one. */
static int change(int disk, const char *path, const char *prefix, enum other what, const char *to)
{
    char other[2 * NAME_MAX];
    const char *name;
    int directory = open_directory_of(disk, path, &name), result = 0;

    if (directory < 0)
        return directory;
    if (snprintf(other, sizeof(other), "%s%s", prefix, name) > NAME_MAX)
        result = -ENAMETOOLONG;
    else if (what == TAKE)
        result = renameat(directory, name, directory, other) < 0 ? -errno : 0;
    else if (what == REMOVE)
        result = unlinkat(directory, other, 0) < 0 ? -errno : 0;
    else
        result = rename_new(directory, other, to ? to : name);
    close(directory);
    return result;
}

int disk_take(int disk, const char *path)
{
    return change(disk, path, PLACES_TAKEN, TAKE, NULL);
}

int disk_give_back(int disk, const char *path)
{
    return change(disk, path, PLACES_TAKEN, GIVE_BACK, NULL);
}

int disk_remove_taken(int disk, const char *path)
{
    return change(disk, path, PLACES_TAKEN, REMOVE, NULL);
}

/* ---- copies of an export ---- */

int disk_dress(int fd, const struct stat *st)
{
    struct stat now;

    if (fstat(fd, &now) < 0)
        return -errno;
    if ((now.st_uid != st->st_uid || now.st_gid != st->st_gid) && fchown(fd, st->st_uid, st->st_gid) < 0)
        return -errno;
    return fchmod(fd, st->st_mode & 07777) < 0 ? -errno : 0;
}

int disk_make_directory(int disk, const char *path, const struct stat *st)
{
    const char *name;
    int directory = open_directory_of(disk, path, &name), result;

    if (directory < 0)
        return directory;
    result = mkdirat(directory, name, 0700) < 0 ? -errno : 0;
    close(directory);
    if (result < 0)
        return result == -EEXIST ? 0 : result;
    int fd = disk_open_beneath(disk, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    result = disk_dress(fd, st);
    close(fd);
    return result < 0 ? result : disk_sync_around(disk, path);
}

static int copy_path(const char *copied, const char *path, char copy[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int directory = slash ? (int)(slash + 1 - path) : 0;

    return snprintf(copy, PATH_MAX, "%.*s%s%s", directory, path, copied, path + directory) < PATH_MAX ? 0
                                                                                                      : -ENAMETOOLONG;
}

bool disk_has_copy(int disk, const char *copied, const char *path)
{
    char copy[PATH_MAX];
    struct stat st;
    int fd = copy_path(copied, path, copy) < 0 ? -1 : disk_open(disk, copy, O_PATH, &st);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int disk_make_copy(int disk, const char *copied, const char *path)
{
    char copy[PATH_MAX];

    if (copy_path(copied, path, copy) < 0)
        return -ENAMETOOLONG;
    int result = disk_unlink(disk, copy); /* of an export that was killed */
    return result < 0 && result != -ENOENT ? result : disk_open_beneath(disk, copy, O_WRONLY | O_CREAT | O_EXCL, 0);
}

int disk_remove_copy(int disk, const char *copied, const char *path)
{
    return change(disk, path, copied, REMOVE, NULL);
}

int disk_show_copy(int disk, const char *copied, const char *path)
{
    return change(disk, path, copied, SHOW, NULL);
}

int disk_show_copy_as(int disk, const char *copied, const char *path, const char *to)
{
    return change(disk, path, copied, SHOW, to);
}

/* ---- marks ---- */

#define MARK "here"

int disk_make_mark(int disk, const char *prefix)
{
    char path[PATH_MAX];
    int result = copy_path(prefix, MARK, path);
    int fd = result < 0 ? result : disk_open_beneath(disk, path, O_WRONLY | O_CREAT | O_EXCL, 0);

    if (fd >= 0)
        close(fd);
    return fd >= 0 || fd == -EEXIST ? disk_sync_around(disk, path) : fd;
}

bool disk_has_mark(int disk, const char *prefix)
{
    return disk_has_copy(disk, prefix, MARK);
}

int disk_remove_mark(int disk, const char *prefix)
{
    int result = disk_remove_copy(disk, prefix, MARK);

    return result == 0 ? disk_sync_around(disk, MARK) : result == -ENOENT ? 0 : result;
}

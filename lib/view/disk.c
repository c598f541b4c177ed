/* SPDX-License-Identifier: MIT
 *
 * The disk below the view.  The kernel resolves each path without symbolic links (openat2(2)), because all names below
 * the spool are the mail user's.
 *
 * Failure modes: a process may have opened a -D file, sleep before it locks it, and find the message's -H file in the
 * store: two processes would deliver one message.  So the lock of a removed -D file is let go only when nobody else has
 * it open, which a lease tells.  Otherwise the descriptor stays open and locked as long as this process lives.
 */
#include "view/disk.h"
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

static bool being_made(const struct stat *st)
{
    return st->st_size == 0 && time(NULL) - st->st_mtim.tv_sec < BEING_MADE;
}

bool disk_is_locked(int disk, const char *data)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;
    int fd = disk_open(disk, data, O_RDONLY, &st);

    if (fd < 0)
        return false;
    bool locked =
        S_ISREG(st.st_mode) && (being_made(&st) || (fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK));
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
    else if (being_made(&opened)) /* the lock would be in the way of the one that Exim takes */
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

void disk_unlock_removed(int lock)
{
    fcntl(lock, F_SETSIG, SIGURG); /* ignored, should another name of the file be opened right now */
    if (fcntl(lock, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN)
        return;
    fcntl(lock, F_SETLEASE, F_UNLCK);
    close(lock);
}

/* ---- the other name of a -H file ---- */

enum other { TAKE, GIVE_BACK, REMOVE };

static int change(int disk, const char *header, enum other what)
{
    char taken[NAME_MAX + sizeof(PLACES_TAKEN)];
    const char *name;
    int directory = open_directory_of(disk, header, &name), result;

    if (directory < 0)
        return directory;
    snprintf(taken, sizeof(taken), PLACES_TAKEN "%s", name);
    if (what == TAKE)
        result = renameat(directory, name, directory, taken);
    else if (what == REMOVE)
        result = unlinkat(directory, taken, 0);
    else if ((result = renameat2(directory, taken, directory, name, RENAME_NOREPLACE)) < 0 && errno == EINVAL)
        result = renameat(directory, taken, directory, name); /* a file system without the flag */
    if (result < 0)
        result = -errno;
    close(directory);
    return result;
}

int disk_take(int disk, const char *header)
{
    return change(disk, header, TAKE);
}

int disk_give_back(int disk, const char *header)
{
    return change(disk, header, GIVE_BACK);
}

int disk_remove_taken(int disk, const char *header)
{
    return change(disk, header, REMOVE);
}

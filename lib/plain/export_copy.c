/* SPDX-License-Identifier: MIT
 *
 * Copying from the store to the disk, step 1 of an export: content, mode, owner, times, under a name that Exim doesn't
 * know (disk_make_copy()).  The copies are durable only after step 2 has synced the disk.
 *
 * Failure modes:
 *   - The disk has the file with the same content: it is not copied, and only the store's is to be removed.
 *   - With another content: CONFLICT.
 *   - The file changes while it is read: CHANGED, and the copy is removed.
 *   - Only root can make it on the disk, or its name is too long there: LEFT.
 */
#include "base/clock.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/export_inside.h"
#include "spool/exim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Has the disk's file @fd the same content as the store's? */
static int same(struct export *ex, int description, int fd, const struct stat *st, const struct stat *there)
{
    int result = S_ISREG(there->st_mode) && there->st_size == st->st_size ? DONE : CONFLICT;

    for (off_t at = 0; result == DONE && at < st->st_size;) {
        ssize_t size = fastspool_pread(ex->fs, description, ex->piece, PIECE, at);
        if (size < 0)
            return (int)size;
        if (size == 0 || pread(fd, ex->other, (size_t)size, at) != size ||
            memcmp(ex->piece, ex->other, (size_t)size) != 0)
            result = CONFLICT;
        at += size;
    }
    return result;
}

static int write_all(int fd, const char *bytes, ssize_t size)
{
    while (size > 0) {
        ssize_t part = write(fd, bytes, (size_t)size);
        if (part < 0 && errno != EINTR)
            return -errno;
        bytes += part > 0 ? part : 0;
        size -= part > 0 ? part : 0;
    }
    return 0;
}

static int copy_bytes(struct export *ex, int description, int fd, const struct stat *st)
{
    for (off_t at = 0;;) {
        ssize_t size = fastspool_pread(ex->fs, description, ex->piece, PIECE, at);
        if (size < 0)
            return (int)size;
        if (size == 0)
            return at == st->st_size ? DONE : CHANGED;
        int result = write_all(fd, ex->piece, size);
        if (result < 0)
            return result;
        at += size;
    }
}

static int copy(struct export *ex, const char *path, int description, const struct stat *st)
{
    struct stat made;
    int fd = disk_make_copy(ex->disk, ex->copied, path);

    if (fd == -ENAMETOOLONG || fd == -EACCES || fd == -EPERM)
        return LEFT;
    if (fd < 0)
        return fd;
    int result = disk_dress(fd, st);
    if (result == -EPERM)
        result = LEFT;
    if (result == 0)
        result = copy_bytes(ex, description, fd, st);
    if (result == DONE && futimens(fd, (struct timespec[]){st->st_atim, st->st_mtim}) < 0)
        result = -errno;
    if (result == DONE && (fstat(fd, &made) < 0 || made.st_dev != ex->device) && fsync(fd) < 0)
        result = -errno; /* settle() does not sync another file system */
    close(fd);
    if (result != DONE)
        disk_remove_copy(ex->disk, ex->copied, path);
    return result;
}

/* Copy @path of the store, open as @description, unless the disk has the same. */
static int copy_open(struct export *ex, struct group *group, const char *path, int description)
{
    struct file *file = &group->file[group->files];
    struct stat st, there;
    int result = fastspool_fstat(ex->fs, description, &st);

    if (result == 0)
        result = export_parents_on_disk(ex, path);
    if (result < 0)
        return result;
    int fd = disk_open(ex->disk, path, O_RDONLY, &there);
    if (fd >= 0) {
        result = same(ex, description, fd, &st, &there);
        close(fd);
    } else {
        result = fd == -ENOENT ? copy(ex, path, description, &st) : CONFLICT;
    }
    if (result != DONE)
        return result;
    *file = (struct file){strdup(path), (uint64_t)st.st_size, clock_nanoseconds(&st.st_mtim), fd == -ENOENT, false};
    if (!file->path)
        return -ENOMEM;
    group->files++;
    ex->bytes += file->size;
    return DONE;
}

/* A file that isn't there is no failure. */
static int copy_file(struct export *ex, struct group *group, const char *path)
{
    for (size_t i = 0; i < group->files; i++) {
        if (strcmp(group->file[i].path, path) == 0)
            return DONE;
    }
    int description = fastspool_open(ex->fs, path, O_RDONLY, 0);
    if (description < 0)
        return description == -ENOENT ? DONE : description;
    int result = copy_open(ex, group, path, description);
    fastspool_close(ex->fs, description);
    return result;
}

int export_copy_group(struct export *ex, struct group *group, const char *data, const char *path)
{
    char member[PATH_MAX];
    int result = DONE;

    for (unsigned n = 0; result == DONE && group->message && exim_member(data, n, member); n++) {
        bool open = group->description >= 0 && strcmp(member, data) == 0;
        result = open ? copy_open(ex, group, member, group->description) : copy_file(ex, group, member);
    }
    if (result != DONE || group->message)
        return result == DONE ? copy_file(ex, group, path) : result;
    return copy_open(ex, group, path, group->description);
}

/* SPDX-License-Identifier: MIT
 *
 * Copying from the disk into .import/new of the store: content, mode, owner, times.
 *
 * Failure modes: a file that changes while it is read is not copied.  Nor is one that the store has already: with the
 * same content it is only removed from the disk, with another one it is a conflict.
 */
#include "base/clock.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/import_inside.h"
#include "spool/exim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t read_piece(int fd, void *to)
{
    size_t got = 0;

    while (got < PIECE) {
        ssize_t part = read(fd, (char *)to + got, PIECE - got);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return -1;
        if (part == 0)
            break;
        got += (size_t)part;
    }
    return (ssize_t)got;
}

/* Has the store the same content under @path? */
static int same(struct import *im, const char *path, int fd, const struct stat *st, const struct stat *there)
{
    int result = DONE, description;
    ssize_t size = 1;

    if (!S_ISREG(there->st_mode) || there->st_size != st->st_size)
        return CONFLICT;
    if ((description = fastspool_open(im->fs, path, O_RDONLY, 0)) < 0)
        return description;
    for (off_t at = 0; result == DONE && size > 0; at += size) {
        if ((size = read_piece(fd, im->piece)) < 0)
            result = UNREADABLE;
        else if (fastspool_pread(im->fs, description, im->other, PIECE, at) != size ||
                 memcmp(im->piece, im->other, (size_t)size) != 0)
            result = CONFLICT;
    }
    fastspool_close(im->fs, description);
    return result;
}

static int copy_bytes(struct import *im, int description, int fd, const struct stat *st)
{
    for (off_t left = st->st_size;;) {
        ssize_t size = read_piece(fd, im->piece);
        if (size < 0)
            return UNREADABLE;
        if (size > left || (size < PIECE && size < left))
            return CHANGED;
        for (ssize_t done = 0; done < size;) {
            ssize_t part = fastspool_write(im->fs, description, im->piece + done, (size_t)(size - done));
            if (part < 0)
                return (int)part;
            done += part;
        }
        left -= size;
        if (size < PIECE)
            return DONE;
    }
}

static int copy(struct import *im, const char *staged, int fd, const struct stat *st)
{
    const struct fastspool_client owner = {st->st_uid, st->st_gid, NULL};
    struct stat now;

    int description = -ENOENT;
    for (int attempt = 0; description == -ENOENT && attempt < 2; attempt++) {
        if (attempt)
            staged_parents(im, staged, 0700);
        fastspool_act_for(&owner);
        description = fastspool_open(im->fs, staged, O_WRONLY | O_CREAT | O_EXCL, st->st_mode & 07777);
    }
    if (description < 0)
        return description;
    int result = copy_bytes(im, description, fd, st);
    if (result == DONE)
        result = fastspool_fchmod(im->fs, description, st->st_mode & 07777);
    if (result == DONE)
        result = fastspool_futimens(im->fs, description, (struct timespec[]){st->st_atim, st->st_mtim});
    fastspool_close(im->fs, description);
    if (result == DONE && (fstat(fd, &now) < 0 || now.st_size != st->st_size ||
                           clock_nanoseconds(&now.st_mtim) != clock_nanoseconds(&st->st_mtim)))
        result = CHANGED;
    if (result != DONE)
        fastspool_unlink(im->fs, staged);
    return result;
}

/* Stage the disk's file @path, if it is there. */
static int stage(struct import *im, const struct group *group, const char *path)
{
    char staged[PATH_MAX];
    struct stat st, there;

    for (size_t i = group->first; i < im->moved_count; i++) {
        if (strcmp(im->moved[i].path, path) == 0)
            return DONE;
    }
    int fd = disk_open(im->disk, path, O_RDONLY, &st);
    if (fd < 0)
        return fd == -ENOENT ? DONE : import_because(im, path, UNREADABLE);
    staged_path(STAGED_NEW, path, staged);
    struct moved file = {.size = (uint64_t)st.st_size};
    int result = import_grow(&im->moved, im->moved_count, &im->moved_room, sizeof(file));
    if (result == 0 && !S_ISREG(st.st_mode))
        result = UNREADABLE;
    else if (result == 0 && fastspool_stat(im->fs, path, &there) == 0)
        result = same(im, path, fd, &st, &there);
    else if (result == 0 && (result = staged_mark(im)) == 0) {
        file.staged = true;
        result = copy(im, staged, fd, &st);
    }
    fastspool_act_for(&import_server);
    close(fd);
    if (result == DONE && !(file.path = strdup(path)))
        result = -ENOMEM;
    if (result == DONE)
        im->moved[im->moved_count++] = file;
    return result == DONE ? DONE : import_because(im, path, result);
}

/* Stage all files of a group: those that the scan has found, and those that have come since. */
int copy_group(struct import *im, struct group *group, const struct found *found, size_t count)
{
    char path[PATH_MAX];
    const char *staged = NULL;
    int result = DONE;

    for (unsigned n = 0; result == DONE && group->message && exim_member(group->key, n, path); n++) {
        result = stage(im, group, path);
        if (n == 0 && im->moved_count > group->first) {
            group->shown = true;
            group->taken = im->moved[group->first].staged;
        }
    }
    for (size_t i = 0; result == DONE && i < count; i++)
        result = stage(im, group, im->text + found[i].path);
    for (size_t i = group->first; i < im->moved_count && !staged; i++)
        staged = im->moved[i].staged ? im->moved[i].path : NULL;
    if (result != DONE || !staged || !group->shown || group->taken)
        return result;
    return import_because(im, staged, ALIVE);
}

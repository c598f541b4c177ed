/* SPDX-License-Identifier: MIT
 *
 * Room: statvfs and statfs of the spool tell the store's room.  Exim asks before it takes a message.
 *
 * A user who may not attach asks, too, by `exim -bf` or -C: the disk answers.  (Where stat of the path is EACCES, so is
 * this.)
 *
 * Failure modes:
 *   - ENOENT and so on: as stat of the path.
 *   - The spool can't be served: its errno.
 */
#include "attachment.h"
#include "descriptors.h"
#include "fastspool.h"
#include "paths.h"
#include "pointers.h"
#include "serve.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>

/* The store, if @path is the spool or below. */
static struct fastspool *spool_of(const char *path, int *error)
{
    struct store_path target;
    struct stat st;

    *error = 0;
    if (!serve_active() || !pointers_text(path))
        return NULL;
    bool below = paths_follow(AT_FDCWD, path, &target);
    if (!below && !serve_match(path))
        return NULL;
    int saved = errno;
    if (stat(path, &st) < 0)
        *error = errno;
    errno = saved;
    struct fastspool *fs = NULL;
    if (!*error && !below)
        fs = serve_store(error);
    else if (!*error && !(fs = target.fs))
        *error = target.error;
    if (!fs && *error == EACCES)
        *error = 0;
    return fs;
}

static int to_statvfs(struct fastspool *fs, struct statvfs *st)
{
    return (int)result_of(pointers_writable(st, sizeof(*st)) < sizeof(*st) ? -EFAULT : fastspool_statvfs(fs, st));
}

EXPORT int statvfs(const char *path, struct statvfs *st)
{
    int error;

    BOUND();
    struct fastspool *fs = spool_of(path, &error);
    if (error)
        return (int)result_of(-error);
    return fs ? to_statvfs(fs, st) : real.statvfs(path, st);
}
EXPORT_ALIAS(statvfs64, statvfs);

EXPORT int fstatvfs(int fd, struct statvfs *st)
{
    BOUND();
    return descriptors_find(fd) ? to_statvfs(attachment_of(descriptors_find(fd)), st) : real.fstatvfs(fd, st);
}
EXPORT_ALIAS(fstatvfs64, fstatvfs);

static int to_statfs(struct fastspool *fs, struct statfs *st)
{
    struct statvfs vfs;
    int result = pointers_writable(st, sizeof(*st)) < sizeof(*st) ? -EFAULT : fastspool_statvfs(fs, &vfs);

    if (result == 0)
        *st = (struct statfs){.f_type = 0x01021994, /* TMPFS_MAGIC */
                              .f_bsize = (long)vfs.f_bsize,
                              .f_blocks = vfs.f_blocks,
                              .f_bfree = vfs.f_bfree,
                              .f_bavail = vfs.f_bavail,
                              .f_files = vfs.f_files,
                              .f_ffree = vfs.f_ffree,
                              .f_namelen = (long)vfs.f_namemax,
                              .f_frsize = (long)vfs.f_frsize};
    return (int)result_of(result);
}

EXPORT int statfs(const char *path, struct statfs *st)
{
    int error;

    BOUND();
    struct fastspool *fs = spool_of(path, &error);
    if (error)
        return (int)result_of(-error);
    return fs ? to_statfs(fs, st) : real.statfs(path, st);
}
EXPORT_ALIAS(statfs64, statfs);

EXPORT int fstatfs(int fd, struct statfs *st)
{
    BOUND();
    return descriptors_find(fd) ? to_statfs(attachment_of(descriptors_find(fd)), st) : real.fstatfs(fd, st);
}
EXPORT_ALIAS(fstatfs64, fstatfs);

/* The limits of names are those of the disk's directory, and the same. */
EXPORT long pathconf(const char *path, int name)
{
    int error;

    BOUND();
    struct fastspool *fs = spool_of(path, &error);
    if (error)
        return result_of(-error);
    return real.pathconf(fs ? inside_spool(fs) : path, name);
}

EXPORT long fpathconf(int fd, int name)
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    return description ? real.pathconf(inside_spool(attachment_of(description)), name) : real.fpathconf(fd, name);
}

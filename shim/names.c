/* SPDX-License-Identifier: MIT
 *
 * Names: making, renaming and removing files by path, in the union of the store and the disk's spool directory.
 *
 * Happy path:
 *   - The path is the store's, and the store does the call.
 *
 * The union:
 *   - A message that is on the disk from before stays there, with all its files.  So the store is asked first.  If it
 *     has no such file, the disk answers.  A new file is made where the message's -D file is.
 *   - A directory that only the disk has is made in the store when the first file is made in it.
 *   - With a view (paths_ask_disk()) there is no union: the store's word stands.
 *   - A served directory at the top of the spool is made on the disk, too, so that the spool looks as Exim leaves it.
 *
 * Failure modes:
 *   - Every errno is the one of a real file system.
 *   - If the store can't be served, calls on its paths fail with the reason (EIO, EACCES).  No call ever shows an empty
 *     spool.
 */
#include "attachment.h"
#include "base/atomic.h"
#include "base/fd.h"
#include "descriptors.h"
#include "fastspool.h"
#include "opening.h"
#include "paths.h"
#include "pointers.h"
#include "spool/exim.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- one path ---- */

/* The real call, on the disk's file of this path. */
static int on_disk(const struct store_path *target, int (*call)(const char *))
{
    char real_path[PATH_MAX];

    STORE(paths_disk_changed, true);
    return call(paths_real(target, real_path));
}

static int unlink_place(const struct store_path *target)
{
    int result = target->fs ? fastspool_unlink(target->fs, target->path) : -target->error;
    return result == -ENOENT && paths_ask_disk(target->fs) ? on_disk(target, real.unlink) : (int)result_of(result);
}

/* If both have the directory, both must be empty. */
static int rmdir_place(const struct store_path *target)
{
    char real_path[PATH_MAX];
    struct stat st;

    if (!target->fs)
        return (int)result_of(-target->error);
    if (!paths_ask_disk(target->fs))
        return (int)result_of(fastspool_rmdir(target->fs, target->path));
    int result = fastspool_stat(target->fs, target->path, &st);
    if (result == -ENOENT)
        return on_disk(target, real.rmdir);
    int saved = errno;
    bool both = real.lstat(paths_real(target, real_path), &st) == 0;
    errno = saved;
    if (!both)
        return (int)result_of(fastspool_rmdir(target->fs, target->path));
    if (real.rmdir(real_path) < 0)
        return -1;
    result = fastspool_rmdir(target->fs, target->path);
    if (result < 0)
        real.mkdir(real_path, st.st_mode & 07777); /* the store's is not empty */
    return (int)result_of(result);
}

EXPORT int unlink(const char *path)
{
    struct store_path target;

    BOUND();
    return paths_resolve(AT_FDCWD, path, &target) ? unlink_place(&target) : real.unlink(path);
}

EXPORT int rmdir(const char *path)
{
    struct store_path target;

    BOUND();
    return paths_resolve(AT_FDCWD, path, &target) ? rmdir_place(&target) : real.rmdir(path);
}

EXPORT int unlinkat(int dirfd, const char *path, int flags)
{
    struct store_path target;

    BOUND();
    if (!paths_resolve(dirfd, path, &target))
        return real.unlinkat(dirfd, path, flags);
    if (flags & ~AT_REMOVEDIR)
        return (int)result_of(-EINVAL);
    return flags & AT_REMOVEDIR ? rmdir_place(&target) : unlink_place(&target);
}

EXPORT int remove(const char *path)
{
    struct store_path target;

    BOUND();
    if (!paths_resolve(AT_FDCWD, path, &target))
        return real.remove(path);
    int saved = errno;
    int result = unlink_place(&target);
    if (result < 0 && errno == EISDIR) {
        errno = saved;
        result = rmdir_place(&target);
    }
    return result;
}

static int mkdir_place(struct store_path *target, mode_t mode)
{
    char real_path[PATH_MAX];
    struct stat st;

    if (!target->fs)
        return (int)result_of(-target->error);
    int saved = errno;
    bool asks = paths_ask_disk(target->fs);
    paths_real(target, real_path);
    bool on_the_disk = asks && real.lstat(real_path, &st) == 0;
    errno = saved;
    if (on_the_disk)
        return (int)result_of(-EEXIST);
    bool top = exim_is_top(target->path);
    if (top && asks && real.mkdir(real_path, mode) < 0)
        return -1;
    mode_t allowed = mode & ~opening_umask();
    int result = fastspool_mkdir(target->fs, target->path, allowed);
    if (result == -ENOENT && paths_adopt(target) >= 0)
        result = fastspool_mkdir(target->fs, target->path, allowed);
    /* With a view the disk's comes last: as soon as it is there, the view's server makes one in the store, too, and
     * mounts over it. */
    if (result == 0 && top && !asks && real.mkdir(real_path, mode) < 0 && errno != EEXIST) {
        result = -errno;
        fastspool_rmdir(target->fs, target->path);
    }
    errno = saved;
    return (int)result_of(result);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    struct store_path target;

    BOUND();
    return paths_resolve(AT_FDCWD, path, &target) ? mkdir_place(&target, mode) : real.mkdir(path, mode);
}

EXPORT int mkdirat(int dirfd, const char *path, mode_t mode)
{
    struct store_path target;

    BOUND();
    return paths_resolve(dirfd, path, &target) ? mkdir_place(&target, mode) : real.mkdirat(dirfd, path, mode);
}

EXPORT int truncate(const char *path, off_t size)
{
    struct store_path target;
    char real_path[PATH_MAX];

    BOUND();
    if (!paths_follow(AT_FDCWD, path, &target))
        return real.truncate(path, size);
    int result = target.fs ? fastspool_truncate(target.fs, target.path, size) : -target.error;
    return result == -ENOENT && paths_ask_disk(target.fs) ? real.truncate(paths_real(&target, real_path), size)
                                                          : (int)result_of(result);
}
EXPORT_ALIAS(truncate64, truncate);

/* ---- two paths ---- */

enum pairing { BOTH_REAL, BOTH_STORE, APART, TWO_STORES };

/* One path in the store and one elsewhere, or in another store, are on different devices. */
static enum pairing pair(int from_dirfd, const char *from_path, struct store_path *from, int to_dirfd,
                         const char *to_path, struct store_path *to, bool follow)
{
    bool from_served = follow ? paths_follow(from_dirfd, from_path, from) : paths_resolve(from_dirfd, from_path, from);
    bool to_served = paths_resolve(to_dirfd, to_path, to);

    if (from_served && to_served && from->fs && to->fs && from->fs != to->fs)
        return TWO_STORES;
    return from_served && to_served ? BOTH_STORE : from_served || to_served ? APART : BOTH_REAL;
}

static int two_on_disk(const struct store_path *from, const struct store_path *to, unsigned flags)
{
    char from_real[PATH_MAX], to_real[PATH_MAX];

    STORE(paths_disk_changed, true);
    return real.renameat2(AT_FDCWD, paths_real(from, from_real), AT_FDCWD, paths_real(to, to_real), flags);
}

static int rename_places(struct store_path *from, struct store_path *to, unsigned flags)
{
    struct stat st;

    if (!from->fs || !to->fs)
        return (int)result_of(from->fs ? -to->error : -from->error);
    int result = fastspool_rename(from->fs, from->path, to->path, flags);
    if (result == -ENOENT && paths_ask_disk(from->fs) && fastspool_stat(from->fs, from->path, &st) == -ENOENT)
        return two_on_disk(from, to, flags);
    if (result == -ENOENT && paths_adopt(to) >= 0)
        result = fastspool_rename(from->fs, from->path, to->path, flags);
    return (int)result_of(result);
}

/* -errno of a path that leads nowhere, 0: it leads somewhere. */
static int nowhere(const char *path)
{
    if (pointers_text(path))
        return *path ? 0 : -ENOENT;
    return pointers_readable(path, PATH_MAX) == PATH_MAX ? -ENAMETOOLONG : -EFAULT;
}

/* One path is the store's and the other is not. */
static int across(const char *from, const char *to)
{
    int result = nowhere(from);

    result = result ? result : nowhere(to);
    return (int)result_of(result ? result : -EXDEV);
}

/* From the store to elsewhere.  A file that only the disk has may go. */
static int apart(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    struct store_path target;
    struct stat st;

    if (paths_resolve(from_dirfd, from, &target) && target.fs && fastspool_stat(target.fs, target.path, &st) == -ENOENT)
        return paths_ask_disk(target.fs) ? real.renameat2(from_dirfd, from, to_dirfd, to, flags)
                                         : (int)result_of(-ENOENT);
    return across(from, to);
}

/* From one store to another.  What only the disk has of both may go, as far as the disk lets it. */
static int between(const struct store_path *from, const struct store_path *to, unsigned flags)
{
    struct stat st;

    if (fastspool_stat(from->fs, from->path, &st) != -ENOENT)
        return (int)result_of(-EXDEV);
    return paths_ask_disk(from->fs) ? two_on_disk(from, to, flags) : (int)result_of(-ENOENT);
}

static int rename_at(int from_dirfd, const char *from_path, int to_dirfd, const char *to_path, unsigned flags)
{
    struct store_path from, to;

    switch (pair(from_dirfd, from_path, &from, to_dirfd, to_path, &to, false)) {
    case BOTH_STORE:
        return rename_places(&from, &to, flags);
    case TWO_STORES:
        return between(&from, &to, flags);
    case APART:
        return apart(from_dirfd, from_path, to_dirfd, to_path, flags);
    default:
        return flags ? real.renameat2(from_dirfd, from_path, to_dirfd, to_path, flags)
                     : real.renameat(from_dirfd, from_path, to_dirfd, to_path);
    }
}

EXPORT int rename(const char *from, const char *to)
{
    BOUND();
    return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int renameat(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    BOUND();
    return rename_at(from_dirfd, from, to_dirfd, to, 0);
}

EXPORT int renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    BOUND();
    return rename_at(from_dirfd, from, to_dirfd, to, flags);
}

static int link_on_disk(const struct store_path *from, const struct store_path *to, int flags)
{
    char from_real[PATH_MAX], to_real[PATH_MAX];

    STORE(paths_disk_changed, true);
    return real.linkat(AT_FDCWD, paths_real(from, from_real), AT_FDCWD, paths_real(to, to_real), flags);
}

/* As between(). */
static int link_between(const struct store_path *from, const struct store_path *to, int flags)
{
    struct stat st;

    if (fastspool_stat(from->fs, from->path, &st) != -ENOENT)
        return (int)result_of(-EXDEV);
    return paths_ask_disk(from->fs) ? link_on_disk(from, to, flags) : (int)result_of(-ENOENT);
}

static int link_places(struct store_path *from, struct store_path *to, int flags)
{
    if (!from->fs || !to->fs)
        return (int)result_of(from->fs ? -to->error : -from->error);
    int result = fastspool_link(from->fs, from->path, to->path);
    struct stat st;
    if (result == -ENOENT && paths_ask_disk(from->fs) && fastspool_stat(from->fs, from->path, &st) == -ENOENT)
        return link_on_disk(from, to, flags);
    if (result == -ENOENT && paths_adopt(to) >= 0)
        result = fastspool_link(from->fs, from->path, to->path);
    return (int)result_of(result);
}

static int link_at(int from_dirfd, const char *from_path, int to_dirfd, const char *to_path, int flags)
{
    struct store_path from, to;
    char name[FD_LINK_MAX];

    /* Of a descriptor, also without a name: as by its name in /proc. */
    if ((flags & AT_EMPTY_PATH) && pointers_text(from_path) && !*from_path && descriptors_find(from_dirfd)) {
        fd_link(from_dirfd, name);
        from_path = name;
        flags |= AT_SYMLINK_FOLLOW;
    }
    switch (pair(from_dirfd, from_path, &from, to_dirfd, to_path, &to, flags & AT_SYMLINK_FOLLOW)) {
    case BOTH_STORE:
        return link_places(&from, &to, flags);
    case TWO_STORES:
        return link_between(&from, &to, flags);
    case APART:
        return across(from_path, to_path);
    default:
        return real.linkat(from_dirfd, from_path, to_dirfd, to_path, flags);
    }
}

EXPORT int link(const char *from, const char *to)
{
    BOUND();
    return link_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
    BOUND();
    return link_at(from_dirfd, from, to_dirfd, to, flags);
}

/* ---- what the store never holds ---- */

/* True and errno: @path is the store's, which can't hold such a file. */
static bool refused(int dirfd, const char *path, int error)
{
    struct store_path target;
    struct stat st;

    if (!paths_resolve(dirfd, path, &target))
        return false;
    if (target.fs && fastspool_stat(target.fs, target.path, &st) == 0)
        error = error == EINVAL ? EINVAL : EEXIST;
    errno = target.fs ? error : target.error;
    return true;
}

EXPORT int symlink(const char *target, const char *path)
{
    BOUND();
    return refused(AT_FDCWD, path, EPERM) ? -1 : real.symlink(target, path);
}

EXPORT int symlinkat(const char *target, int dirfd, const char *path)
{
    BOUND();
    return refused(dirfd, path, EPERM) ? -1 : real.symlinkat(target, dirfd, path);
}

EXPORT int mknod(const char *path, mode_t mode, dev_t device)
{
    BOUND();
    return refused(AT_FDCWD, path, EPERM) ? -1 : real.mknod(path, mode, device);
}

EXPORT int mknodat(int dirfd, const char *path, mode_t mode, dev_t device)
{
    BOUND();
    return refused(dirfd, path, EPERM) ? -1 : real.mknodat(dirfd, path, mode, device);
}

EXPORT int mkfifo(const char *path, mode_t mode)
{
    BOUND();
    return refused(AT_FDCWD, path, EPERM) ? -1 : real.mkfifo(path, mode);
}

EXPORT int mkfifoat(int dirfd, const char *path, mode_t mode)
{
    BOUND();
    return refused(dirfd, path, EPERM) ? -1 : real.mkfifoat(dirfd, path, mode);
}

/* The length of the path of the descriptor that @path names (/proc/self/fd/N), 0: it names none of the store's. */
static int path_of_name(const char *path, char result[PATH_MAX])
{
    uint32_t description = paths_description(path);

    if (!description)
        return 0;
    if (paths_of(OF(description), result) >= 0)
        return (int)strlen(result);
    return snprintf(result, PATH_MAX, "%s/ (deleted)", inside_spool(attachment_of(description)));
}

static ssize_t read_link(int dirfd, const char *path, char *buffer, size_t size)
{
    char name[PATH_MAX];
    struct store_path target;
    struct stat st;
    int error = !paths_resolve(dirfd, path, &target) ? -ENOENT
                : target.fs                          ? fastspool_stat(target.fs, target.path, &st)
                                                     : -target.error;

    if (error != -ENOENT) /* what the store has is no symbolic link */
        return result_of(error ? error : -EINVAL);
    size_t length = (size_t)path_of_name(path, name);
    if (length == 0)
        return dirfd == AT_FDCWD ? real.readlink(path, buffer, size) : real.readlinkat(dirfd, path, buffer, size);
    length = length < size ? length : size;
    if (length == 0 || pointers_writable(buffer, length) < length)
        return result_of(length ? -EFAULT : -EINVAL);
    memcpy(buffer, name, length);
    return (ssize_t)length;
}

EXPORT ssize_t readlink(const char *path, char *buffer, size_t size)
{
    BOUND();
    return read_link(AT_FDCWD, path, buffer, size);
}

EXPORT ssize_t readlinkat(int dirfd, const char *path, char *buffer, size_t size)
{
    BOUND();
    return read_link(dirfd, path, buffer, size);
}

/* A spool has no symbolic links: the real path is that of the spool, and what follows without "." and "//".  (".." is
 * gone already.) */
EXPORT char *realpath(const char *path, char *resolved)
{
    struct store_path target;
    struct stat st;
    char result[PATH_MAX];

    BOUND();
    if (!paths_resolve(AT_FDCWD, path, &target))
        return real.realpath(path, resolved);
    int error = target.fs ? fastspool_stat(target.fs, target.path, &st) : -target.error;
    if (error == -ENOENT && paths_ask_disk(target.fs))
        return real.realpath(path, resolved);
    size_t length = target.fs ? strlen(inside_spool(target.fs)) : 0;
    if (error == 0 && length + 1 + strlen(target.path) >= sizeof(result))
        error = -ENAMETOOLONG;
    if (error < 0)
        return result_of(error) < 0 ? NULL : resolved;
    memcpy(result, inside_spool(target.fs), length);
    for (const char *at = target.path; *at;) {
        size_t part = (size_t)(strchrnul(at, '/') - at);
        if (part > 0 && !(part == 1 && *at == '.')) {
            result[length++] = '/';
            memcpy(result + length, at, part);
            length += part;
        }
        at += part + (at[part] == '/');
    }
    result[length] = '\0';
    return resolved ? strcpy(resolved, result) : strdup(result);
}

EXPORT char *canonicalize_file_name(const char *path)
{
    return realpath(path, NULL);
}

/* The fortified names. */
void __chk_fail(void) __attribute__((noreturn));

ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t room);
EXPORT ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
    return readlink(path, buffer, size);
}

ssize_t __readlinkat_chk(int dirfd, const char *path, char *buffer, size_t size, size_t room);
EXPORT ssize_t __readlinkat_chk(int dirfd, const char *path, char *buffer, size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
    return readlinkat(dirfd, path, buffer, size);
}

char *__realpath_chk(const char *path, char *resolved, size_t room);
EXPORT char *__realpath_chk(const char *path, char *resolved, size_t room)
{
    if (room < PATH_MAX)
        __chk_fail();
    return realpath(path, resolved);
}

static int entered(int result)
{
    if (result == 0)
        paths_entered();
    return result;
}

/* The working directory is the kernel's: the disk's directory of the same path. */
static int enter(uint32_t description)
{
    char path[PATH_MAX];
    struct stat st;
    int result = fastspool_fstat(OF(description), &st);
    if (result == 0 && !S_ISDIR(st.st_mode))
        result = -ENOTDIR;
    if (result == 0)
        result = paths_of(OF(description), path);
    return result < 0 ? (int)result_of(result) : entered(real.chdir(path));
}

EXPORT int fchdir(int fd)
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    return description ? enter(description) : entered(real.fchdir(fd));
}

EXPORT int chdir(const char *path)
{
    struct store_path target;
    struct stat st;

    BOUND();
    if (!paths_follow(AT_FDCWD, path, &target))
        return entered(real.chdir(path));
    if (!target.fs)
        return (int)result_of(-target.error);
    if (fastspool_stat(target.fs, target.path, &st) == 0 && !S_ISDIR(st.st_mode))
        return (int)result_of(-ENOTDIR);
    uint32_t description = paths_description(path);
    return description ? enter(description) : entered(real.chdir(path));
}

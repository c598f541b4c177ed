/* SPDX-License-Identifier: MIT
 *
 * Attributes: stat, permissions, owners, times, extended attributes.
 *
 * Happy path:
 *   - By path: the store is asked first.  If it has no such file, the disk answers; with a view the store's word
 *     stands.
 *   - By descriptor: the table of descriptors says whose it is.
 *
 * Failure modes:
 *   - Every errno is the one of a real file system.
 */
#include "asking.h"
#include "attachment.h"
#include "base/fd.h"
#include "descriptors.h"
#include "fastspool.h"
#include "paths.h"
#include "pointers.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* A path that a call is about. */
struct asked {
    const char *path; /* with dirfd: what the real function gets */
    int dirfd;
    bool foreign; /* the real function answers */
    struct store_path target;
    char real_path[PATH_MAX];
    char link[FD_LINK_MAX];
};

/* @flags: those of the call.  With AT_EMPTY_PATH @dirfd may be the file itself, also by O_PATH: as by its name in
 * /proc.
 */
static void ask(struct asked *asked, int dirfd, const char *path, int flags)
{
    if ((flags & AT_EMPTY_PATH) && pointers_text(path) && !*path && descriptors_find(dirfd)) {
        fd_link(dirfd, asked->link);
        path = asked->link;
        flags &= ~AT_SYMLINK_NOFOLLOW;
    }
    asked->path = path;
    asked->dirfd = dirfd;
    asked->foreign = flags & AT_SYMLINK_NOFOLLOW ? !paths_resolve(dirfd, path, &asked->target)
                                                 : !paths_follow(dirfd, path, &asked->target);
}

/* Would the real function harm a placeholder?  It can be reached by a descriptor of another process. */
static bool harms(const struct asked *asked, int flags)
{
    return asked->foreign && paths_is_placeholder(asked->dirfd, asked->path, flags & AT_SYMLINK_NOFOLLOW);
}

/* Is @result of the store the answer?  ENOENT is not, without a view: the disk may have the file, under its real path.
 */
static bool answered(struct asked *asked, int result)
{
    if (!asked->target.fs || result != -ENOENT || !paths_ask_disk(asked->target.fs))
        return true;
    asked->path = paths_real(&asked->target, asked->real_path);
    asked->dirfd = AT_FDCWD;
    asked->foreign = true;
    return false;
}

#define STORE_SAYS(asked, call) ((asked).target.fs ? (call) : -(asked).target.error)

/* The program's memory gets the answer.  -EFAULT: it can't. */
static int give(void *to, const void *answer, size_t size)
{
    if (pointers_writable(to, size) < size)
        return -EFAULT;
    memcpy(to, answer, size);
    return 0;
}

/* ---- stat ---- */

/* Not inlined because of its buffers, two pages of the stack. */
static __attribute__((noinline)) int stat_asked(int dirfd, const char *path, struct stat *st, int flags)
{
    struct asked asked;

    asked.path = path;
    asked.dirfd = dirfd;
    asked.foreign = flags & AT_SYMLINK_NOFOLLOW ? !paths_resolve_asked(dirfd, path, &asked.target)
                                                : !paths_follow_asked(dirfd, path, &asked.target);
    if (!asked.foreign) {
        struct stat found;
        int result = STORE_SAYS(asked, attachment_stat(asked.target.fs, asked.target.path, &found));
        if (result == 0)
            result = give(st, &found, sizeof(found));
        if (answered(&asked, result))
            return (int)result_of(result);
    }
    return real.fstatat(asked.dirfd, asked.path, st, flags);
}

static int stat_at(int dirfd, const char *path, struct stat *st, int flags)
{
    if ((flags & AT_EMPTY_PATH) && path && !*path)
        return dirfd == AT_FDCWD ? real.fstatat(dirfd, path, st, flags) : fstat(dirfd, st);
    return paths_foreign(dirfd, path) ? real.fstatat(dirfd, path, st, flags) : stat_asked(dirfd, path, st, flags);
}

EXPORT int stat(const char *path, struct stat *st)
{
    BOUND();
    return stat_at(AT_FDCWD, path, st, 0);
}
EXPORT_ALIAS(stat64, stat);

EXPORT int lstat(const char *path, struct stat *st)
{
    BOUND();
    return stat_at(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}
EXPORT_ALIAS(lstat64, lstat);

EXPORT int fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
    BOUND();
    return stat_at(dirfd, path, st, flags);
}
EXPORT_ALIAS(fstatat64, fstatat);

EXPORT int fstat(int fd, struct stat *st)
{
    BOUND();
    struct stat found;
    int result = descriptors_fstat(fd, &found);
    if (result < 0)
        return result;
    if (result > 0) {
        uint32_t description = descriptors_find(fd);
        int file = descriptors_carried(fd);
        if (!description)
            return file >= 0 ? asking_fstat(file, st) : real.fstat(fd, st);
        result = attachment_fstat(description, &found);
    }
    return (int)result_of(result == 0 ? give(st, &found, sizeof(found)) : result);
}
EXPORT_ALIAS(fstat64, fstat);

/* Programs built before glibc 2.33 use these names.  The version has one value on 64-bit machines. */
int __xstat(int version, const char *path, struct stat *st);
EXPORT int __xstat(int version, const char *path, struct stat *st)
{
    (void)version;
    return stat(path, st);
}
EXPORT_ALIAS(__xstat64, __xstat);

int __lxstat(int version, const char *path, struct stat *st);
EXPORT int __lxstat(int version, const char *path, struct stat *st)
{
    (void)version;
    return lstat(path, st);
}
EXPORT_ALIAS(__lxstat64, __lxstat);

int __fxstat(int version, int fd, struct stat *st);
EXPORT int __fxstat(int version, int fd, struct stat *st)
{
    (void)version;
    return fstat(fd, st);
}
EXPORT_ALIAS(__fxstat64, __fxstat);

int __fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags);
EXPORT int __fxstatat(int version, int dirfd, const char *path, struct stat *st, int flags)
{
    (void)version;
    return fstatat(dirfd, path, st, flags);
}
EXPORT_ALIAS(__fxstatat64, __fxstatat);

static struct statx_timestamp timestamp(struct timespec time)
{
    return (struct statx_timestamp){.tv_sec = time.tv_sec, .tv_nsec = (uint32_t)time.tv_nsec};
}

static void to_statx(const struct stat *st, struct statx *stx)
{
    *stx = (struct statx){.stx_mask = STATX_BASIC_STATS,
                          .stx_blksize = (uint32_t)st->st_blksize,
                          .stx_nlink = (uint32_t)st->st_nlink,
                          .stx_uid = st->st_uid,
                          .stx_gid = st->st_gid,
                          .stx_mode = (uint16_t)st->st_mode,
                          .stx_ino = st->st_ino,
                          .stx_size = (uint64_t)st->st_size,
                          .stx_blocks = (uint64_t)st->st_blocks,
                          .stx_atime = timestamp(st->st_atim),
                          .stx_ctime = timestamp(st->st_ctim),
                          .stx_mtime = timestamp(st->st_mtim),
                          .stx_dev_major = major(st->st_dev),
                          .stx_dev_minor = minor(st->st_dev)};
}

EXPORT int statx(int dirfd, const char *path, int flags, unsigned want, struct statx *stx)
{
    struct stat st;
    struct asked asked;
    int result;

    BOUND();
    if ((flags & AT_EMPTY_PATH) && path && !*path) {
        uint32_t description = descriptors_find(dirfd);
        if (!description)
            return real.statx(dirfd, path, flags, want, stx);
        result = attachment_fstat(description, &st);
    } else {
        ask(&asked, dirfd, path, flags);
        if (asked.foreign)
            return real.statx(dirfd, path, flags, want, stx);
        result = STORE_SAYS(asked, attachment_stat(asked.target.fs, asked.target.path, &st));
        if (!answered(&asked, result))
            return real.statx(asked.dirfd, asked.path, flags, want, stx);
    }
    if (result == 0) {
        struct statx found;
        to_statx(&st, &found);
        result = give(stx, &found, sizeof(found));
    }
    return (int)result_of(result);
}

/* libc's would not call the wrapper. */
EXPORT key_t ftok(const char *path, int project)
{
    struct store_path target;
    struct stat st;

    BOUND();
    if (!paths_follow(AT_FDCWD, path, &target))
        return real.ftok(path, project);
    if (stat(path, &st) < 0)
        return -1;
    return (key_t)((uint32_t)project << 24 | (uint32_t)(st.st_dev & 0xff) << 16 | (uint32_t)(st.st_ino & 0xffff));
}

/* ---- access ---- */

static int access_at(int dirfd, const char *path, int mode, int flags)
{
    struct asked asked;

    ask(&asked, dirfd, path, flags);
    if (!asked.foreign) {
        int result = STORE_SAYS(asked, fastspool_access(asked.target.fs, asked.target.path, mode, flags & AT_EACCESS));
        if (answered(&asked, result))
            return (int)result_of(result);
    }
    return real.faccessat(asked.dirfd, asked.path, mode, flags);
}

EXPORT int access(const char *path, int mode)
{
    BOUND();
    return access_at(AT_FDCWD, path, mode, 0);
}

EXPORT int faccessat(int dirfd, const char *path, int mode, int flags)
{
    BOUND();
    return access_at(dirfd, path, mode, flags);
}

EXPORT int euidaccess(const char *path, int mode)
{
    BOUND();
    return access_at(AT_FDCWD, path, mode, AT_EACCESS);
}
EXPORT_ALIAS(eaccess, euidaccess);

/* ---- modes and owners ---- */

static int chmod_at(int dirfd, const char *path, mode_t mode, int flags)
{
    struct asked asked;

    ask(&asked, dirfd, path, flags);
    if (!asked.foreign) {
        int result = STORE_SAYS(asked, fastspool_chmod(asked.target.fs, asked.target.path, mode));
        if (answered(&asked, result))
            return (int)result_of(result);
    }
    if (harms(&asked, flags))
        return (int)result_of(-EPERM);
    return real.fchmodat(asked.dirfd, asked.path, mode, flags);
}

EXPORT int chmod(const char *path, mode_t mode)
{
    BOUND();
    return chmod_at(AT_FDCWD, path, mode, 0);
}

EXPORT int fchmodat(int dirfd, const char *path, mode_t mode, int flags)
{
    BOUND();
    return chmod_at(dirfd, path, mode, flags);
}

EXPORT int lchmod(const char *path, mode_t mode)
{
    BOUND();
    return chmod_at(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW);
}

EXPORT int fchmod(int fd, mode_t mode)
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    if (!description)
        return real.fchmod(fd, mode);
    return (int)result_of(fastspool_fchmod(OF(description), mode));
}

static int chown_at(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
    struct asked asked;

    ask(&asked, dirfd, path, flags);
    if (!asked.foreign) {
        int result = STORE_SAYS(asked, fastspool_chown(asked.target.fs, asked.target.path, uid, gid));
        if (answered(&asked, result))
            return (int)result_of(result);
    }
    if (harms(&asked, flags))
        return (int)result_of(-EPERM);
    return real.fchownat(asked.dirfd, asked.path, uid, gid, flags);
}

EXPORT int chown(const char *path, uid_t uid, gid_t gid)
{
    BOUND();
    return chown_at(AT_FDCWD, path, uid, gid, 0);
}

EXPORT int lchown(const char *path, uid_t uid, gid_t gid)
{
    BOUND();
    return chown_at(AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
}

EXPORT int fchown(int fd, uid_t uid, gid_t gid)
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    if (!description)
        return real.fchown(fd, uid, gid);
    return (int)result_of(fastspool_fchown(OF(description), uid, gid));
}

EXPORT int fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
    BOUND();
    return chown_at(dirfd, path, uid, gid, flags);
}

/* ---- times ---- */

EXPORT int futimens(int fd, const struct timespec times[2])
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    if (!description)
        return real.futimens(fd, times);
    if (times && pointers_readable(times, 2 * sizeof(*times)) < 2 * sizeof(*times))
        return (int)result_of(-EFAULT);
    return (int)result_of(fastspool_futimens(OF(description), times));
}

EXPORT int utimensat(int dirfd, const char *path, const struct timespec times[2], int flags)
{
    struct asked asked;

    BOUND();
    ask(&asked, dirfd, path, flags);
    if (!asked.foreign && times && pointers_readable(times, 2 * sizeof(*times)) < 2 * sizeof(*times))
        return (int)result_of(-EFAULT);
    if (!asked.foreign) {
        int result = STORE_SAYS(asked, fastspool_utimens(asked.target.fs, asked.target.path, times));
        if (answered(&asked, result))
            return (int)result_of(result);
    }
    if (harms(&asked, flags))
        return (int)result_of(-EPERM);
    return real.utimensat(asked.dirfd, asked.path, times, flags);
}

/* The older calls, by the newest.  A bad pointer stays one, for that to find. */
static const struct timespec *from_timeval(const struct timeval given[2], struct timespec times[2])
{
    if (pointers_readable(given, 2 * sizeof(*given)) < 2 * sizeof(*given))
        return (const struct timespec *)given;
    for (int i = 0; given && i < 2; i++)
        times[i] = (struct timespec){given[i].tv_sec, given[i].tv_usec * 1000};
    return given ? times : NULL;
}

EXPORT int utimes(const char *path, const struct timeval given[2])
{
    struct timespec times[2];
    return utimensat(AT_FDCWD, path, from_timeval(given, times), 0);
}

EXPORT int lutimes(const char *path, const struct timeval given[2])
{
    struct timespec times[2];
    return utimensat(AT_FDCWD, path, from_timeval(given, times), AT_SYMLINK_NOFOLLOW);
}

EXPORT int futimesat(int dirfd, const char *path, const struct timeval given[2])
{
    struct timespec times[2];
    const struct timespec *wanted = from_timeval(given, times);
    return path ? utimensat(dirfd, path, wanted, 0) : futimens(dirfd, wanted);
}

EXPORT int futimes(int fd, const struct timeval given[2])
{
    struct timespec times[2];
    return futimens(fd, from_timeval(given, times));
}

EXPORT int utime(const char *path, const struct utimbuf *given)
{
    struct timespec times[2];

    if (given && pointers_readable(given, sizeof(*given)) < sizeof(*given))
        return (int)result_of(-EFAULT);
    if (given) {
        times[0] = (struct timespec){given->actime, 0};
        times[1] = (struct timespec){given->modtime, 0};
    }
    return utimensat(AT_FDCWD, path, given ? times : NULL, 0);
}

/* ---- extended attributes: the store has none ---- */

/* Does the store have @path? */
static bool stores(const char *path, int flags)
{
    struct asked asked;
    struct stat st;

    ask(&asked, AT_FDCWD, path, flags);
    return !asked.foreign && asked.target.fs && fastspool_stat(asked.target.fs, asked.target.path, &st) == 0;
}

/* -errno of a change of the attributes of @path, 0: the real function may make it. */
static int refusal(const char *path, int flags)
{
    if (stores(path, flags))
        return -EOPNOTSUPP;
    return paths_is_placeholder(AT_FDCWD, path, flags) ? -EPERM : 0;
}

/* -errno of a call on the attributes of @fd, 0: it is the real function's. */
static int refusal_of(int fd, int error)
{
    uint32_t description = descriptors_find(fd);

    if (!description)
        return 0;
    return inside_flags(OF(description)) & O_PATH ? -EBADF : error;
}

EXPORT ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
    BOUND();
    return stores(path, 0) ? result_of(-ENODATA) : real.getxattr(path, name, value, size);
}

EXPORT ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    BOUND();
    return stores(path, AT_SYMLINK_NOFOLLOW) ? result_of(-ENODATA) : real.lgetxattr(path, name, value, size);
}

EXPORT ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
    BOUND();
    int error = refusal_of(fd, -ENODATA);
    return error ? result_of(error) : real.fgetxattr(fd, name, value, size);
}

EXPORT ssize_t listxattr(const char *path, char *list, size_t size)
{
    BOUND();
    return stores(path, 0) ? 0 : real.listxattr(path, list, size);
}

EXPORT ssize_t llistxattr(const char *path, char *list, size_t size)
{
    BOUND();
    return stores(path, AT_SYMLINK_NOFOLLOW) ? 0 : real.llistxattr(path, list, size);
}

EXPORT ssize_t flistxattr(int fd, char *list, size_t size)
{
    BOUND();
    int error = refusal_of(fd, -ENODATA);
    return error ? (error == -ENODATA ? 0 : result_of(error)) : real.flistxattr(fd, list, size);
}

/* A program that copies a mode as an access control list (cp -p) finds here that it must use chmod. */
EXPORT int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    BOUND();
    int error = refusal(path, 0);
    return error ? (int)result_of(error) : real.setxattr(path, name, value, size, flags);
}

EXPORT int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    BOUND();
    int error = refusal(path, AT_SYMLINK_NOFOLLOW);
    return error ? (int)result_of(error) : real.lsetxattr(path, name, value, size, flags);
}

EXPORT int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    BOUND();
    int error = refusal_of(fd, -EOPNOTSUPP);
    return error ? (int)result_of(error) : real.fsetxattr(fd, name, value, size, flags);
}

EXPORT int removexattr(const char *path, const char *name)
{
    BOUND();
    int error = refusal(path, 0);
    return error ? (int)result_of(error) : real.removexattr(path, name);
}

EXPORT int lremovexattr(const char *path, const char *name)
{
    BOUND();
    int error = refusal(path, AT_SYMLINK_NOFOLLOW);
    return error ? (int)result_of(error) : real.lremovexattr(path, name);
}

EXPORT int fremovexattr(int fd, const char *name)
{
    BOUND();
    int error = refusal_of(fd, -EOPNOTSUPP);
    return error ? (int)result_of(error) : real.fremovexattr(fd, name);
}

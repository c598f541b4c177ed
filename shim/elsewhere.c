/* SPDX-License-Identifier: MIT
 *
 * Calls that the library doesn't serve, though they take a path or a descriptor: they are refused, and never succeed on
 * a placeholder or on the disk's empty directory.
 *
 * Happy path:
 *   - A foreign path or descriptor: the real call.
 *   - A walk through the spool, or a watch of it, with a view: the real call, on the view.
 *
 * Failure modes:
 *   - EOPNOTSUPP: without a view; a handle; a watch by fanotify.
 *   - EPERM: a socket in the spool.
 *   - EINVAL: splice and aio_fsync, as for files of a kind that doesn't have them.
 *   - ENOSYS: a system call that the program makes by syscall(2) on a spool file, but for the few that are served.  As
 *     on an older kernel, many programs then make the libc call.
 */
#include "attachment.h"
#include "descriptors.h"
#include "paths.h"
#include "pointers.h"
#include "signals.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* Must a call that only real files have be refused on @path?  Then errno says so. */
static bool refused(const char *path, bool view_has_it)
{
    struct store_path target;
    BOUND();
    if (!paths_follow(AT_FDCWD, path, &target))
        return false;
    if (target.fs && view_has_it && inside_view(target.fs))
        return false;
    errno = target.fs ? EOPNOTSUPP : target.error;
    return true;
}

/* ---- walks: libc opens the directories by itself ---- */

EXPORT int ftw(const char *path, __ftw_func_t each, int descriptors)
{
    return refused(path, true) ? -1 : real.ftw(path, each, descriptors);
}
EXPORT_ALIAS(ftw64, ftw);

EXPORT int nftw(const char *path, __nftw_func_t each, int descriptors, int flags)
{
    if (refused(path, true))
        return -1;
    if (flags & FTW_CHDIR)
        paths_wander();
    return real.nftw(path, each, descriptors, flags);
}
EXPORT_ALIAS(nftw64, nftw);

EXPORT FTS *fts_open(char *const *paths, int options, int (*compare)(const FTSENT **, const FTSENT **))
{
    BOUND();
    for (char *const *path = paths; *path; path++) {
        if (refused(*path, true))
            return NULL;
    }
    if (!(options & FTS_NOCHDIR))
        paths_wander();
    return real.fts_open(paths, options, compare);
}
EXPORT_ALIAS(fts64_open, fts_open);

/* ---- watches ---- */

EXPORT int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    return refused(path, true) ? -1 : real.inotify_add_watch(fd, path, mask);
}

EXPORT int fanotify_mark(int fd, unsigned flags, uint64_t mask, int dirfd, const char *path)
{
    struct store_path target;

    BOUND();
    if (path ? paths_follow(dirfd, path, &target) : descriptors_find(dirfd) != 0)
        return (int)result_of(-EOPNOTSUPP);
    return real.fanotify_mark(fd, flags, mask, dirfd, path);
}

/* ---- others ---- */

EXPORT int name_to_handle_at(int dirfd, const char *path, struct file_handle *handle, int *mount, int flags)
{
    struct store_path target;

    BOUND();
    bool itself = (flags & AT_EMPTY_PATH) && pointers_text(path) && !*path;
    if (itself ? descriptors_find(dirfd) != 0 : paths_resolve(dirfd, path, &target))
        return (int)result_of(-EOPNOTSUPP);
    return real.name_to_handle_at(dirfd, path, handle, mount, flags);
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    struct store_path target;
    struct sockaddr_un local = {0};

    BOUND();
    if (size > offsetof(struct sockaddr_un, sun_path) && size <= sizeof(local) &&
        pointers_readable(address, size) == size && address->sa_family == AF_UNIX) {
        char path[sizeof(local.sun_path) + 1] = "";
        memcpy(&local, address, size);
        memcpy(path, local.sun_path, sizeof(local.sun_path));
        if (*path && paths_resolve(AT_FDCWD, path, &target))
            return (int)result_of(target.fs ? -EPERM : -target.error);
    }
    return real.bind(fd, address, size);
}

EXPORT ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned flags)
{
    BOUND();
    if (descriptors_find(in) || descriptors_find(out))
        return result_of(-EINVAL);
    return real.splice(in, in_offset, out, out_offset, size, flags);
}

EXPORT int aio_fsync(int operation, struct aiocb *control)
{
    BOUND();
    if (pointers_readable(control, sizeof(*control)) == sizeof(*control) && descriptors_find(control->aio_fildes))
        return (int)result_of(-EINVAL);
    return real.aio_fsync(operation, control);
}
EXPORT_ALIAS(aio_fsync64, aio_fsync);

/* ---- system calls by number ---- */

/* What the arguments are: f a descriptor, d the directory of the path that follows, p a path, others no matter. */
static const char *arguments_of(long number)
{
    static const struct {
        short number;
        char arguments[6];
    } calls[] = {
        {SYS_fstat, "f"},
        {SYS_mmap, "____f"},
        {SYS_ioctl, "f"},
        {SYS_pread64, "f"},
        {SYS_pwrite64, "f"},
        {SYS_readv, "f"},
        {SYS_writev, "f"},
        {SYS_sendfile, "ff"},
        {SYS_fcntl, "f"},
        {SYS_flock, "f"},
        {SYS_truncate, "p"},
        {SYS_ftruncate, "f"},
        {SYS_fchmod, "f"},
        {SYS_fchown, "f"},
        {SYS_statfs, "p"},
        {SYS_fstatfs, "f"},
        {SYS_readahead, "f"},
        {SYS_setxattr, "p"},
        {SYS_lsetxattr, "p"},
        {SYS_fsetxattr, "f"},
        {SYS_getxattr, "p"},
        {SYS_lgetxattr, "p"},
        {SYS_fgetxattr, "f"},
        {SYS_listxattr, "p"},
        {SYS_llistxattr, "p"},
        {SYS_flistxattr, "f"},
        {SYS_removexattr, "p"},
        {SYS_lremovexattr, "p"},
        {SYS_fremovexattr, "f"},
        {SYS_getdents64, "f"},
        {SYS_fadvise64, "f"},
        {SYS_inotify_add_watch, "_p"},
        {SYS_mkdirat, "dp"},
        {SYS_mknodat, "dp"},
        {SYS_fchownat, "dp"},
        {SYS_newfstatat, "dp"},
        {SYS_unlinkat, "dp"},
        {SYS_renameat, "dpdp"},
        {SYS_linkat, "dpdp"},
        {SYS_symlinkat, "_dp"},
        {SYS_readlinkat, "dp"},
        {SYS_fchmodat, "dp"},
        {SYS_faccessat, "dp"},
        {SYS_splice, "f_f"},
        {SYS_sync_file_range, "f"},
        {SYS_utimensat, "dp"},
        {SYS_fallocate, "f"},
        {SYS_preadv, "f"},
        {SYS_pwritev, "f"},
        {SYS_name_to_handle_at, "dp"},
        {SYS_syncfs, "f"},
        {SYS_renameat2, "dpdp"},
        {SYS_copy_file_range, "f_f"},
        {SYS_preadv2, "f"},
        {SYS_pwritev2, "f"},
        {SYS_statx, "dp"},
        {SYS_open_tree, "dp"},
        {SYS_openat2, "dp"},
        {439 /* faccessat2 */, "dp"},
        {452 /* fchmodat2 */, "dp"},
        {463 /* setxattrat */, "dp"},
        {466 /* removexattrat */, "dp"},
        {469 /* file_setattr */, "dp"},
#ifdef SYS_open /* machines that have the older calls */
        {SYS_stat, "p"},
        {SYS_lstat, "p"},
        {SYS_access, "p"},
        {SYS_getdents, "f"},
        {SYS_rename, "pp"},
        {SYS_mkdir, "p"},
        {SYS_rmdir, "p"},
        {SYS_creat, "p"},
        {SYS_link, "pp"},
        {SYS_unlink, "p"},
        {SYS_symlink, "_p"},
        {SYS_readlink, "p"},
        {SYS_chmod, "p"},
        {SYS_chown, "p"},
        {SYS_lchown, "p"},
        {SYS_utime, "p"},
        {SYS_mknod, "p"},
        {SYS_utimes, "p"},
        {SYS_futimesat, "dp"},
#endif
    };

    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        if (calls[i].number == number)
            return calls[i].arguments;
    }
    return "";
}

/* Is an argument the store's? */
static bool touches(const char *kinds, const long arguments[6])
{
    struct store_path target;
    bool found = false;

    for (int i = 0; kinds[i] && !found; i++) {
        const char *path = (const char *)(kinds[i] == 'd' ? arguments[i + 1] : arguments[i]);
        if (kinds[i] == 'f')
            found = descriptors_find((int)arguments[i]) != 0;
        else if (kinds[i] == 'd') /* with an empty path it is the file itself */
            found = pointers_text(path) && *path == '\0' && descriptors_find((int)arguments[i]);
        else if (kinds[i] == 'p')
            found = paths_follow(i > 0 && kinds[i - 1] == 'd' ? (int)arguments[i - 1] : AT_FDCWD, path, &target);
    }
    return found;
}

EXPORT long syscall(long number, ...)
{
    long a[6];
    va_list list;

    BOUND();
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    switch (number) {
    case SYS_rt_sigaction:
        signals_unknown();
        break;
    case SYS_read:
        return read((int)a[0], (void *)a[1], (size_t)a[2]);
    case SYS_write:
        return write((int)a[0], (const void *)a[1], (size_t)a[2]);
    case SYS_lseek:
        return lseek((int)a[0], a[1], (int)a[2]);
    case SYS_openat:
        return openat((int)a[0], (const char *)a[1], (int)a[2], (mode_t)a[3]);
    case SYS_fsync:
        return fsync((int)a[0]);
    case SYS_fdatasync:
        return fdatasync((int)a[0]);
    case SYS_close:
        return close((int)a[0]);
    case SYS_chdir:
        return chdir((const char *)a[0]);
    case SYS_fchdir:
        return fchdir((int)a[0]);
    case SYS_close_range:
        return close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
    case SYS_dup:
        return dup((int)a[0]);
    case SYS_dup3:
        return dup3((int)a[0], (int)a[1], (int)a[2]);
#ifdef SYS_open
    case SYS_open:
        return open((const char *)a[0], (int)a[1], (mode_t)a[2]);
    case SYS_dup2:
        return dup2((int)a[0], (int)a[1]);
#endif
    }
    const char *kinds = arguments_of(number);
    if (*kinds && touches(kinds, a))
        return result_of(-ENOSYS);
    return real.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

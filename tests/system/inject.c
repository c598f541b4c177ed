/* SPDX-License-Identifier: MIT
 *
 * Fault injection, preloaded into the real mirror: the n-th call that changes or syncs the disk kills it or fails.
 *
 *     INJECT_AT=N INJECT_CALLS=all|make|write|sync|reuse INJECT_ERROR=0|ERRNO INJECT_REPORT=FILE
 *
 * One counter covers all threads and all functions of the class.  So a test that raises N from 1 until N is never
 * reached covers every call.  (strace keeps one counter per thread and function.)  INJECT_ERROR=0 kills the process
 * before the call.  FILE receives the call that was hit, as "FUNCTION PATH".
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAKES = 1, WRITES = 2, SYNCS = 4, REUSES = 8 };

static unsigned long at, count;
static int classes, error;
static const char *report;

static __attribute__((constructor)) void configure(void)
{
    const char *calls = getenv("INJECT_CALLS");

    at = strtoul(getenv("INJECT_AT"), NULL, 10);
    classes = strcmp(calls, "make") == 0    ? MAKES | REUSES
              : strcmp(calls, "write") == 0 ? WRITES
              : strcmp(calls, "sync") == 0  ? SYNCS
              : strcmp(calls, "reuse") == 0 ? REUSES
                                            : MAKES | WRITES | SYNCS | REUSES;
    error = atoi(getenv("INJECT_ERROR"));
    report = getenv("INJECT_REPORT");
}

static void tell(const char *function, const char *path)
{
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof(line), "%s %s\n", function, path);
    long fd = syscall(SYS_openat, AT_FDCWD, report, O_WRONLY | O_TRUNC);

    syscall(SYS_write, fd, line, (size_t)length);
    syscall(SYS_close, fd);
}

/* Count a call.  True if it is the one that must fail; kills instead if @error is 0. */
static int meets(int class, const char *function, int fd, const char *path)
{
    char link[64], target[PATH_MAX] = "?";

    if (!path && fd < 0) /* the mirror asks whether a sync is one */
        return 0;
    if (!(classes & class) || __atomic_add_fetch(&count, 1, __ATOMIC_ACQ_REL) != at)
        return 0;
    if (!path) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, target, sizeof(target) - 1);
        target[length < 0 ? 0 : length] = '\0';
        path = target;
    }
    tell(function, path);
    if (error == 0)
        kill(getpid(), SIGKILL);
    errno = error;
    return 1;
}

#define WRAP(type, name, parameters, arguments, class, fd, path) \
    type name parameters                                         \
    {                                                            \
        static type(*real) parameters;                           \
        if (meets(class, #name, fd, path))                       \
            return (type)-1;                                     \
        if (!real)                                               \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);  \
        return real arguments;                                   \
    }

WRAP(ssize_t, pwrite, (int fd, const void *bytes, size_t size, off_t offset), (fd, bytes, size, offset), WRITES, fd,
     NULL)
WRAP(ssize_t, pwrite64, (int fd, const void *bytes, size_t size, off_t offset), (fd, bytes, size, offset), WRITES, fd,
     NULL)
WRAP(ssize_t, pwritev, (int fd, const struct iovec *parts, int n, off_t offset), (fd, parts, n, offset), WRITES, fd,
     NULL)
WRAP(ssize_t, writev, (int fd, const struct iovec *parts, int n), (fd, parts, n), WRITES, fd, NULL)
WRAP(int, ftruncate, (int fd, off_t size), (fd, size), WRITES, fd, NULL)
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size), WRITES, fd, NULL)
WRAP(int, fdatasync, (int fd), (fd), SYNCS, fd, NULL)
WRAP(int, fsync, (int fd), (fd), SYNCS, fd, NULL)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), MAKES, -1, path)
WRAP(int, rename, (const char *from, const char *to), (from, to), MAKES, -1, to)
WRAP(int, unlink, (const char *path), (path), MAKES, -1, path)
WRAP(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags), MAKES, fd, NULL)

/* These return the error instead of setting errno.  Large-file builds call the second one. */
#define WRAP_FALLOCATE(name)                                            \
    int name(int fd, off_t offset, off_t size)                          \
    {                                                                   \
        static int (*real)(int, off_t, off_t);                          \
        if (meets(WRITES, #name, fd, NULL))                             \
            return errno;                                               \
        if (!real)                                                      \
            real = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, #name); \
        return real(fd, offset, size);                                  \
    }

WRAP_FALLOCATE(posix_fallocate)
WRAP_FALLOCATE(posix_fallocate64)

/* An open counts if it creates or truncates a file, or reuses a file of the journal.  The mode argument exists only
 * with O_CREAT. */
static int makes_file(int fd, const char *path, int flags, const char *function)
{
    char head[8] = "";

    if (flags & (O_CREAT | O_TRUNC))
        return meets(MAKES, function, -1, path);
    /* A journal file is being opened for writing.  If it holds data already, this is a reuse. */
    if ((flags & O_ACCMODE) != O_RDWR || strspn(path, "0123456789") != strlen(path))
        return 0;
    long file = syscall(SYS_openat, fd, path, O_RDONLY);
    int used = file >= 0 && read((int)file, head, sizeof(head)) == sizeof(head) && head[0];
    syscall(SYS_close, file);
    return used && meets(REUSES, "reuse", -1, path);
}

#define WRAP_OPEN(name, parameters, arguments, fd, path)          \
    int name parameters                                           \
    {                                                             \
        static int(*real) parameters;                             \
        va_list list;                                             \
        va_start(list, flags);                                    \
        mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0; \
        va_end(list);                                             \
        if (makes_file(fd, path, flags, #name))                   \
            return -1;                                            \
        if (!real)                                                \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name);    \
        return real arguments;                                    \
    }

WRAP_OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, path)
WRAP_OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, path)
WRAP_OPEN(openat, (int fd, const char *path, int flags, ...), (fd, path, flags, mode), fd, path)
WRAP_OPEN(openat64, (int fd, const char *path, int flags, ...), (fd, path, flags, mode), fd, path)

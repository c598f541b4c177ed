/* SPDX-License-Identifier: MIT
 *
 * Control of descriptors: fcntl, ioctl and locks.
 *
 * Happy path:
 *   - A description of the store keeps its own flags and record locks.  Duplicates and close-on-exec are the kernel's.
 *
 * Failure modes:
 *   - EOPNOTSUPP from flock: a spool file has record locks only (docs/limits.md).
 *   - EINVAL from fcntl: a spool file has no leases, seals or signals, and no locks of open file descriptions.
 *   - ENOTTY from ioctl.
 */
#include "attachment.h"
#include "descriptors.h"
#include "fastspool.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#define KERNEL_LARGEFILE 0100000 /* the kernel adds it to the flags of every open; O_LARGEFILE is 0 here */

static int set_flags(struct fastspool *fs, uint32_t description, int flags)
{
    const int changeable = O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME;

    inside_change_flags(fs, description, changeable, flags);
    return 0;
}

static int control(int fd, uint32_t description, int command, void *argument)
{
    struct fastspool *fs = attachment();

    switch (command) {
    case F_GETFL:
        return inside_flags(fs, description) | KERNEL_LARGEFILE;
    case F_SETFL:
        return set_flags(fs, description, (int)(intptr_t)argument);
    case F_SETLK:
    case F_SETLKW:
    case F_GETLK:
        return (int)result_of(fastspool_lock(fs, (int)description, command, argument));
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return descriptors_duplicated(fd, real.fcntl(fd, command, argument));
    case F_GETFD:
    case F_SETFD:
        return real.fcntl(fd, command, argument);
    default: /* a spool file has none of the others */
        errno = EINVAL;
        return -1;
    }
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list arguments;

    BOUND();
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    uint32_t description = descriptors_find(fd);
    if (description)
        return control(fd, description, command, argument);
    int result = real.fcntl(fd, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? descriptors_duplicated(fd, result) : result;
}
EXPORT_ALIAS(fcntl64, fcntl);

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;

    BOUND();
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!descriptors_find(fd) || request == FIOCLEX || request == FIONCLEX)
        return real.ioctl(fd, request, argument);
    errno = ENOTTY;
    return -1;
}

EXPORT int flock(int fd, int operation)
{
    BOUND();
    if (!descriptors_find(fd))
        return real.flock(fd, operation);
    errno = EOPNOTSUPP;
    return -1;
}

EXPORT int lockf(int fd, int command, off_t size)
{
    struct flock lock = {.l_type = command == F_ULOCK ? F_UNLCK : F_WRLCK, .l_whence = SEEK_CUR, .l_len = size};

    BOUND();
    if (!descriptors_find(fd))
        return real.lockf(fd, command, size);
    if (command == F_TEST) {
        if (fcntl(fd, F_GETLK, &lock) < 0)
            return -1;
        if (lock.l_type != F_UNLCK)
            errno = EACCES;
        return lock.l_type == F_UNLCK ? 0 : -1;
    }
    return fcntl(fd, command == F_LOCK ? F_SETLKW : F_SETLK, &lock);
}
EXPORT_ALIAS(lockf64, lockf);

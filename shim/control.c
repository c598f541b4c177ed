/* SPDX-License-Identifier: MIT
 *
 * Control of descriptors: fcntl, ioctl and locks.
 *
 * Happy path:
 *   - A description of the store keeps its own flags and record locks.  Duplicates and close-on-exec are the kernel's.
 *
 * Failure modes:
 *   - EOPNOTSUPP from flock: a spool file has record locks only (docs/limits.md).
 *   - EINVAL from fcntl: a spool file has no leases or seals, and no locks of open file descriptions.
 *   - ENOTTY from ioctl, but for the few requests that every file has.
 */
#include "attachment.h"
#include "descriptors.h"
#include "fastspool.h"
#include "later.h"
#include "pointers.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#define KERNEL_LARGEFILE 0100000 /* the kernel adds it to the flags of every open; O_LARGEFILE is 0 here */

static int set_flags(struct fastspool *fs, uint32_t description, int flags)
{
    const int changeable = O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME;

    int before = inside_change_flags(fs, description, changeable, flags);
    return (int)result_of(before < 0 ? before : 0);
}

static bool is_directory(struct fastspool *fs, uint32_t description)
{
    struct stat st;
    return fastspool_fstat(fs, (int)description, &st) == 0 && S_ISDIR(st.st_mode);
}

static int control(int fd, uint32_t description, int command, void *argument)
{
    bool names = inside_flags(OF(description)) & O_PATH;
    struct flock *lock = argument;

    if (names && command != F_GETFL && command != F_GETFD && command != F_SETFD && command != F_DUPFD &&
        command != F_DUPFD_CLOEXEC)
        return (int)result_of(-EBADF);
    switch (command) {
    case F_GETFL:
        return inside_flags(OF(description)) | (names ? 0 : KERNEL_LARGEFILE);
    case F_SETFL:
        return set_flags(OF(description), (int)(intptr_t)argument);
    case F_SETLK:
    case F_SETLKW:
    case F_GETLK:
        if ((command == F_GETLK ? pointers_writable(lock, sizeof(*lock)) : pointers_readable(lock, sizeof(*lock))) <
            sizeof(*lock))
            return (int)result_of(-EFAULT);
        return (int)result_of(fastspool_lock(OF(description), command, lock));
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return descriptors_duplicated(fd, real.fcntl(fd, command, argument));
    case F_GETLEASE:
        return F_UNLCK;
    case F_NOTIFY:
        return !argument ? 0 : (int)result_of(is_directory(OF(description)) ? -EINVAL : -ENOTDIR);
    case F_GETPIPE_SZ:
    case F_SETPIPE_SZ:
        return (int)result_of(-EBADF);
    case F_GETOWN: /* no signal ever comes from a file */
    case F_SETOWN:
    case F_GETSIG:
    case F_SETSIG:
        return 0;
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

/* The few that every file has. */
static int control_file(int fd, uint32_t description, unsigned long request, int *argument)
{
    int flags = inside_flags(OF(description));
    struct stat st;

    if (flags & O_PATH)
        return -EBADF;
    switch (request) {
    case FIOCLEX:
    case FIONCLEX:
        return real.ioctl(fd, request, argument) < 0 ? -errno : 0;
    case FIONBIO:
        if (pointers_readable(argument, sizeof(*argument)) < sizeof(*argument))
            return -EFAULT;
        inside_change_flags(OF(description), O_NONBLOCK, *argument ? O_NONBLOCK : 0);
        return 0;
    case FIONREAD:
    case FIGETBSZ:
        if (fastspool_fstat(OF(description), &st) < 0 || (request == FIONREAD && !S_ISREG(st.st_mode)))
            return -ENOTTY;
        if (pointers_writable(argument, sizeof(*argument)) < sizeof(*argument))
            return -EFAULT;
        *argument = request == FIGETBSZ ? (int)INSIDE_BLOCK : (int)(st.st_size - inside_offset(OF(description)));
        return 0;
    default:
        return -ENOTTY;
    }
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;

    BOUND();
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    uint32_t description = descriptors_find(fd);
    if (!description && _IOC_TYPE(request) == _IOC_TYPE(FICLONE)) /* its argument says another descriptor */
        later_use_all();
    if (!description)
        return real.ioctl(fd, request, argument);
    return (int)result_of(control_file(fd, description, request, argument));
}

EXPORT int flock(int fd, int operation)
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    if (!description)
        return real.flock(fd, operation);
    return (int)result_of(inside_flags(OF(description)) & O_PATH ? -EBADF : -EOPNOTSUPP);
}

/* As libc: to test asks for a lock for reading, which others of that kind are not in the way of. */
EXPORT int lockf(int fd, int command, off_t size)
{
    static const struct {
        short type;
        int command;
    } as[] = {[F_ULOCK] = {F_UNLCK, F_SETLK},
              [F_LOCK] = {F_WRLCK, F_SETLKW},
              [F_TLOCK] = {F_WRLCK, F_SETLK},
              [F_TEST] = {F_RDLCK, F_GETLK}};

    BOUND();
    if (!descriptors_find(fd))
        return real.lockf(fd, command, size);
    if (command < F_ULOCK || command > F_TEST)
        return (int)result_of(-EINVAL);
    struct flock lock = {.l_type = as[command].type, .l_whence = SEEK_CUR, .l_len = size};
    int result = fcntl(fd, as[command].command, &lock);
    return command == F_TEST && result == 0 && lock.l_type != F_UNLCK ? (int)result_of(-EACCES) : result;
}
EXPORT_ALIAS(lockf64, lockf);

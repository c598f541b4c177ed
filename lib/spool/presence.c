/* SPDX-License-Identifier: MIT
 *
 * Presence: which processes use the store of a state directory.
 *
 * Whose memory a store is, is decided on the spool's own file system.  Boot ids, namespaces and paths below /dev/shm
 * differ between sandboxes that share a spool.  A lock of a file does not.
 *
 * The happy path:
 *   - Every attached process holds a shared lock on the first byte of STATE/lock.
 *   - A process that makes the store, or takes it over from the dead, holds that byte exclusively until it is done.
 *     Then it turns the lock into a shared one, at one instant.
 *   - The lock belongs to the open file description (fcntl(2), F_OFD_SETLK): a forked child shares it with its parent,
 *     and the kernel releases it at death and at exec.
 *   - A process that can't use what the living use, or wants nobody to live any more, holds the second byte while it
 *     waits.  A mirror that lives alone ends then.
 *
 * Failure modes:
 *   - A read-only file system, or a trusted user's process: the lock can be shared, but not claimed.
 *   - STATE/lock is removed or replaced under living processes: they hold a lock that nobody else sees.
 *     presence_is_valid() tells them, and the mirror looks.
 *   - A forked child that no longer uses the store keeps the lock while it lives.
 */
#include "spool/presence.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int presence_open(int state_fd, bool create)
{
    const int flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int fd = openat(state_fd, PLACES_LOCK, O_RDWR | flags | (create ? O_CREAT : 0), 0600);

    if (fd < 0 && (errno == EROFS || errno == EACCES))
        fd = openat(state_fd, PLACES_LOCK, O_RDONLY | flags);
    return fd < 0 ? -errno : fd_high(fd);
}

/* The bytes of the file. */
#define LIVES 0
#define WAITS 1

static int control(int fd, int command, struct flock *lock, short type, off_t byte)
{
    *lock = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, command, lock) < 0 ? -errno : 0;
}

enum presence presence_of_others(int fd)
{
    struct flock lock;

    if (control(fd, F_OFD_GETLK, &lock, F_WRLCK, LIVES) < 0)
        return PRESENCE_SHARED; /* unsure: then nothing is removed or replaced */
    return lock.l_type == F_UNLCK ? PRESENCE_NONE : lock.l_type == F_WRLCK ? PRESENCE_CLAIMED : PRESENCE_SHARED;
}

int presence_check(int fd)
{
    struct flock lock;

    return control(fd, F_OFD_GETLK, &lock, F_WRLCK, LIVES);
}

int presence_announce(int fd)
{
    struct flock lock;
    int result = control(fd, F_OFD_SETLK, &lock, F_RDLCK, LIVES);

    return result == -EACCES ? -EAGAIN : result;
}

int presence_claim(int fd)
{
    struct flock lock;
    int result = control(fd, F_OFD_SETLK, &lock, F_WRLCK, LIVES);

    return result == -EACCES ? -EAGAIN : result;
}

void presence_withdraw(int fd)
{
    struct flock lock;

    control(fd, F_OFD_SETLK, &lock, F_UNLCK, LIVES);
    control(fd, F_OFD_SETLK, &lock, F_UNLCK, WAITS);
}

void presence_wait(int fd)
{
    struct flock lock;

    control(fd, F_OFD_SETLK, &lock, F_RDLCK, WAITS);
}

void presence_wait_ends(int fd)
{
    struct flock lock;

    control(fd, F_OFD_SETLK, &lock, F_UNLCK, WAITS);
}

bool presence_is_awaited(int fd)
{
    struct flock lock;

    return control(fd, F_OFD_GETLK, &lock, F_WRLCK, WAITS) == 0 && lock.l_type != F_UNLCK;
}

bool presence_is_valid(int fd, int state_fd)
{
    struct stat held, named;

    if (fstat(fd, &held) < 0)
        return true;
    if (fstatat(state_fd, PLACES_LOCK, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno != ENOENT;
    return held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

/* A copy is another file.  A file that was made again may have the old number, but not the old time of birth, where the
 * file system has one. */
static int identify(int fd, const char *name, int flags, char identity[PRESENCE_IDENTITY_MAX])
{
    struct statx st;

    if (statx(fd, name, flags, STATX_INO | STATX_BTIME, &st) < 0)
        return -errno;
    if (!(st.stx_mask & STATX_BTIME))
        st.stx_btime = (struct statx_timestamp){0};
    snprintf(identity, PRESENCE_IDENTITY_MAX, "%u:%u:%llu:%lld.%09u", st.stx_dev_major, st.stx_dev_minor,
             (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
    return 0;
}

int presence_identity(int fd, const char *state, char identity[PRESENCE_IDENTITY_MAX], char *error)
{
    int result = identify(fd, "", AT_EMPTY_PATH, identity);

    return result < 0 ? error_set(error, result, "it can't be told which state %s is (statx: %s)", state,
                                  strerrordesc_np(-result))
                      : 0;
}

bool presence_is_uncertain(const char *identity, const char *own)
{
    static const char unborn[] = ":0.000000000";
    size_t length = strlen(own), number = length - strlen(unborn);

    return length > strlen(unborn) && strcmp(own + number, unborn) == 0 && strncmp(own, identity, number + 1) == 0 &&
           strcmp(own, identity) != 0;
}

bool presence_is_still(const char *identity, int state_fd)
{
    char now[PRESENCE_IDENTITY_MAX];
    int result = identify(state_fd, PLACES_LOCK, AT_SYMLINK_NOFOLLOW, now);

    return result < 0 ? result != -ENOENT : strcmp(now, identity) == 0;
}

/* SPDX-License-Identifier: MIT
 *
 * The lock that says "a view of this state lives": STATE/view.lock.
 *
 * The happy path: the supervisor has both kinds of lock on it, for life.  flock(2) is what others try, fcntl(2)'s is
 * the one whose holder the kernel names.
 *
 * Failure modes:
 *   - The file is removed or replaced below a living view, as by an `rm` of the state's files: then nobody sees that it
 *     lives.  Its supervisor looks once a second, and locks what is there, or makes it again.  Meanwhile the lock of
 *     the spool's place, which is root's, keeps a second view away.
 *   - Another process has the new file, or it can't be opened: the next look tries again, and waits for nothing, as a
 *     supervisor has its server to watch.
 *   - The state directory is gone, or another one: the lock is not made again.  Server and mirror see that.
 */
#include "mount/viewlock.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/places.h"
#include "base/rights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#define INSTANT (NS_PER_S / 2) /* for which a process that tests for a view holds a lock, at most */

static int directory = -1; /* the state's, for life: where the supervisor lives its path leads into the view */
static int held = -1;      /* the lock's, for life */

int viewlock_whole(int fd)
{
    return fd_lock(fd, INSTANT);
}

/* With the owner's rights. */
static int open_lock(uid_t owner, gid_t group)
{
    struct rights rights = rights_of_owner(owner, group);
    int fd = openat(directory, PLACES_VIEW_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : fd;

    rights_back(rights);
    return result;
}

/* The same. */
static int open_directory(const char *state, uid_t owner, gid_t group)
{
    struct rights rights = rights_of_owner(owner, group);

    mkdir(state, 0700); /* as the first process that attaches would; the open says why it can't be */
    int fd = open(state, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? -errno : fd;
    rights_back(rights);
    return result;
}

/* The second lock of @fd, which is closed where it is not to be had. */
static int hold(int fd, int result)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (result == 0 && fcntl(fd, F_SETLK, &whole) < 0)
        result = -errno;
    if (result < 0) {
        close(fd);
        return result;
    }
    if (held >= 0)
        close(held);
    held = fd;
    return 0;
}

int viewlock_take(const char *state, const struct stat *spool)
{
    if (directory < 0)
        directory = open_directory(state, spool->st_uid, spool->st_gid);
    int fd = directory < 0 ? directory : open_lock(spool->st_uid, spool->st_gid);
    return fd < 0 ? fd : hold(fd, viewlock_whole(fd));
}

void viewlock_keep(uid_t owner, gid_t group)
{
    struct stat own, named;

    if (fstat(held, &own) < 0)
        return;
    if (fstatat(directory, PLACES_VIEW_LOCK, &named, AT_SYMLINK_NOFOLLOW) == 0 ? named.st_ino == own.st_ino
                                                                               : errno != ENOENT)
        return;
    int fd = open_lock(owner, group);
    if (fd >= 0)
        hold(fd, fd_lock(fd, 0));
}

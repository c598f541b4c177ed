/* SPDX-License-Identifier: MIT
 *
 * One mirror for a store.
 *
 * The happy path: the mirror holds the flock of STATE/mirror.lock as long as it lives.
 *
 * Failure modes:
 *  - The file is removed or replaced below a mirror: a process that looks for a mirror finds none, and starts another.
 *    The old one looks at the name once a second, and ends.  The new one reads in the segment that the last mirror had
 *    locked another file, and waits for its end, which is that nobody has that lock any more.
 *  - That mirror is stopped, or its disk hangs, so it gives no sign of life: it is killed.  It makes no further step of
 *    its own then, and what it has begun in the kernel is waited for.  (Two mirrors that go on side by side number
 *    their batches alike, and mark as clean what the other one has not written.)
 *  - The kernel's list does not have the locks of this file system (listed.c): the sign of life alone is waited for.
 */
#include "mirror/alone.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/listed.h"
#include "base/places.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#define INSTANT  (NS_PER_S / 2)   /* for which a process that tests for a mirror holds the lock, at most */
#define EVERY    (10 * NS_PER_MS) /* between two looks */
#define LIFELESS (3 * NS_PER_S)   /* a mirror gives a sign of life each second: after so long without it hangs */

static struct stat held; /* the file; its descriptor is never closed */

static int take(const struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];

    places_in_state(fs->state, PLACES_MIRROR_LOCK, path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EROFS) /* the disk has failed: the commits will report it */
        fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &held) < 0)
        return -errno;
    return fd_lock(fd, INSTANT);
}

/* Is the mirror that has locked file @number still there?  While it has that file open no other one has the number;
 * afterwards one may, which another process has locked: only the pid of both is killed. */
static bool lives(const struct mirror_state *mirror, uint64_t number)
{
    const struct stat file = {.st_dev = held.st_dev, .st_ino = number};
    bool silent = clock_monotonic() - LOAD(mirror->beat) >= LIFELESS;
    bool listed = listed_locker(&held) > 0;
    pid_t pid = listed ? listed_locker(&file) : 0;

    if (pid <= 0 || pid != LOAD(mirror->pid))
        return !silent && !(listed && pid == 0);
    if (silent)
        kill(pid, SIGKILL);
    return true;
}

int alone_begin(const struct fastspool *fs)
{
    const struct mirror_state *mirror = &fs->header->mirror;
    int result = take(fs);
    uint64_t last = LOAD(mirror->lock);

    if (result < 0)
        return result;
    do { /* of several that wait for the same one, one is the next, which the others wait for */
        while (last && last != held.st_ino && lives(mirror, last))
            clock_sleep(EVERY);
        STORE(mirror->beat, clock_monotonic());
    } while (!__atomic_compare_exchange_n(&ATOMIC(mirror->lock), &last, held.st_ino, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    STORE(mirror->pid, getpid());
    return 0;
}

bool alone_still(const struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    places_in_state(fs->state, PLACES_MIRROR_LOCK, path);
    return lstat(path, &st) < 0 ? errno != ENOENT : st.st_ino == held.st_ino;
}

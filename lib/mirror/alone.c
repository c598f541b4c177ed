/* SPDX-License-Identifier: MIT
 *
 * One mirror for a store.
 *
 * The happy path: the mirror holds the flock of STATE/mirror.lock as long as it lives.
 *
 * Failure modes:
 *  - The file is removed or replaced below a mirror: a process that looks for a mirror finds none, and starts another.
 *    The old one looks at the name once a second, and ends.  The new one reads in the segment that the last mirror had
 *    locked another file, and waits until that mirror gives no sign of life any more.
 *  - A mirror that is stopped meanwhile, or whose disk hangs, gives none, and is not waited for.
 */
#include "mirror/alone.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/places.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#define INSTANT  (NS_PER_S / 2)   /* for which a process that tests for a mirror holds the lock, at most */
#define EVERY    (10 * NS_PER_MS) /* between two looks */
#define LIFELESS (3 * NS_PER_S)   /* a mirror gives a sign of life each second: after so long without it has ended */

static ino_t held; /* the file; its descriptor is never closed */

static int take(const struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    places_in_state(fs->state, PLACES_MIRROR_LOCK, path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EROFS) /* the disk has failed: the commits will report it */
        fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    int result = fd_lock(fd, INSTANT);
    held = st.st_ino;
    return result;
}

int alone_begin(const struct fastspool *fs)
{
    const struct mirror_state *mirror = &fs->header->mirror;
    int result = take(fs);

    if (result < 0)
        return result;
    uint64_t last = LOAD(mirror->lock);
    while (last && last != held && clock_monotonic() - LOAD(mirror->beat) < LIFELESS)
        clock_sleep(EVERY);
    STORE(mirror->lock, held);
    return 0;
}

bool alone_still(const struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    places_in_state(fs->state, PLACES_MIRROR_LOCK, path);
    return lstat(path, &st) < 0 ? errno != ENOENT : st.st_ino == held;
}

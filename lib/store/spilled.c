/* SPDX-License-Identifier: MIT
 *
 * Spilled files: an open file whose data has no room in memory is read from a file of its own on the disk,
 * STATE/spill/INODE-GENERATION.  (The mirror creates and removes spill files: lib/mirror/spill.c.)
 *
 * The happy path: the process that opens a spilled file opens the spill file too, with the owner's rights.  That
 * descriptor stays with the description in the process's pool.
 *
 * Failure modes:
 *   - Writing to a spilled file is ENOSPC, because it would take memory that is missing.  Replacing it (O_TRUNC,
 *     rename, unlink) works.
 *   - A spill file that the mirror cannot have made is EIO.
 */
#include "store/spilled.h"

#include "base/fd.h"
#include "base/guard.h"
#include "base/places.h"
#include "base/rights.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Is this a file that the pager made?  The mail user can create any file in that directory. */
static int check(const struct fastspool *fs, int fd, uint64_t size)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) && st.st_uid == fs->owner && (uint64_t)st.st_size >= size ? 0 : -EIO;
}

/* Open the spill file by its path, with the owner's rights.  The guard holds signals off meanwhile. */
static int open_path(struct fastspool *fs, uint32_t description)
{
    uint32_t inode, generation;
    char path[PLACES_PATH_MAX];
    int result = descriptions_file(fs, description, &inode, &generation);

    if (result < 0)
        return result;
    if (!(LOAD(inode_at(fs, inode)->flags) & INODE_SPILLED))
        return -ENOENT;
    uint64_t size = LOAD(inode_at(fs, inode)->size);
    places_spill(fs->state, inode, generation, path);
    guard_enter();
    struct rights rights = rights_of_owner(fs->owner, fs->group);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    rights_back(rights);
    guard_leave();
    result = fd < 0 ? fd : check(fs, fd, size);
    if (result < 0 && fd >= 0)
        close(fd);
    return result < 0 ? result : fd;
}

int spilled_attach(struct fastspool *fs, uint32_t description)
{
    int saved = errno, fd = open_path(fs, description);

    if (fd >= 0)
        fd = fd_high(fd);
    int result = fd < 0 ? fd : descriptions_set_spill(fs, description, fd);
    errno = saved;
    return result == -ENOENT ? 0 : result;
}

int spilled_open(struct fastspool *fs, uint32_t description)
{
    int saved = errno, own = descriptions_spill(fs, description);
    /* A description that this process did not open itself has none. */
    int fd = own < 0 ? open_path(fs, description) : fcntl(own, F_DUPFD_CLOEXEC, 3);

    fd = fd < 0 && own >= 0 ? -errno : fd;
    errno = saved;
    return fd;
}

ssize_t spilled_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, uint64_t offset)
{
    int saved = errno, own = descriptions_spill(fs, description), fd = own < 0 ? open_path(fs, description) : own;

    if (fd < 0)
        return fd;
    ssize_t got = pread(fd, buffer, size, (off_t)offset);
    got = got < 0 ? -errno : got;
    if (own < 0)
        close(fd);
    errno = saved;
    return got;
}

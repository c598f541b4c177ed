/* SPDX-License-Identifier: MIT
 *
 * Spill files: what is open and can't be in memory lies in a file of its own on the disk, STATE/spill/INODE-GENERATION.
 *
 * The happy path: a file is evicted, and wanted, and larger than memory should hold, or memory has no room for it: the
 * pager writes it to a spill file instead, and its inode is SPILLED.  It is read from there, by whoever has it open,
 * and stays until nobody has: then it is evicted again, and the pager removes the spill file.  What the spill file
 * holds is in the database too: it is never synced, and a recovery begins with none.
 *
 * Failure modes: a full disk is the opener's ENOSPC.  Writing to such a file would take the memory that there isn't,
 * and is ENOSPC; replacing it (O_TRUNC, rename, unlink) works as ever.  A mirror that dies leaves spill files behind:
 * the next one removes those that no inode claims.
 */
#include "store/spill.h"

#include "base/fd.h"
#include "base/places.h"
#include "base/rights.h"
#include "store/descriptions.h"
#include "store/eviction.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int spill_create(struct fastspool *fs, const struct fault *fault)
{
    char path[PLACES_PATH_MAX];

    places_in_state(fs->state, PLACES_SPILL, path);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    places_spill(fs->state, fault->inode, fault->generation, path);
    unlink(path); /* one that was left may be open still: it keeps what it has */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)fault->size) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

/* Only what the pager made: the mail user could put anything there. */
static int check(const struct fastspool *fs, int fd, uint64_t size)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) && st.st_uid == fs->owner && (uint64_t)st.st_size >= size ? 0 : -EIO;
}

/* By its path, with the owner's rights, which no signal handler may see. */
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
    if (section_guard.enter)
        section_guard.enter();
    struct rights rights = rights_of_owner(fs->owner, fs->group);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    rights_back(rights);
    if (section_guard.leave)
        section_guard.leave();
    result = fd < 0 ? fd : check(fs, fd, size);
    if (result < 0 && fd >= 0)
        close(fd);
    return result < 0 ? result : fd;
}

int spill_attach(struct fastspool *fs, uint32_t description)
{
    int saved = errno, fd = open_path(fs, description);

    if (fd >= 0)
        fd = fd_high(fd);
    int result = fd < 0 ? fd : descriptions_set_spill(fs, description, fd);
    errno = saved;
    return result == -ENOENT ? 0 : result;
}

int spill_open(struct fastspool *fs, uint32_t description)
{
    int saved = errno, own = descriptions_spill(fs, description);
    /* One that came by another way than open has none yet. */
    int fd = own < 0 ? open_path(fs, description) : fcntl(own, F_DUPFD_CLOEXEC, 3);

    fd = fd < 0 && own >= 0 ? -errno : fd;
    errno = saved;
    return fd;
}

ssize_t spill_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, uint64_t offset)
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

struct claim {
    uint32_t inode;
    uint32_t generation;
};

/* Nobody has it open any more, or it is another file by now: 1: its spill file may go. */
static int give_up(struct fastspool *fs, void *argument)
{
    const struct claim *claim = argument;
    const struct inode *inode = inode_at(fs, claim->inode);

    if (!inodes_valid(fs, claim->inode) || inode->generation != claim->generation || !(inode->flags & INODE_SPILLED))
        return 1;
    if (inode->opens > 0)
        return 0;
    eviction_unspill(fs, claim->inode);
    return 1;
}

int spill_sweep(struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    int result = 0, left = 0;

    places_in_state(fs->state, PLACES_SPILL, path);
    DIR *listing = opendir(path);
    if (!listing)
        return errno == ENOENT ? 0 : -errno;
    for (const struct dirent *entry; result >= 0 && (entry = readdir(listing)) != NULL;) {
        struct claim claim;
        if (places_parse_spill(entry->d_name, &claim.inode, &claim.generation) < 0)
            continue;
        result = section_run(fs, give_up, &claim);
        if (result > 0) {
            places_spill(fs->state, claim.inode, claim.generation, path);
            unlink(path);
        }
        left += result == 0;
    }
    closedir(listing);
    return result < 0 ? result : left;
}

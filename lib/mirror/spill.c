/* SPDX-License-Identifier: MIT
 *
 * Spill files: a file that is evicted, and opened, and larger than memory should hold, or that finds no room there,
 * lies in a file of its own on the disk, STATE/spill/INODE-GENERATION.
 *
 * The happy path: the pager makes the spill file and writes the data to it; the inode is SPILLED.  It stays until no
 * process has the file open: then the file is evicted again, and the sweep removes the spill file.  What it holds is in
 * the database too: it is never synced, and a recovery begins with none.
 *
 * Failure modes: a full disk is the opener's ENOSPC.  A mirror that dies leaves spill files behind: the next one
 * removes those that no inode claims.
 */
#include "mirror/spill.h"

#include "base/acl.h"
#include "base/places.h"
#include "mirror/pagein.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Trusted users have the rights to a spill file that they have to STATE/runtime: to read it. */
static int trust_reader(const struct fastspool *fs, int fd)
{
    char path[PLACES_PATH_MAX];

    places_in_state(fs->state, PLACES_RUNTIME, path);
    int from = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int result = from < 0 ? 0 : acl_copy(from, fd);
    if (from >= 0)
        close(from);
    return result;
}

int spill_create(struct fastspool *fs, const struct pagein *pagein)
{
    char path[PLACES_PATH_MAX];

    places_in_state(fs->state, PLACES_SPILL, path);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    places_spill(fs->state, pagein->inode, pagein->generation, path);
    unlink(path); /* one that was left may be open still: it keeps what it has */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int error = ftruncate(fd, (off_t)pagein->size) < 0 ? -errno : trust_reader(fs, fd);
    if (error == 0)
        return fd;
    close(fd);
    return error;
}

struct claim {
    uint32_t inode;
    uint32_t generation;
};

/* Returns 1 if the spill file may be removed: the file is closed, or the number belongs to another file. */
static int give_up(struct fastspool *fs, void *argument)
{
    const struct claim *claim = argument;
    const struct inode *inode = inode_at(fs, claim->inode);

    if (!inode_valid(fs, claim->inode) || inode->generation != claim->generation || !(inode->flags & INODE_SPILLED))
        return 1;
    if (inode->opens > 0)
        return 0;
    residency_unspill(fs, claim->inode);
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

/* SPDX-License-Identifier: MIT
 *
 * Inodes: the table of files, their attributes, and the dirty list: inodes with changes that are not on the disk.
 *
 * The happy path: a file begins with neither name nor description (inodes_take()).  It is named (names.c), opened
 * (descriptions.c), changed, unlinked and closed.  When its last name and last description are gone it is dropped, and
 * its blocks are freed (orphans.c).  Its number is used again, with the next generation.
 *
 * A whole inode is dirty: its attributes, its names, and one range of data blocks.  header.tickets.capture counts the
 * captures, so "changed since the last capture" is one comparison.
 *   - A file that comes and goes between two commits leaves the list, and is never written.
 *   - A file that goes while a commit runs stays in the list, because the commit may be about to write it.
 *
 * Failure modes: inodes_take() fails as table_take() does.  Nothing else fails.
 */
#include "store/inodes.h"

#include "base/clock.h"
#include "store/doubt.h"
#include "store/layout.h"
#include "store/lists.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* st_ino of the store's files starts here.  One listing shows them beside the disk's files, with smaller numbers. */
#define INODE_NUMBER_BASE (UINT64_C(1) << 40)

/* ---- taking and dropping ---- */

int inodes_take(struct fastspool *fs, mode_t mode, uid_t uid, gid_t gid, uint32_t *inode)
{
    uint32_t i;
    int result = table_take(fs, TABLE_INODES, &i);

    if (result < 0)
        return result;
    const struct inode *old = inode_at(fs, i);
    struct inode new = {
        .generation = old->generation,
        .mode = (uint16_t)mode,
        .flags = (uint16_t)(INODE_USED | (old->flags & (INODE_DIRTY | INODE_PERSISTED))),
        .uid = uid,
        .gid = gid,
        .list = old->list,
        .changed_in = old->changed_in,
    };
    new.atime = new.mtime = new.ctime = clock_realtime();
    if (S_ISDIR(mode)) {
        new.size = BLOCK_SIZE;
        new.links = 1; /* "." */
    } else {
        SET(fs, fs->header->tree.files, fs->header->tree.files + 1);
    }
    section_copy(fs, old, &new, sizeof(new));
    *inode = i;
    return 0;
}

void inodes_clean_data(struct fastspool *fs, const struct inode *inode)
{
    uint64_t bytes = (uint64_t)(inode->dirty_to - inode->dirty_from) * BLOCK_SIZE;

    if (bytes == 0)
        return;
    SET(fs, fs->header->tickets.dirty_bytes, fs->header->tickets.dirty_bytes - bytes);
    SET_TWO(fs, inode->dirty_from, 0, inode->dirty_to, 0);
}

void inodes_leave_dirty(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);

    inodes_clean_data(fs, inode);
    if (inode->flags & INODE_DIRTY) {
        lists_remove(fs, &fs->header->tickets.dirty, LIST_LINK, i);
        SET_PAIR(fs, inode->flags, (uint16_t)(inode->flags & ~INODE_DIRTY), fs->header->tickets.dirty_files,
                 fs->header->tickets.dirty_files - 1);
    }
}

void inodes_clean(struct fastspool *fs, uint32_t i)
{
    inodes_leave_dirty(fs, i);
    residency_join(fs, i);
}

void inodes_give(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);

    if (!S_ISDIR(inode->mode))
        SET(fs, fs->header->tree.files, fs->header->tree.files - 1);
    SET(fs, inode->generation, inode->generation + 1);
    SET(fs, inode->flags, (uint16_t)(inode->flags & ~(INODE_USED | INODE_ORPHAN)));
    table_give(fs, TABLE_INODES, i);
}

/* ---- the dirty list ---- */

/* It is the first change since the last capture, or of all.  (By itself, so that the others save no registers.) */
static __attribute__((noinline)) void dirty_first(struct fastspool *fs, uint32_t i)
{
    const struct tickets_state *tickets = &fs->header->tickets;
    const struct inode *inode = inode_at(fs, i);

    if (tickets->oldest_dirty == 0)
        SET(fs, tickets->oldest_dirty, clock_monotonic());
    if (inode->changed_in != tickets->capture)
        SET(fs, inode->changed_in, tickets->capture);
    if (inode->flags & INODE_DIRTY)
        return;
    residency_leave_clean(fs, i);
    lists_append(fs, &tickets->dirty, LIST_LINK, i);
    SET_PAIR(fs, inode->flags, (uint16_t)(inode->flags | INODE_DIRTY), tickets->dirty_files, tickets->dirty_files + 1);
}

void inodes_dirty(struct fastspool *fs, uint32_t i)
{
    const struct tickets_state *tickets = &fs->header->tickets;
    const struct inode *inode = inode_at(fs, i);
    const uint64_t change = tickets->change + 1;

    SET_PAIR(fs, tickets->change, change, inode->ticket, change);
    if (tickets->oldest_dirty == 0 || inode->changed_in != tickets->capture || !(inode->flags & INODE_DIRTY))
        dirty_first(fs, i);
}

void inodes_dirty_data(struct fastspool *fs, uint32_t i, uint32_t from, uint32_t to)
{
    const struct header *h = fs->header;
    const struct inode *inode = inode_at(fs, i);
    bool clean = inode->dirty_from == inode->dirty_to;
    uint32_t new_from = clean || from < inode->dirty_from ? from : inode->dirty_from;
    uint32_t new_to = clean || to > inode->dirty_to ? to : inode->dirty_to;

    inodes_dirty(fs, i);
    if (inode->data_in != h->tickets.capture) {
        SET_TWO(fs, inode->data_in, h->tickets.capture, inode->since_from, from);
    } else if (from < inode->since_from) {
        SET(fs, inode->since_from, from);
    }
    uint64_t before = inode->dirty_to - inode->dirty_from;
    if (new_from != inode->dirty_from || new_to != inode->dirty_to)
        SET_TWO(fs, inode->dirty_from, new_from, inode->dirty_to, new_to);
    if (new_to - new_from != before)
        SET(fs, h->tickets.dirty_bytes, h->tickets.dirty_bytes + (new_to - new_from - before) * BLOCK_SIZE);
}

/* ---- attributes ---- */

uint64_t inodes_number(uint32_t i)
{
    return INODE_NUMBER_BASE | i;
}

/* What no file of the store has; NULL: nothing. */
static const char *impossible(const struct inode *inode)
{
    if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return "an inode is neither a file nor a directory";
    if (S_ISDIR(inode->mode) ? inode->size != BLOCK_SIZE : inode->size > FILE_SIZE_MAX)
        return "a file is larger than a file can be";
    if (inode->uid == (uid_t)-1 || inode->gid == (gid_t)-1)
        return "a file has an owner that no file can have";
    if (inode->links > NAMES_MAX || inode->parts > 2 * FILE_BLOCKS_MAX * BLOCK_PARTS)
        return "a file has more links or blocks than there can be";
    return NULL;
}

int inodes_check(const struct inode *inode)
{
    const char *what = impossible(inode);
    return what ? doubt(what) : 0;
}

/* The mode that is shown.  Whoever can write the segment can make up a file of root's.  With a set-ID bit that would be
 * a set-user-ID program, as soon as root copies it with its attributes.  So these bits show only where the spool's
 * owner could have set them. */
static mode_t shown_mode(const struct fastspool *fs, const struct inode *inode)
{
    mode_t mode = inode->mode;

    if (S_ISDIR(mode) || fs->owner == 0)
        return mode;
    if (inode->uid != fs->owner)
        mode &= ~(mode_t)S_ISUID;
    if (inode->gid != fs->group)
        mode &= ~(mode_t)S_ISGID;
    return mode;
}

int inodes_stat(const struct fastspool *fs, uint32_t i, struct stat *st)
{
    const struct inode inode = *inode_at(fs, i);

    __atomic_signal_fence(__ATOMIC_ACQUIRE); /* the copy is checked, not what may stand there by now */
    int result = inodes_check(&inode);
    if (result < 0)
        return result;
    memset(st, 0, sizeof(*st));
    st->st_dev = fs->device;
    st->st_ino = inodes_number(i);
    st->st_mode = shown_mode(fs, &inode);
    bool removed = S_ISDIR(inode.mode) && inode.names == 0 && i != LOAD(fs->header->tree.root);
    st->st_nlink = removed ? 0 : inode.links;
    st->st_uid = inode.uid;
    st->st_gid = inode.gid;
    st->st_size = (off_t)inode.size;
    st->st_blksize = BLOCK_SIZE;
    uint64_t parts =
        inode.flags & (INODE_EVICTED | INODE_SPILLED) ? (inode.size + PART_SIZE - 1) / PART_SIZE : inode.parts;
    st->st_blocks = S_ISDIR(inode.mode) ? BLOCK_SIZE / 512 : (blkcnt_t)parts * (PART_SIZE / 512);
    st->st_atim = clock_timespec(inode.atime);
    st->st_mtim = clock_timespec(inode.mtime);
    st->st_ctim = clock_timespec(inode.ctime);
    return 0;
}

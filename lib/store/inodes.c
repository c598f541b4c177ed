/* SPDX-License-Identifier: MIT
 *
 * Inodes: the table of files, their attributes, who may do what with them, and the list of those that the disk does
 * not know yet.
 *
 * The happy path of a file: taken with neither name nor description, named (names.c), opened (descriptions.c),
 * changed, unlinked, closed; when its last name and its last description are gone it is dropped: its blocks are
 * freed at once where they are few, else it joins the orphans, which are freed a step at a time, by whoever dropped
 * it or, if that one dies, by the mirror.  Its number is used again under the next generation.
 *
 * Dirty is a whole inode: attributes, names, and a range of data blocks.  header.capture counts the commits' looks at
 * the list, so that "changed since the running commit looked" is one comparison.  A file that comes and goes between
 * two commits leaves the list without ever having been written.  One that goes while a commit runs stays in it,
 * because that commit may be about to write it.
 */
#include "store/inodes.h"

#include "base/clock.h"
#include "fastspool.h"
#include "store/data.h"
#include "store/eviction.h"
#include "store/layout.h"
#include "store/lists.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* st_ino of the store's files: apart from those of the disk's, which share their listings. */
#define INODE_NUMBER_BASE (UINT64_C(1) << 40)

/* Two system calls (250 ns) beside an operation of 200 ns: asked once, and again when the program says so. */
static uint64_t cached_credentials;
static uint32_t credentials_known;

void inodes_credentials(struct credentials *who)
{
    if (!LOAD(credentials_known)) {
        STORE(cached_credentials, (uint64_t)geteuid() << 32 | getegid());
        STORE(credentials_known, 1);
    }
    uint64_t ids = LOAD(cached_credentials);
    who->uid = (uid_t)(ids >> 32);
    who->gid = (gid_t)ids;
}

void fastspool_credentials_changed(void)
{
    STORE(credentials_known, 0);
}

bool inodes_valid(const struct fastspool *fs, uint32_t i)
{
    return i != 0 && i < LOAD(fs->header->inodes.used) && i < INODES_MAX && (inode_at(fs, i)->flags & INODE_USED);
}

/* ---- taking and dropping ---- */

int inodes_take(struct fastspool *fs, mode_t mode, uid_t uid, gid_t gid, uint32_t *inode)
{
    struct table *table = &fs->header->inodes;
    uint32_t i = table->free;

    if (i == 0 && table->used >= table->capacity)
        return section_want(TABLE_INODES);
    if (i != 0 && i >= table->used)
        return section_damaged(fs, "the list of free inodes leads out of the table");
    if (i == 0) {
        i = table->used;
        SET(fs, table->used, i + 1);
    } else {
        SET(fs, table->free, inode_at(fs, i)->names);
    }
    struct inode *old = inode_at(fs, i);
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
        SET(fs, fs->header->files, fs->header->files + 1);
    }
    section_copy(fs, old, &new, sizeof(new));
    SET(fs, table->count, table->count + 1);
    *inode = i;
    return 0;
}

static int make_root(struct fastspool *fs, void *argument)
{
    const struct stat *st = argument;
    uint32_t root;
    int result = inodes_take(fs, st->st_mode, st->st_uid, st->st_gid, &root);

    if (result < 0)
        return result;
    SET(fs, inode_at(fs, root)->links, 2);
    SET(fs, inode_at(fs, root)->dir.parent, root);
    SET(fs, fs->header->root, root);
    inodes_dirty(fs, root);
    return 0;
}

int inodes_make_root(struct fastspool *fs)
{
    struct stat st;

    if (fstat(fs->spool_fd, &st) < 0)
        return -errno;
    return section_run(fs, make_root, &st);
}

void inodes_clean_data(struct fastspool *fs, struct inode *inode)
{
    uint64_t bytes = (uint64_t)(inode->dirty_to - inode->dirty_from) * BLOCK_SIZE;

    if (bytes == 0)
        return;
    SET(fs, fs->header->dirty_bytes, fs->header->dirty_bytes - bytes);
    SET(fs, inode->dirty_from, 0);
    SET(fs, inode->dirty_to, 0);
}

static void leave_dirty(struct fastspool *fs, uint32_t i)
{
    struct inode *inode = inode_at(fs, i);

    inodes_clean_data(fs, inode);
    if (inode->flags & INODE_DIRTY) {
        lists_remove(fs, &fs->header->dirty, LIST_LINK, i);
        SET(fs, fs->header->dirty_files, fs->header->dirty_files - 1);
        SET(fs, inode->flags, (uint16_t)(inode->flags & ~INODE_DIRTY));
    }
}

void inodes_clean(struct fastspool *fs, uint32_t i)
{
    leave_dirty(fs, i);
    eviction_join(fs, i);
}

/* The blocks are gone: give the number back. */
static void give_number_back(struct fastspool *fs, uint32_t i)
{
    struct inode *inode = inode_at(fs, i);
    struct table *table = &fs->header->inodes;

    if (!S_ISDIR(inode->mode))
        SET(fs, fs->header->files, fs->header->files - 1);
    SET(fs, inode->generation, inode->generation + 1);
    SET(fs, inode->flags, (uint16_t)(inode->flags & ~(INODE_USED | INODE_ORPHAN)));
    SET(fs, inode->names, table->free);
    SET(fs, table->free, i);
    SET(fs, table->count, table->count - 1);
}

int inodes_drop(struct fastspool *fs, uint32_t i)
{
    struct inode *inode = inode_at(fs, i);
    bool directory = S_ISDIR(inode->mode);

    if (inode->opens > 0 || inode->links > (directory ? 1 : 0) || (inode->flags & INODE_ORPHAN))
        return 0;
    inodes_clean_data(fs, inode);
    eviction_leave(fs, i);
    if (!(inode->flags & INODE_PERSISTED) && !fs->header->committing)
        leave_dirty(fs, i);
    else
        inodes_dirty(fs, i);
    if (!directory && !data_small(inode)) {
        SET(fs, inode->flags, (uint16_t)(inode->flags | INODE_ORPHAN));
        SET(fs, inode->names, fs->header->orphans);
        SET(fs, fs->header->orphans, i);
        return 0;
    }
    if (!directory) {
        int result = data_shrink(fs, i, 0, UINT32_MAX);
        if (result < 0)
            return result;
    }
    give_number_back(fs, i);
    return 0;
}

static int free_orphan_step(struct fastspool *fs, void *argument)
{
    uint32_t i = fs->header->orphans;
    (void)argument;

    if (i == 0)
        return 0;
    if (!inodes_valid(fs, i))
        return section_damaged(fs, "the list of orphans leads nowhere");
    int result = data_shrink(fs, i, 0, DATA_FREE_STEP);
    if (result < 0)
        return result;
    if (result == 0) {
        SET(fs, fs->header->orphans, inode_at(fs, i)->names);
        give_number_back(fs, i);
    }
    return 1;
}

int inodes_free_orphans(struct fastspool *fs)
{
    int result = 0;
    while (LOAD(fs->header->orphans) && (result = section_run(fs, free_orphan_step, NULL)) > 0)
        ;
    return result < 0 ? result : 0;
}

/* ---- the dirty list ---- */

void inodes_dirty(struct fastspool *fs, uint32_t i)
{
    struct header *h = fs->header;
    struct inode *inode = inode_at(fs, i);

    SET(fs, h->change, h->change + 1);
    SET(fs, inode->ticket, h->change);
    if (h->oldest_dirty == 0)
        SET(fs, h->oldest_dirty, clock_monotonic());
    if (inode->changed_in != h->capture)
        SET(fs, inode->changed_in, h->capture);
    if (inode->flags & INODE_DIRTY)
        return;
    eviction_leave_clean(fs, i);
    SET(fs, inode->flags, (uint16_t)(inode->flags | INODE_DIRTY));
    lists_append(fs, &h->dirty, LIST_LINK, i);
    SET(fs, h->dirty_files, h->dirty_files + 1);
}

void inodes_dirty_data(struct fastspool *fs, uint32_t i, uint32_t from, uint32_t to)
{
    struct header *h = fs->header;
    struct inode *inode = inode_at(fs, i);
    bool clean = inode->dirty_from == inode->dirty_to;
    uint32_t new_from = clean || from < inode->dirty_from ? from : inode->dirty_from;
    uint32_t new_to = clean || to > inode->dirty_to ? to : inode->dirty_to;

    inodes_dirty(fs, i);
    if (inode->data_in != h->capture) {
        SET(fs, inode->data_in, h->capture);
        SET(fs, inode->since_from, from);
    } else if (from < inode->since_from) {
        SET(fs, inode->since_from, from);
    }
    uint64_t before = inode->dirty_to - inode->dirty_from;
    if (new_from != inode->dirty_from)
        SET(fs, inode->dirty_from, new_from);
    if (new_to != inode->dirty_to)
        SET(fs, inode->dirty_to, new_to);
    if (new_to - new_from != before)
        SET(fs, h->dirty_bytes, h->dirty_bytes + (new_to - new_from - before) * BLOCK_SIZE);
}

/* ---- attributes ---- */

uint64_t inodes_number(uint32_t i)
{
    return INODE_NUMBER_BASE | i;
}

void inodes_stat(const struct fastspool *fs, uint32_t i, struct stat *st)
{
    const struct inode *inode = inode_at(fs, i);

    memset(st, 0, sizeof(*st));
    st->st_dev = fs->header->device;
    st->st_ino = inodes_number(i);
    st->st_mode = inode->mode;
    st->st_nlink = inode->links;
    st->st_uid = inode->uid;
    st->st_gid = inode->gid;
    st->st_size = (off_t)inode->size;
    st->st_blksize = BLOCK_SIZE;
    uint64_t blocks =
        inode->flags & (INODE_EVICTED | INODE_SPILLED) ? (inode->size + BLOCK_SIZE - 1) / BLOCK_SIZE : inode->blocks;
    st->st_blocks = S_ISDIR(inode->mode) ? BLOCK_SIZE / 512 : (blkcnt_t)blocks * (BLOCK_SIZE / 512);
    st->st_atim = clock_timespec(inode->atime);
    st->st_mtim = clock_timespec(inode->mtime);
    st->st_ctim = clock_timespec(inode->ctime);
}

static bool in_group(const struct credentials *who, gid_t gid)
{
    gid_t groups[64];

    if (who->gid == gid)
        return true;
    int count = getgroups(64, groups);
    for (int i = 0; i < count; i++) {
        if (groups[i] == gid)
            return true;
    }
    return false;
}

int inodes_permitted(const struct fastspool *fs, uint32_t i, const struct credentials *who, int want)
{
    const struct inode *inode = inode_at(fs, i);
    unsigned mode = inode->mode;

    if (who->uid == 0) {
        /* CAP_DAC_OVERRIDE: anything, but a file without any x bit isn't executable. */
        return (want & X_OK) && !S_ISDIR(mode) && !(mode & 0111) ? -EACCES : 0;
    }
    if (who->uid == inode->uid)
        mode >>= 6;
    else if (((mode >> 3 ^ mode) & (unsigned)want) && in_group(who, inode->gid))
        mode >>= 3;
    return (mode & (unsigned)want) == (unsigned)want ? 0 : -EACCES;
}

static void touch_change(struct fastspool *fs, uint32_t i)
{
    SET(fs, inode_at(fs, i)->ctime, clock_realtime());
    inodes_dirty(fs, i);
}

int inodes_chmod(struct fastspool *fs, uint32_t i, mode_t mode, const struct credentials *who)
{
    struct inode *inode = inode_at(fs, i);

    if (who->uid != 0 && who->uid != inode->uid)
        return -EPERM;
    mode &= 07777;
    if (who->uid != 0 && !in_group(who, inode->gid))
        mode &= ~(mode_t)S_ISGID;
    SET(fs, inode->mode, (uint16_t)((inode->mode & S_IFMT) | mode));
    touch_change(fs, i);
    return 0;
}

int inodes_chown(struct fastspool *fs, uint32_t i, uid_t uid, gid_t gid, const struct credentials *who)
{
    struct inode *inode = inode_at(fs, i);
    bool other_uid = uid != (uid_t)-1 && uid != inode->uid;
    bool other_gid = gid != (gid_t)-1 && gid != inode->gid;

    if (who->uid != 0 && (who->uid != inode->uid || other_uid || (other_gid && !in_group(who, gid))))
        return -EPERM;
    if (other_uid)
        SET(fs, inode->uid, uid);
    if (other_gid)
        SET(fs, inode->gid, gid);
    /* As Linux: a change of owner takes the set-ID bits of a file away. */
    if (!S_ISDIR(inode->mode) && (uid != (uid_t)-1 || gid != (gid_t)-1)) {
        uint16_t mode = (uint16_t)(inode->mode & ~S_ISUID);
        if (mode & S_IXGRP)
            mode = (uint16_t)(mode & ~S_ISGID);
        if (mode != inode->mode)
            SET(fs, inode->mode, mode);
    }
    touch_change(fs, i);
    return 0;
}

static uint64_t time_given(const struct timespec *time, uint64_t now, uint64_t before)
{
    if (time->tv_nsec == UTIME_NOW)
        return now;
    if (time->tv_nsec == UTIME_OMIT)
        return before;
    return clock_nanoseconds(time);
}

int inodes_utimens(struct fastspool *fs, uint32_t i, const struct timespec times[2], const struct credentials *who)
{
    struct inode *inode = inode_at(fs, i);
    uint64_t now = clock_realtime();
    bool all_now = !times || (times[0].tv_nsec == UTIME_NOW && times[1].tv_nsec == UTIME_NOW);

    if (times && times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT)
        return 0;
    if (who->uid != 0 && who->uid != inode->uid && (!all_now || inodes_permitted(fs, i, who, W_OK) < 0))
        return all_now ? -EACCES : -EPERM;
    for (int t = 0; times && t < 2; t++) {
        long ns = times[t].tv_nsec;
        if (ns != UTIME_NOW && ns != UTIME_OMIT && (ns < 0 || ns > 999999999))
            return -EINVAL;
    }
    SET(fs, inode->atime, times ? time_given(&times[0], now, inode->atime) : now);
    SET(fs, inode->mtime, times ? time_given(&times[1], now, inode->mtime) : now);
    touch_change(fs, i);
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Access: the user that a call acts for, permission checks, and the attributes that only some users may change.
 *
 * The happy path: the effective ids are read once, and supplementary groups only if a check depends on them.  The
 * checks are the kernel's, in the kernel's order.
 *
 * Failure modes: if a program changes its ids without fastspool_credentials_changed(), checks use the old ones.
 */
#include "store/access.h"

#include "base/clock.h"
#include "fastspool.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Cached, because the two system calls take 250 ns, and a whole operation takes 200. */
static uint64_t cached_credentials;
static uint32_t credentials_known;

/* fastspool_act_for() */
static __thread struct credentials acting;
static __thread uint64_t *acting_synced;

void access_credentials(struct credentials *who)
{
    if (acting.privileged) {
        *who = acting;
        return;
    }
    if (!LOAD(credentials_known)) {
        STORE(cached_credentials, (uint64_t)geteuid() << 32 | getegid());
        STORE(credentials_known, 1);
    }
    uint64_t ids = LOAD(cached_credentials);
    who->uid = (uid_t)(ids >> 32);
    who->gid = (gid_t)ids;
    who->privileged = who->uid == 0;
}

void fastspool_act_for(const struct fastspool_client *client)
{
    acting = client ? (struct credentials){client->uid, client->gid, true} : (struct credentials){0};
    acting_synced = client ? client->synced : NULL;
}

uint64_t *access_synced(struct fastspool *fs)
{
    return acting_synced ? acting_synced : &fs->synced;
}

void fastspool_credentials_changed(void)
{
    STORE(credentials_known, 0);
}

static bool contains(const gid_t *groups, int count, gid_t gid)
{
    for (int i = 0; i < count; i++) {
        if (groups[i] == gid)
            return true;
    }
    return false;
}

/* Groups are not cached, so a program need not report a change of them.  The memory for 65,536 groups is mmap's: a
 * section or a signal handler can use neither malloc nor so much stack.  Without memory the answer is no. */
static bool in_any_of_many(gid_t gid)
{
    const size_t size = NGROUPS_MAX * sizeof(gid_t);
    gid_t *groups = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (groups == MAP_FAILED)
        return false;
    bool found = contains(groups, getgroups(NGROUPS_MAX, groups), gid);
    munmap(groups, size);
    return found;
}

static bool in_group(const struct credentials *who, gid_t gid)
{
    gid_t groups[64];
    int saved = errno;

    if (who->gid == gid)
        return true;
    int count = getgroups(sizeof(groups) / sizeof(*groups), groups);
    bool found = count < 0 ? in_any_of_many(gid) : contains(groups, count, gid);
    errno = saved;
    return found;
}

int access_permitted(const struct fastspool *fs, uint32_t i, const struct credentials *who, int want)
{
    const struct inode *inode = inode_at(fs, i);
    unsigned mode = inode->mode;

    if (who->privileged) {
        /* CAP_DAC_OVERRIDE permits everything but the execution of a file without any x bit. */
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

int access_chmod(struct fastspool *fs, uint32_t i, mode_t mode, const struct credentials *who)
{
    const struct inode *inode = inode_at(fs, i);

    if (!who->privileged && who->uid != inode->uid)
        return -EPERM;
    mode &= 07777;
    if (!who->privileged && !in_group(who, inode->gid))
        mode &= ~(mode_t)S_ISGID;
    SET(fs, inode->mode, (uint16_t)((inode->mode & S_IFMT) | mode));
    touch_change(fs, i);
    return 0;
}

int access_chown(struct fastspool *fs, uint32_t i, uid_t uid, gid_t gid, const struct credentials *who)
{
    const struct inode *inode = inode_at(fs, i);
    bool other_uid = uid != (uid_t)-1 && uid != inode->uid;
    bool other_gid = gid != (gid_t)-1 && gid != inode->gid;

    if (!who->privileged && (who->uid != inode->uid || other_uid || (other_gid && !in_group(who, gid))))
        return -EPERM;
    if (other_uid)
        SET(fs, inode->uid, uid);
    if (other_gid)
        SET(fs, inode->gid, gid);
    /* As on Linux, a change of owner removes a file's set-ID bits. */
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
    return time->tv_sec < 0 ? 0 : clock_nanoseconds(time); /* as Linux does with a time that a file system can't keep */
}

int access_utimens(struct fastspool *fs, uint32_t i, const struct timespec times[2], const struct credentials *who)
{
    const struct inode *inode = inode_at(fs, i);
    uint64_t now = clock_realtime();
    bool all_now = !times || (times[0].tv_nsec == UTIME_NOW && times[1].tv_nsec == UTIME_NOW);

    if (times && times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT)
        return 0;
    if (!who->privileged && who->uid != inode->uid && (!all_now || access_permitted(fs, i, who, W_OK) < 0))
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

/* SPDX-License-Identifier: MIT
 *
 * Access: the user that a call acts for, permission checks, and the attributes that only some users may change.
 *
 * The happy path:
 *   - The ids that count for files (fsuid, fsgid) are read once, or told.  The effective capabilities are read once,
 *     and supplementary groups, only if a check depends on them.
 *   - The checks are the kernel's, in the kernel's order.  Capabilities decide, not the number 0.
 *
 * Failure modes:
 *   - A program changes its ids or capabilities without fastspool_credentials_changed(): checks use the old ones.
 *   - /proc/sys/fs can't be read (a chroot): links and sticky directories are protected, as Debian's defaults say.
 */
#include "store/access.h"

#include "base/clock.h"
#include "fastspool.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITY(name) CAP_TO_MASK(CAP_##name)
#define FOR_FILES                                                                                      \
    (CAPABILITY(CHOWN) | CAPABILITY(DAC_OVERRIDE) | CAPABILITY(DAC_READ_SEARCH) | CAPABILITY(FOWNER) | \
     CAPABILITY(FSETID))

/* Cached, because the three system calls take 400 ns, and a whole operation takes 200. */
static uint32_t cached_uid, cached_gid, cached_capabilities;
static uint32_t cached; /* which of them are known: */
enum { UID = 1, GID = 2, CAPABILITIES = 4 };

#define NOT_ASKED (UINT32_C(1) << 31) /* as capabilities: a check that depends on them asks */
_Static_assert(!(FOR_FILES & NOT_ASKED), "it is no capability for files");

/* fastspool_act_for() */
static __thread struct credentials acting;
static __thread bool acts;
static __thread uint64_t *acting_synced;

/* Of this process, those that count for files. */
static uint32_t capabilities(bool permitted)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    syscall(SYS_capget, &header, data);
    return (permitted ? data[0].permitted : data[0].effective) & FOR_FILES;
}

static void know(uint32_t which, uint32_t *place, uint32_t value)
{
    STORE(*place, value);
    __atomic_or_fetch(&cached, which, __ATOMIC_ACQ_REL);
}

static void forget(uint32_t which)
{
    __atomic_and_fetch(&cached, ~which, __ATOMIC_ACQ_REL);
}

/* Ask the kernel for what is not cached.  These calls with -1 change nothing, and return what is. */
static __attribute__((noinline)) void ask_for_ids(void)
{
    if (!(LOAD(cached) & UID))
        know(UID, &cached_uid, (uint32_t)syscall(SYS_setfsuid, -1));
    if (!(LOAD(cached) & GID))
        know(GID, &cached_gid, (uint32_t)syscall(SYS_setfsgid, -1));
}

void access_credentials(struct credentials *who)
{
    if (acts) {
        *who = acting;
        return;
    }
    if ((LOAD(cached) & (UID | GID)) != (UID | GID))
        ask_for_ids();
    *who = (struct credentials){LOAD(cached_uid), LOAD(cached_gid), NOT_ASKED};
}

void access_real_credentials(struct credentials *who)
{
    *who = (struct credentials){getuid(), getgid(), getuid() == 0 ? capabilities(true) : 0};
}

void fastspool_act_for(const struct fastspool_client *client)
{
    acts = client;
    acting = client ? (struct credentials){client->uid, client->gid, FOR_FILES} : (struct credentials){0};
    acting_synced = client ? client->synced : NULL;
}

uint64_t *access_synced(struct fastspool *fs)
{
    return acting_synced ? acting_synced : &fs->synced;
}

void fastspool_credentials_changed(void)
{
    forget(UID | GID | CAPABILITIES);
}

void access_became(uid_t uid)
{
    forget(CAPABILITIES);
    know(UID, &cached_uid, uid);
}

void access_became_of(gid_t gid)
{
    know(GID, &cached_gid, gid);
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

static bool has(const struct credentials *who, uint32_t capability)
{
    if (who->capabilities != NOT_ASKED)
        return who->capabilities & capability;
    if (!(LOAD(cached) & CAPABILITIES))
        know(CAPABILITIES, &cached_capabilities, capabilities(false));
    return LOAD(cached_capabilities) & capability;
}

int access_permitted_otherwise(const struct fastspool *fs, uint32_t i, const struct credentials *who, int want)
{
    const struct inode *inode = inode_at(fs, i);
    unsigned mode = inode->mode;

    if (who->uid == inode->uid)
        mode >>= 6;
    else if (((mode >> 3 ^ mode) & (unsigned)want) && in_group(who, inode->gid))
        mode >>= 3;
    if ((mode & (unsigned)want) == (unsigned)want)
        return 0;
    if (has(who, CAPABILITY(DAC_READ_SEARCH)) && (S_ISDIR(inode->mode) ? !(want & W_OK) : want == R_OK))
        return 0;
    /* CAP_DAC_OVERRIDE permits everything but the execution of a file without any x bit. */
    bool never = (want & X_OK) && !S_ISDIR(inode->mode) && !(inode->mode & 0111);
    return has(who, CAPABILITY(DAC_OVERRIDE)) && !never ? 0 : -EACCES;
}

bool access_owns(const struct fastspool *fs, uint32_t i, const struct credentials *who)
{
    return who->uid == inode_at(fs, i)->uid || has(who, CAPABILITY(FOWNER));
}

int access_remove(const struct fastspool *fs, uint32_t directory, uint32_t i, const struct credentials *who)
{
    const struct inode *from = inode_at(fs, directory);
    return !(from->mode & S_ISVTX) || who->uid == from->uid || access_owns(fs, i, who) ? 0 : -EPERM;
}

/* ---- what the administrator protects ---- */

/* Of /proc/sys/fs, read once. */
struct protection {
    const char *path;
    uint32_t debians; /* where it can't be read */
    uint32_t known;   /* its value + 1, 0: not read yet */
};

static uint32_t protection(struct protection *protection)
{
    uint32_t known = LOAD(protection->known);
    char digit = (char)('0' + protection->debians);

    if (known)
        return known - 1;
    int saved = errno;
    int fd = open(protection->path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, &digit, 1) != 1)
            digit = (char)('0' + protection->debians);
        close(fd);
    }
    errno = saved;
    STORE(protection->known, (uint32_t)(digit - '0') + 1);
    return (uint32_t)(digit - '0');
}

int access_link(const struct fastspool *fs, uint32_t i, const struct credentials *who)
{
    static struct protection hardlinks = {"/proc/sys/fs/protected_hardlinks", 1, 0};
    const struct inode *inode = inode_at(fs, i);
    bool runs_as_group = (inode->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
    bool harmless = S_ISREG(inode->mode) && !(inode->mode & S_ISUID) && !runs_as_group;

    if (access_owns(fs, i, who) || (harmless && access_permitted(fs, i, who, R_OK | W_OK) == 0))
        return 0;
    return protection(&hardlinks) ? -EPERM : 0;
}

int access_open_or_create(const struct fastspool *fs, uint32_t directory, uint32_t i, const struct credentials *who)
{
    static struct protection regular = {"/proc/sys/fs/protected_regular", 2, 0};
    const struct inode *above = inode_at(fs, directory), *inode = inode_at(fs, i);

    /* No capability helps: it is privileged programs that are protected. */
    if (!(above->mode & S_ISVTX) || !(above->mode & 022) || inode->uid == above->uid || inode->uid == who->uid)
        return 0;
    return protection(&regular) >= (above->mode & 0002 ? 1 : 2) ? -EACCES : 0;
}

/* ---- attributes ---- */

mode_t access_inherited_mode(const struct fastspool *fs, uint32_t directory, mode_t mode, const struct credentials *who)
{
    if (S_ISDIR(mode))
        return mode | S_ISGID;
    /* What runs as a group is made by its members. */
    bool runs_as_group = (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
    return runs_as_group && !has(who, CAPABILITY(FSETID)) && !in_group(who, inode_at(fs, directory)->gid)
               ? mode & ~(mode_t)S_ISGID
               : mode;
}

static void touch_change(struct fastspool *fs, uint32_t i)
{
    SET(fs, inode_at(fs, i)->ctime, clock_realtime());
    inodes_dirty(fs, i);
}

int access_chmod(struct fastspool *fs, uint32_t i, mode_t mode, const struct credentials *who)
{
    const struct inode *inode = inode_at(fs, i);

    if (!access_owns(fs, i, who))
        return -EPERM;
    mode &= 07777;
    if (!has(who, CAPABILITY(FSETID)) && !in_group(who, inode->gid))
        mode &= ~(mode_t)S_ISGID;
    SET(fs, inode->mode, (uint16_t)((inode->mode & S_IFMT) | mode));
    touch_change(fs, i);
    return 0;
}

/* The mode without what lets a file run as its owner, or as its group.  The bit of a group that can't execute the file
 * means nothing; the group's own may keep it. */
static uint16_t without_set_id(const struct inode *inode, const struct credentials *who)
{
    uint16_t mode = (uint16_t)(inode->mode & ~S_ISUID);
    bool keeps = !(mode & S_IXGRP) && (has(who, CAPABILITY(FSETID)) || in_group(who, inode->gid));

    return S_ISDIR(mode) ? inode->mode : keeps ? mode : (uint16_t)(mode & ~S_ISGID);
}

int access_chown(struct fastspool *fs, uint32_t i, uid_t uid, gid_t gid, const struct credentials *who)
{
    const struct inode *inode = inode_at(fs, i);
    bool owner = who->uid == inode->uid, any = has(who, CAPABILITY(CHOWN));
    uint16_t mode = (inode->mode & (S_ISUID | S_ISGID)) ? without_set_id(inode, who) : inode->mode;

    if (uid != (uid_t)-1 && !any && !(owner && uid == inode->uid))
        return -EPERM;
    if (gid != (gid_t)-1 && !any && !(owner && (gid == inode->gid || in_group(who, gid))))
        return -EPERM;
    if (mode != inode->mode && !access_owns(fs, i, who))
        return -EPERM; /* it would change the mode, too */
    if (uid != (uid_t)-1 && uid != inode->uid)
        SET(fs, inode->uid, uid);
    if (gid != (gid_t)-1 && gid != inode->gid)
        SET(fs, inode->gid, gid);
    if (mode != inode->mode)
        SET(fs, inode->mode, mode);
    touch_change(fs, i);
    return 0;
}

void access_modified(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);
    struct credentials who;

    if (!(inode->mode & (S_ISUID | S_ISGID)))
        return;
    access_credentials(&who);
    bool keeps = acts ? who.uid == 0 : has(&who, CAPABILITY(FSETID)); /* no server checks this */
    uint16_t mode = without_set_id(inode, &who);
    if (keeps || mode == inode->mode)
        return;
    SET(fs, inode->mode, mode);
    touch_change(fs, i);
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
    if (!access_owns(fs, i, who) && (!all_now || access_permitted(fs, i, who, W_OK) < 0))
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

/* SPDX-License-Identifier: MIT
 *
 * Record locks: POSIX locks on the store's files, kept by the kernel.
 *
 * The happy path: all of them are locks on one lock file, in which every inode has a range of its own.  A process opens
 * it once, and does not close it while it is attached.  So the kernel provides the semantics: locks belong to a
 * process, end with it, are not inherited, and a signal ends a wait with EINTR.  One rule is left to this file: a close
 * drops all locks of the process on that file (POSIX, fcntl), so it unlocks the inode's range.
 *
 * A server that holds locks for several owners opens the lock file once for each, and uses locks of open file
 * descriptions (fcntl(2), F_OFD_SETLK).  The kernel lets both kinds exclude each other.
 *
 * Failure modes: those of fcntl(2).  To save most closes a system call, the process remembers up to REMEMBERED inodes
 * that it has locked.  When there are more, every close unlocks.
 */
#include "store/locks.h"

#include "base/fd.h"
#include "base/places.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>

#define RANGE      (INT64_C(1) << 33) /* bytes of one inode in the lock file: twice the largest file */
#define REMEMBERED 64

/* Inodes on which this process may hold locks, of every store that it has attached.  Atomic: a signal handler may close
 * a file. */
static uint64_t locked[REMEMBERED];
static uint32_t places; /* of `locked` that were ever used: one or two, so a close has few to search */
static uint32_t too_many;

void locks_after_fork_child(void)
{
    for (int i = 0; i < REMEMBERED; i++)
        STORE(locked[i], 0);
    STORE(too_many, 0);
}

/* Two stores have files of the same number. */
static uint64_t place_of(const struct fastspool *fs, uint32_t inode)
{
    return (uint64_t)fs->locks_fd << 32 | inode;
}

static bool remembered(uint64_t place)
{
    uint32_t used = LOAD(places);

    for (uint32_t i = 0; i < used; i++) {
        if (LOAD(locked[i]) == place)
            return true;
    }
    return LOAD(too_many) != 0;
}

static void remember(uint64_t place)
{
    if (remembered(place))
        return;
    for (uint32_t i = 0; i < REMEMBERED; i++) {
        uint64_t empty = 0;
        if (LOAD(places) <= i)
            STORE(places, i + 1);
        if (__atomic_compare_exchange_n(&locked[i], &empty, place, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return;
    }
    STORE(too_many, 1);
}

void locks_drop(struct fastspool *fs, uint32_t inode)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = (off_t)inode * RANGE, .l_len = RANGE};
    const uint64_t place = place_of(fs, inode);

    if (!remembered(place))
        return;
    fcntl(fs->locks_fd, F_SETLK, &all);
    for (int i = 0; i < REMEMBERED; i++) {
        uint64_t same = place;
        __atomic_compare_exchange_n(&locked[i], &same, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
}

/* Convert the range of @lock to an offset and a length in the file. */
static int absolute_range(struct fastspool *fs, const struct description *description, uint32_t inode,
                          const struct flock *lock, int64_t *start, int64_t *length)
{
    int64_t base = 0, from, size = lock->l_len;

    if (lock->l_whence == SEEK_CUR)
        base = (int64_t)LOAD(description->offset);
    else if (lock->l_whence == SEEK_END)
        base = (int64_t)LOAD(inode_at(fs, inode)->size);
    else if (lock->l_whence != SEEK_SET)
        return -EINVAL;
    if (__builtin_add_overflow(base, lock->l_start, &from))
        return -EOVERFLOW;
    if (from < 0 || (size < 0 && from + size < 0))
        return -EINVAL;
    if (size < 0) {
        from += size;
        size = -size;
    }
    if (from >= RANGE)
        return -EOVERFLOW;
    if (size == 0 || size > RANGE - from)
        size = RANGE - from;
    *start = from;
    *length = size;
    return 0;
}

/* Convert the lock that F_GETLK found to offsets in the file. */
static void translate_back(uint32_t inode, struct flock *found)
{
    int64_t start = found->l_start - (int64_t)inode * RANGE;

    found->l_whence = SEEK_SET;
    if (found->l_len != 0 && start + found->l_len >= RANGE)
        found->l_len = 0;
    found->l_start = start;
}

/* Apply the lock by @fd, an open file description of the lock file.  @commands: the kernel's for F_GETLK, F_SETLK and
 * F_SETLKW. */
static int control(struct fastspool *fs, uint32_t d, int fd, const int commands[3], int command, struct flock *lock)
{
    uint32_t inode, generation;
    int64_t start, length;
    int result = descriptions_file(fs, d, &inode, &generation);

    if (result < 0)
        return result;
    const struct description *description = description_at(fs, d);
    int mode = (int)LOAD(description->flags) & O_ACCMODE;
    if (LOAD(description->flags) & O_PATH)
        return -EBADF;
    if (lock->l_type != F_RDLCK && lock->l_type != F_WRLCK && lock->l_type != F_UNLCK)
        return -EINVAL;
    result = absolute_range(fs, description, inode, lock, &start, &length);
    if (result < 0)
        return result;
    if (command != F_GETLK &&
        ((lock->l_type == F_RDLCK && mode == O_WRONLY) || (lock->l_type == F_WRLCK && mode == O_RDONLY)))
        return -EBADF;
    struct flock kernels = {
        .l_type = lock->l_type, .l_whence = SEEK_SET, .l_start = (off_t)inode * RANGE + start, .l_len = length};
    if (fd == fs->locks_fd && command != F_GETLK && lock->l_type != F_UNLCK)
        remember(place_of(fs, inode));
    if (fcntl(fd, commands[command == F_GETLK ? 0 : command == F_SETLK ? 1 : 2], &kernels) < 0)
        return -errno;
    if (command == F_GETLK) {
        lock->l_type = kernels.l_type;
        if (kernels.l_type != F_UNLCK) {
            translate_back(inode, &kernels);
            *lock = kernels;
        }
    }
    return 0;
}

int locks_control(struct fastspool *fs, uint32_t d, int command, struct flock *lock)
{
    static const int commands[] = {F_GETLK, F_SETLK, F_SETLKW};
    return control(fs, d, fs->locks_fd, commands, command, lock);
}

int locks_control_for(struct fastspool *fs, uint32_t d, int owner, int command, struct flock *lock)
{
    static const int commands[] = {F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW};
    return control(fs, d, owner, commands, command, lock);
}

int locks_owner(struct fastspool *fs)
{
    int fd = openat(fs->runtime_fd, PLACES_LOCKS, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd_high(fd);
}

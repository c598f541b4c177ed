/* SPDX-License-Identifier: MIT
 *
 * Record locks: POSIX locks on the store's files, kept by the kernel, or in the store while only one wants them.
 *
 * The happy path:
 *   - The first lock on a file, if it is for writing, is noted in the store (noted.c), and costs no system call.
 *   - All others are locks on one lock file, in which every inode has a range of its own.  A process opens it once, and
 *     does not close it while it is attached.  So the kernel provides the semantics: locks belong to a process, end
 *     with it, are not inherited, and a signal ends a wait with EINTR.
 *   - One rule is left to this file: a close drops all locks of the process on that file (POSIX, fcntl), so it ends the
 *     note, and unlocks the inode's range.
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
#include "store/noted.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>

#define REMEMBERED 64
#define ASKS_MAX   100 /* what stood in the way has gone, and something else stands there */

/* Inodes on which this process may hold locks, of every store that it has attached.  Atomic: a signal handler may close
 * a file. */
static uint64_t locked[REMEMBERED];
static uint32_t places; /* of `locked` that were ever used: one or two, so a close has few to search */
static uint32_t too_many;

void locks_after_fork_child(void)
{
    for (uint32_t i = 0; i < LOAD(places); i++) { /* what is 0 is not written: a child pays for each page it changes */
        if (LOAD(locked[i]))
            STORE(locked[i], 0);
    }
    if (LOAD(too_many))
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

/* Take a noted lock of this process to the kernel. */
static int move(struct fastspool *fs, struct noted *note)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = (off_t)note->inode * LOCKS_RANGE + note->from,
                         .l_len = note->to - note->from};

    remember(place_of(fs, note->inode));
    if (fcntl(fs->locks_fd, F_SETLK, &lock) < 0)
        return -errno;
    note->moved = true;
    return noted_end(fs, note);
}

/* End a noted lock of this process.  Whoever waits for it asks again. */
static int end_note(struct fastspool *fs, struct noted *note, int (*by)(struct fastspool *fs, struct noted *note))
{
    int result = by(fs, note);

    if (result > 0)
        noted_tell(fs, move);
    return result < 0 ? result : 0;
}

static int drop_note(struct fastspool *fs, struct noted *note)
{
    return noted_end(fs, note);
}

/* (By itself, so that most closes save no registers for it.) */
static __attribute__((noinline)) void unlock_range(struct fastspool *fs, uint32_t inode)
{
    struct flock all = {
        .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = (off_t)inode * LOCKS_RANGE, .l_len = LOCKS_RANGE};
    const uint64_t place = place_of(fs, inode);

    fcntl(fs->locks_fd, F_SETLK, &all);
    for (int i = 0; i < REMEMBERED; i++) {
        uint64_t same = place;
        __atomic_compare_exchange_n(&locked[i], &same, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
}

static inline void drop_kernels(struct fastspool *fs, uint32_t inode)
{
    if (remembered(place_of(fs, inode)))
        unlock_range(fs, inode);
}

void locks_drop(struct fastspool *fs, uint32_t description, uint32_t inode)
{
    if (noted_on(fs, inode) && noted_any(fs) && noted_drop(fs, description, inode) > 0)
        noted_tell(fs, move);
    drop_kernels(fs, inode);
}

int locks_close(struct fastspool *fs, uint32_t description, uint32_t inode)
{
    const bool ends = noted_by(fs, description); /* with the description: one section less */

    if (ends)
        drop_kernels(fs, inode);
    else
        locks_drop(fs, description, inode);
    int result = descriptions_close(fs, description);
    if (ends)
        drop_kernels(fs, inode); /* another thread may have taken the note to the kernel before it could end */
    if (ends && result != 0)     /* somebody waits for it, or may: an error hides that */
        noted_tell(fs, move);
    return result < 0 ? result : 0;
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
    if (from >= LOCKS_RANGE)
        return -EOVERFLOW;
    if (size == 0 || size > LOCKS_RANGE - from)
        size = LOCKS_RANGE - from;
    *start = from;
    *length = size;
    return 0;
}

/* Convert the lock that F_GETLK found to offsets in the file.  The kernel knows one file, the lock file: it has made
 * one lock of what a process holds at the end of a file and at the beginning of the next one. */
static void translate_back(uint32_t inode, struct flock *found)
{
    int64_t start = found->l_start - (int64_t)inode * LOCKS_RANGE;
    int64_t end = found->l_len == 0 ? LOCKS_RANGE : start + found->l_len;

    found->l_whence = SEEK_SET;
    found->l_start = start < 0 ? 0 : start;
    found->l_len = end >= LOCKS_RANGE ? 0 : end - found->l_start;
}

/* The caller's way to ask the kernel. */
struct way {
    int fd;          /* an open file description of the lock file */
    int commands[3]; /* the kernel's for F_GETLK, F_SETLK and F_SETLKW */
};

static int kernel_command(const struct way *way, int command)
{
    return way->commands[command == F_GETLK ? 0 : command == F_SETLK ? 1 : 2];
}

/* Apply the lock to bytes [@wish->from, @wish->to) in the kernel. */
static int ask_kernel(struct fastspool *fs, const struct way *way, const struct noted_wish *wish, int command,
                      struct flock *lock)
{
    struct flock kernels = {.l_type = lock->l_type,
                            .l_whence = SEEK_SET,
                            .l_start = (off_t)wish->inode * LOCKS_RANGE + wish->from,
                            .l_len = wish->to - wish->from};

    if (wish->own && !wish->look && wish->type != F_UNLCK)
        remember(place_of(fs, wish->inode));
    if (fcntl(way->fd, kernel_command(way, command), &kernels) < 0)
        return -errno;
    if (command == F_GETLK) {
        lock->l_type = kernels.l_type;
        if (kernels.l_type != F_UNLCK) {
            translate_back(wish->inode, &kernels);
            *lock = kernels;
        }
    }
    return 0;
}

/* The process has noted @note on the file.  Returns 1 if all is done. */
static int change_own(struct fastspool *fs, const struct noted_wish *wish, struct noted *note)
{
    if (wish->type == F_WRLCK && wish->from == note->from && wish->to == note->to)
        return 1;
    bool whole = wish->type == F_UNLCK && wish->from <= note->from && note->to <= wish->to;
    int result = end_note(fs, note, whole ? drop_note : move);
    return result < 0 ? result : whole && !remembered(place_of(fs, wish->inode));
}

/* @note is in the way.  Returns 1 if all is done, 0: ask again. */
static int meet(struct fastspool *fs, const struct way *way, const struct noted *note, int command, struct flock *lock)
{
    if (!noted_lives(fs, note)) {
        int result = noted_end(fs, note);
        return result < 0 ? result : 0;
    }
    if (command == F_SETLK)
        return -EAGAIN;
    if (command == F_SETLKW)
        return noted_wait(fs, note, way->fd, kernel_command(way, command));
    *lock = (struct flock){.l_type = F_WRLCK,
                           .l_whence = SEEK_SET,
                           .l_start = note->from,
                           .l_len = note->to == LOCKS_RANGE ? 0 : note->to - note->from,
                           .l_pid = (pid_t)note->process};
    return 1;
}

/* Check the call as the kernel does, and find the file and the bytes. */
static int understand(struct fastspool *fs, struct noted_wish *wish, int command, const struct flock *lock)
{
    uint32_t generation;
    int64_t length;
    int result = descriptions_file(fs, wish->description, &wish->inode, &generation);

    if (result < 0)
        return result;
    const struct description *description = description_at(fs, wish->description);
    int mode = (int)LOAD(description->flags) & O_ACCMODE;
    if (LOAD(description->flags) & O_PATH)
        return -EBADF;
    if (command != F_SETLK && command != F_SETLKW && command != F_GETLK)
        return -EINVAL;
    if (lock->l_type != F_RDLCK && lock->l_type != F_WRLCK && lock->l_type != F_UNLCK)
        return -EINVAL;
    result = absolute_range(fs, description, wish->inode, lock, &wish->from, &length);
    if (result < 0)
        return result;
    if (command != F_GETLK &&
        ((lock->l_type == F_RDLCK && mode == O_WRONLY) || (lock->l_type == F_WRLCK && mode == O_RDONLY)))
        return -EBADF;
    wish->to = wish->from + length;
    wish->type = lock->l_type;
    wish->look = command == F_GETLK;
    return 0;
}

static int control(struct fastspool *fs, uint32_t d, const struct way *way, int command, struct flock *lock)
{
    struct noted_wish wish = {.description = d, .own = way->fd == fs->locks_fd};
    struct noted note = {0};
    int result = understand(fs, &wish, command, lock);

    if (result < 0)
        return result;
    if (wish.type == F_UNLCK && !wish.look && !noted_on(fs, wish.inode))
        return wish.own && !remembered(place_of(fs, wish.inode)) ? 0 : ask_kernel(fs, way, &wish, command, lock);
    for (int asks = 0; asks < ASKS_MAX || command == F_SETLKW; asks++) {
        int answer = noted_ask(fs, &wish, &note);
        if (answer < 0 || answer == NOTED_TAKEN)
            return answer < 0 ? answer : 0;
        if (answer == NOTED_KERNELS)
            return ask_kernel(fs, way, &wish, command, lock);
        result = answer == NOTED_OWN ? change_own(fs, &wish, &note) : meet(fs, way, &note, command, lock);
        if (result != 0)
            return result < 0 ? result : 0;
    }
    return -EAGAIN;
}

int locks_control(struct fastspool *fs, uint32_t d, int command, struct flock *lock)
{
    const struct way way = {fs->locks_fd, {F_GETLK, F_SETLK, F_SETLKW}};
    return control(fs, d, &way, command, lock);
}

int locks_control_for(struct fastspool *fs, uint32_t d, int owner, int command, struct flock *lock)
{
    const struct way way = {owner, {F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW}};
    return control(fs, d, &way, command, lock);
}

int locks_owner(struct fastspool *fs)
{
    int fd = openat(fs->runtime_fd, PLACES_LOCKS, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd_high(fd);
}

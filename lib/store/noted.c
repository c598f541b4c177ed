/* SPDX-License-Identifier: MIT
 *
 * Noted locks: record locks that stand in the store, and cost no system call.
 *
 * A file's record locks are the kernel's (locks.c), but for the first one on a file that is for writing: it is a note
 * in the description by which it was taken.  Whoever wants a lock of the file asks in a section first, so no two are
 * ever granted that exclude each other.
 *
 * The happy path: a process takes a lock, and no other wants one there before it unlocks or closes.
 *   - A process that notes for the first time takes the kernel's lock of one byte of the lock file, whose number is its
 *     pid, and keeps it: the kernel tells of its death.  (That is in the range of inode 0, which no file has.)
 *   - A note costs a section, and so does its end, but by the close of its description, which ends it in its own.
 *
 * When another one wants a lock on the file:
 *   - It is in the way of the note: the process of the note is asked for.  If that lives, F_SETLK fails.  F_SETLKW
 *     waits by the kernel for the byte of that process.  So the kernel finds a deadlock, and ends the wait for a
 *     signal.  A process that ends a note that somebody waits for gives up its byte.
 *   - It is not in the way, or for reading: from now on, until nobody has the file open, its locks are the kernel's
 *     (INODE_LOCKS_KERNELS).  The note stays beside them.
 *   - The process of the note itself wants more, or less: the note goes to the kernel first.
 *
 * Failure modes:
 *   - The process dies, or leaves the store by an exec: its byte is free, and the process that meets the note removes
 *     it.
 *   - A later process with the same pid notes for the first time: it removes old notes of that pid before it takes the
 *     byte.
 *   - The byte can't be had (a process that has waited has it for an instant): the lock is the kernel's.
 *   - Two threads of a process lock for the first time: one of them could remove, as old, what the other one has just
 *     noted.  So one at a time, and the lock of the other is the kernel's.
 *   - The mail user writes notes himself: he may hold locks, as he may by fcntl(2).  A note leads no process of root's
 *     to bytes of more than one file, or of none.
 */
#include "store/noted.h"

#include "store/layout.h"
#include "store/mutex.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define LEAVING (UINT32_C(1) << 31) /* in fs->noting: the process gives up its byte, and makes no note */

static struct flock byte_of(uint32_t process, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)process, .l_len = 1};
}

/* What the segment says of a note.  Anybody's numbers may stand there, so they are cut to what a file has.  (To the
 * kernel no bytes would be all to the end of the lock file.) */
static struct noted note_in(const struct fastspool *fs, uint32_t d)
{
    const struct description *description = description_at(fs, d);
    uint64_t from = LOAD(description->lock_from), to = LOAD(description->lock_to);

    return (struct noted){.description = d,
                          .inode = LOAD(description->inode),
                          .process = LOAD(description->locker),
                          .from = from < LOCKS_RANGE ? (int64_t)from : 0,
                          .to = from < to && to < LOCKS_RANGE ? (int64_t)to : LOCKS_RANGE};
}

/* ---- in sections ---- */

static bool is_noted(const struct fastspool *fs, uint32_t d, uint32_t inode)
{
    const struct description *description = description_at(fs, d);

    return description->locker != 0 && description->state == DESCRIPTION_OPEN && description->inode == inode;
}

/* The description that has the note of the file, 0: there is none.  Most often it is @d. */
static uint32_t find(const struct fastspool *fs, uint32_t inode, uint32_t d)
{
    uint32_t used = LOAD(fs->header->tables.descriptions.used);

    if (!(inode_at(fs, inode)->flags & INODE_NOTED))
        return 0;
    if (is_noted(fs, d, inode))
        return d;
    for (d = 1; d < used && d < DESCRIPTIONS_MAX; d++) {
        if (is_noted(fs, d, inode))
            return d;
    }
    return 0;
}

static void clear(struct fastspool *fs, uint32_t d, uint32_t inode)
{
    const uint16_t *flags = &inode_at(fs, inode)->flags;

    SET_PAIR(fs, description_at(fs, d)->locker, 0, *flags, (uint16_t)(*flags & ~(INODE_NOTED | INODE_AWAITED)));
}

bool noted_forget(struct fastspool *fs, uint32_t d)
{
    const uint32_t inode = description_at(fs, d)->inode;
    const bool awaited = inode_at(fs, inode)->flags & INODE_AWAITED;

    if (description_at(fs, d)->locker)
        clear(fs, d, inode);
    return awaited;
}

/* The pid under which this process notes, with LEAVING; 0: under none.  A forked child has noted nothing. */
static uint32_t noting(const struct fastspool *fs)
{
    return LOAD(fs->noting) && mutex_is_life(LOAD(fs->noting_life)) ? LOAD(fs->noting) : 0;
}

struct asking {
    const struct noted_wish *wish;
    struct noted *note;
    uint32_t self; /* the pid, if it may note */
};

static void make_note(struct fastspool *fs, const struct asking *asking)
{
    const struct noted_wish *wish = asking->wish;
    const struct description *description = description_at(fs, wish->description);
    const uint16_t *flags = &inode_at(fs, wish->inode)->flags;

    SET_FOUR(fs, description->locker, asking->self, description->lock_from, (uint64_t)wish->from, description->lock_to,
             (uint64_t)wish->to, *flags, (uint16_t)(*flags | INODE_NOTED));
}

static int ask(struct fastspool *fs, void *argument)
{
    const struct asking *asking = argument;
    const struct noted_wish *wish = asking->wish;
    const struct description *description = description_at(fs, wish->description);

    if (description->state != DESCRIPTION_OPEN || description->inode != wish->inode || !inode_valid(fs, wish->inode))
        return -EBADF;
    const uint16_t *flags = &inode_at(fs, wish->inode)->flags;
    uint32_t d = find(fs, wish->inode, wish->description);
    if (d != 0) {
        *asking->note = note_in(fs, d);
        bool own = wish->own && asking->note->process == (noting(fs) & ~LEAVING);
        if (own && !wish->look)
            return NOTED_OWN;
        if (!own && wish->type != F_UNLCK && wish->from < asking->note->to && asking->note->from < wish->to)
            return NOTED_ANOTHERS;
    }
    if (wish->look || wish->type == F_UNLCK || (*flags & INODE_LOCKS_KERNELS))
        return NOTED_KERNELS;
    if (d == 0 && asking->self && asking->self == noting(fs)) {
        make_note(fs, asking);
        return NOTED_TAKEN;
    }
    SET(fs, *flags, (uint16_t)(*flags | INODE_LOCKS_KERNELS));
    return NOTED_KERNELS;
}

/* Does the note stand? */
static bool stands(const struct fastspool *fs, const struct noted *note)
{
    return inode_valid(fs, note->inode) && is_noted(fs, note->description, note->inode) &&
           description_at(fs, note->description)->locker == note->process;
}

/* Returns 1 if somebody waits for the note that has ended. */
static int end(struct fastspool *fs, void *argument)
{
    const struct noted *note = argument;

    if (!stands(fs, note))
        return 0;
    const uint16_t *flags = &inode_at(fs, note->inode)->flags;
    int awaited = !!(*flags & INODE_AWAITED);
    clear(fs, note->description, note->inode);
    if (note->moved)
        SET(fs, *flags, (uint16_t)(*flags | INODE_LOCKS_KERNELS));
    return awaited;
}

/* A description, of whose file this process gives up its locks. */
struct closing {
    uint32_t description;
    uint32_t inode;
};

/* Returns 1 if the process had a note there, and somebody waits for its end. */
static int drop(struct fastspool *fs, void *argument)
{
    const struct closing *closing = argument;
    uint32_t d = inode_valid(fs, closing->inode) ? find(fs, closing->inode, closing->description) : 0;

    if (d == 0 || description_at(fs, d)->locker != (noting(fs) & ~LEAVING))
        return 0;
    int awaited = !!(inode_at(fs, closing->inode)->flags & INODE_AWAITED);
    clear(fs, d, closing->inode);
    return awaited;
}

/* Returns 1 if the note stands, and its process will tell of its end. */
static int await(struct fastspool *fs, void *argument)
{
    const struct noted *note = argument;

    if (!stands(fs, note))
        return 0;
    const uint16_t *flags = &inode_at(fs, note->inode)->flags;
    SET(fs, *flags, (uint16_t)(*flags | INODE_AWAITED));
    return 1;
}

/* In a section, so that a note that another thread is making is seen behind it. */
static int leave(struct fastspool *fs, void *unused)
{
    (void)unused;
    STORE(fs->noting, fs->noting | LEAVING);
    return 0;
}

/* ---- outside ---- */

/* Call @with for each note of @process, until one call fails. */
static int each(struct fastspool *fs, uint32_t process, int (*with)(struct fastspool *fs, struct noted *note))
{
    uint32_t used = LOAD(fs->header->tables.descriptions.used);
    int result = 0;

    for (uint32_t d = 1; d < used && d < DESCRIPTIONS_MAX && result >= 0; d++) {
        if (LOAD(description_at(fs, d)->locker) != process) /* nearly all: the rest of them is not read */
            continue;
        struct noted note = note_in(fs, d);
        if (note.process == process && inode_valid(fs, note.inode))
            result = with(fs, &note);
    }
    return result < 0 ? result : 0;
}

static int remove_note(struct fastspool *fs, struct noted *note)
{
    return section_run(fs, end, note);
}

/* The process notes for the first time.  Returns its pid, 0: it can't. */
static uint32_t begin(struct fastspool *fs, uint32_t life)
{
    uint32_t pid = (uint32_t)getpid();
    struct flock byte = byte_of(pid, F_WRLCK);

    each(fs, pid, remove_note);
    if (fcntl(fs->locks_fd, F_SETLK, &byte) < 0)
        return 0;
    STORE(fs->noting_life, life);
    STORE(fs->noting, pid);
    return pid;
}

/* The process's pid, if it may note; 0: it can't. */
static uint32_t self(struct fastspool *fs)
{
    uint32_t pid = noting(fs), life = mutex_life(), beginning = LOAD(fs->noting_begins);

    if (pid || life == 0)
        return pid & LEAVING ? 0 : pid;
    if (beginning == life || /* in another thread, or in the call that this handler has interrupted */
        !__atomic_compare_exchange_n(&fs->noting_begins, &beginning, life, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return 0;
    pid = noting(fs) ? 0 : begin(fs, life);
    STORE(fs->noting_begins, 0);
    return pid;
}

int noted_ask(struct fastspool *fs, const struct noted_wish *wish, struct noted *note)
{
    struct asking asking = {.wish = wish, .note = note};

    if (wish->own && !wish->look && wish->type == F_WRLCK)
        asking.self = self(fs);
    return section_run(fs, ask, &asking);
}

int noted_end(struct fastspool *fs, const struct noted *note)
{
    return section_run(fs, end, (void *)(uintptr_t)note);
}

int noted_drop(struct fastspool *fs, uint32_t description, uint32_t inode)
{
    struct closing closing = {description, inode};

    return section_run(fs, drop, &closing);
}

bool noted_on(const struct fastspool *fs, uint32_t inode)
{
    return LOAD(inode_at(fs, inode)->flags) & INODE_NOTED;
}

bool noted_any(const struct fastspool *fs)
{
    return noting(fs) != 0;
}

bool noted_by(const struct fastspool *fs, uint32_t d)
{
    const uint32_t locker = LOAD(description_at(fs, d)->locker);

    return locker != 0 && locker == (noting(fs) & ~LEAVING);
}

bool noted_lives(const struct fastspool *fs, const struct noted *note)
{
    struct flock life = byte_of(note->process, F_RDLCK);

    /* Not F_GETLK: that tells nothing of the process itself, which may be asked for by one of its owners. */
    return fcntl(fs->locks_fd, F_OFD_GETLK, &life) < 0 || life.l_type != F_UNLCK;
}

int noted_wait(struct fastspool *fs, const struct noted *note, int fd, int command)
{
    struct flock life = byte_of(note->process, F_RDLCK);
    int result = section_run(fs, await, (void *)(uintptr_t)note);

    if (result <= 0)
        return result;
    if (fcntl(fd, command, &life) < 0)
        return -errno;
    life.l_type = F_UNLCK;
    return fcntl(fd, command == F_SETLKW ? F_SETLK : F_OFD_SETLK, &life) < 0 ? -errno : 0;
}

void noted_tell(struct fastspool *fs, int (*move)(struct fastspool *fs, struct noted *note))
{
    const uint32_t pid = noting(fs);
    struct flock life = byte_of(pid, F_UNLCK);

    if (pid == 0 || pid & LEAVING || section_run(fs, leave, NULL) < 0)
        return;
    if (each(fs, pid, move) == 0 && fcntl(fs->locks_fd, F_SETLK, &life) == 0)
        STORE(fs->noting, 0);
    else
        STORE(fs->noting, pid);
}

/* SPDX-License-Identifier: MIT
 *
 * The public calls on files, by path or on an open description: look, open, read, write, attributes, size.  (Calls that
 * make, move and remove names are in directories.c.)
 *
 * The happy path:
 *   - Looking (stat, access, fstat, a missing path) and reading take no lock.
 *   - A change is one critical section.  It finds the file, checks kind and permission in the kernel's order (so that
 *     the same errno comes first), and changes inodes and blocks.  A long write has a section for each DATA_STEP bytes.
 *   - The section that opens an evicted file requests its page-in; the call waits for it after the section.  The open
 *     description keeps the data in memory.
 *
 * Failure modes:
 *   - A section fails: it has changed nothing.
 *   - A write fails after its first step: it returns the number of bytes written.
 *   - An open file's data cannot be paged in: the description is closed again.
 *   - A truncation frees more blocks than fit a section: it goes on in further ones.  If the process is killed between
 *     them, the file stays shorter than before and longer than asked for.  (Truncation to 0 is always one section.)
 */
#include "store/files.h"

#include "fastspool.h"
#include "store/access.h"
#include "store/change.h"
#include "store/data.h"
#include "store/descriptions.h"
#include "store/directories.h"
#include "store/doubt.h"
#include "store/history.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/locks.h"
#include "store/orphans.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/spilled.h"
#include "store/store.h"
#include "store/tickets.h"
#include "store/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Returned by a body that has changed nothing, because its file is evicted.  The caller opens the file, which pages it
 * in and keeps it in memory, and runs the body again. */
#define NEEDS_OPEN 1000

#define OPEN_KEPT (~(O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC)) /* flags that a description keeps */

/* ---- looking, without the lock ---- */

/* Walk to an existing file; @handle and @st may be NULL. */
static int look(struct fastspool *fs, const char *path, int want, const struct credentials *who, uint64_t *handle,
                struct stat *st)
{
    struct section_read read = SECTION_READ;
    struct place place;
    int result;

    do {
        result = section_read_begin(fs, &read);
        if (result == 0)
            result = walk_to(fs, path, who, &place);
        if (result == 0)
            result = walk_must_exist(fs, &place);
        if (result == 0 && want)
            result = access_permitted(fs, place.inode, who, want);
        if (result == 0 && st)
            result = inodes_stat(fs, place.inode, st);
        if (result == 0 && handle)
            *handle = walk_handle(fs, place.inode);
    } while (section_read_retry(fs, &read));
    return doubt_settle(fs, result);
}

int fastspool_stat(struct fastspool *fs, const char *path, struct stat *st)
{
    struct credentials who;

    access_credentials(&who);
    return look(fs, path, 0, &who, NULL, st);
}

int fastspool_lookup(struct fastspool *fs, const char *path, uint64_t *handle, struct stat *st)
{
    struct credentials who;

    access_credentials(&who);
    return look(fs, path, 0, &who, handle, st);
}

int fastspool_access(struct fastspool *fs, const char *path, int mode, bool effective)
{
    struct credentials who;

    if (mode & ~(R_OK | W_OK | X_OK))
        return -EINVAL;
    if (effective)
        access_credentials(&who);
    else
        access_real_credentials(&who);
    return look(fs, path, mode, &who, NULL, NULL);
}

/* ---- changes: each has a body, and all share one set of arguments ---- */

struct change {
    const char *path;
    int flags;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size;
    uint32_t description;
    const struct timespec *times;
    struct credentials who;
    bool extend;      /* a truncation does not shorten */
    bool again;       /* out: a truncation has more to free */
    bool spilled;     /* out: the file that was opened is */
    uint32_t evicted; /* out: the inode whose page-in open waits for */
    uint32_t evicted_generation;
};

#define run(fs, body, change) run_named((fs), HISTORY_NAME_OF(body), (body), (change))
static int run_named(struct fastspool *fs, const char *name, section_body *body, struct change *change)
{
    access_credentials(&change->who);
    int result = change_run_named(fs, name, body, change);
    if (result >= 0 && LOAD(fs->header->tree.orphans))
        orphans_free(fs);
    return result;
}

/* ---- open ---- */

static int wanted_access(int flags)
{
    if (flags & O_PATH)
        return 0;
    int want = (flags & O_ACCMODE) == O_RDONLY ? R_OK : (flags & O_ACCMODE) == O_WRONLY ? W_OK : R_OK | W_OK;
    return flags & O_TRUNC ? want | W_OK : want;
}

static int open_existing(struct fastspool *fs, const struct place *place, struct change *open)
{
    const struct inode *inode = inode_at(fs, place->inode);
    bool directory = S_ISDIR(inode->mode);

    if ((open->flags & O_CREAT) && (open->flags & O_EXCL))
        return -EEXIST;
    if (directory && (open->flags & O_CREAT))
        return -EISDIR;
    if ((open->flags & O_CREAT) && access_open_or_create(fs, place->parent, place->inode, &open->who) < 0)
        return -EACCES;
    if (!directory && (place->directory || (open->flags & O_DIRECTORY)))
        return -ENOTDIR;
    if (directory && (wanted_access(open->flags) & W_OK))
        return -EISDIR;
    int result = access_permitted(fs, place->inode, &open->who, wanted_access(open->flags));
    if (result == 0 && (open->flags & O_NOATIME) && !access_owns(fs, place->inode, &open->who))
        result = -EPERM;
    if (result == 0 && (inode->flags & INODE_UNREADABLE) && !(open->flags & (O_TRUNC | O_PATH)))
        return -EIO;
    if (result == 0 && (open->flags & O_TRUNC) && !directory) {
        access_modified(fs, place->inode);
        result = orphans_discard(fs, place->inode);
    }
    return result;
}

/* Does @path end in "name/"?  open cannot create that.  ("./" and "../" don't count: they exist.) */
static bool ends_in_slash(const char *path)
{
    size_t length = strlen(path), end = length;

    if (length == 0 || path[length - 1] != '/')
        return false;
    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return end > start && !(path[start] == '.' && (end - start == 1 || (end - start == 2 && path[start + 1] == '.')));
}

static int open_body(struct fastspool *fs, void *argument)
{
    struct change *open = argument;
    struct place place;
    int result = walk_to(fs, open->path, &open->who, &place);

    if (result < 0)
        return result;
    if ((open->flags & O_CREAT) && (place.directory || place.length == 0) && ends_in_slash(open->path))
        return -EISDIR;
    if (place.inode)
        result = open_existing(fs, &place, open);
    else if (open->flags & O_CREAT)
        result = directories_make(fs, &place, S_IFREG | (open->mode & 07777), &open->who, &place.inode);
    else
        result = -ENOENT;
    if (result == 0)
        result = descriptions_open(fs, open->description, place.inode, open->flags & OPEN_KEPT);
    if (result != 0)
        return result;
    const struct inode *inode = inode_at(fs, place.inode);
    if (inode->flags & INODE_EVICTED) {
        residency_want(fs, place.inode); /* once in memory it stays, because the description is open */
        open->evicted = place.inode;
        open->evicted_generation = inode->generation;
        return 1;
    }
    open->spilled = inode->flags & INODE_SPILLED;
    return 0;
}

int files_open(struct fastspool *fs, const char *path, int flags, mode_t mode, uint32_t description)
{
    struct change open = {.path = path, .flags = flags, .mode = mode, .description = description};
    int result = run(fs, open_body, &open);
    bool brought = result > 0; /* perhaps to a spill file */

    if (brought)
        result = residency_wait(fs, open.evicted, open.evicted_generation);
    if (result == 0 && (brought || open.spilled))
        result = spilled_attach(fs, description);
    if (result < 0)
        descriptions_close(fs, description);
    return result;
}

int files_open_new(struct fastspool *fs, const char *path, int flags, mode_t mode, int *placeholder, int *fresh)
{
    uint32_t description;

    *fresh = -1;
    if (flags & O_PATH)
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC; /* as open(2) ignores all others */
    /* Exim often opens files that do not exist (-J).  That needs no new description. */
    int result = flags & O_CREAT || descriptions_idle(fs) ? 0 : fastspool_access(fs, path, F_OK, true);

    if (result == 0)
        result = descriptions_take(fs, &description, placeholder, fresh);
    if (result == 0)
        result = files_open(fs, path, flags, mode, description);
    if (result < 0 && *fresh >= 0) {
        close(*fresh);
        *fresh = -1;
    }
    return result < 0 ? result : (int)description;
}

int fastspool_open(struct fastspool *fs, const char *path, int flags, mode_t mode)
{
    int placeholder, fresh, result = files_open_new(fs, path, flags, mode, &placeholder, &fresh);

    if (result >= 0 && fresh >= 0)
        close(fresh);
    return result;
}

int fastspool_close(struct fastspool *fs, int description)
{
    uint32_t inode, generation;
    int result = descriptions_file(fs, (uint32_t)description, &inode, &generation);

    return result < 0 ? result : locks_close(fs, (uint32_t)description, inode);
}

/* ---- reading and writing ---- */

/* The open file of a description.  -EBADF: it was opened with O_PATH, so it only names the file. */
static int used(struct fastspool *fs, int description, uint32_t *inode, uint32_t *generation)
{
    int result = descriptions_file(fs, (uint32_t)description, inode, generation);

    return result == 0 && (LOAD(description_at(fs, (uint32_t)description)->flags) & O_PATH) ? -EBADF : result;
}

/* The open file of a description.  -EBADF if its access mode is @refused. */
static int file_of(struct fastspool *fs, int description, int refused, uint32_t *inode, uint32_t *generation)
{
    int result = used(fs, description, inode, generation);

    if (result < 0)
        return result;
    int mode = (int)LOAD(description_at(fs, (uint32_t)description)->flags) & O_ACCMODE;
    return mode == refused || mode == O_ACCMODE ? -EBADF : 0;
}

ssize_t fastspool_pread(struct fastspool *fs, int description, void *buffer, size_t size, off_t offset)
{
    uint32_t inode, generation;
    int result = offset < 0 ? -EINVAL : file_of(fs, description, O_WRONLY, &inode, &generation);

    if (result < 0)
        return result;
    if (S_ISDIR(inode_at(fs, inode)->mode))
        return -EISDIR;
    if (LOAD(inode_at(fs, inode)->flags) & INODE_SPILLED) {
        ssize_t got = spilled_read(fs, (uint32_t)description, buffer, size, (uint64_t)offset);
        if (got != -ENOENT) /* not spilled any more: it was truncated */
            return got;
    }
    return data_read(fs, inode, generation, buffer, size, (uint64_t)offset);
}

ssize_t fastspool_read(struct fastspool *fs, int d, void *buffer, size_t size)
{
    const struct description *description = description_at(fs, (uint32_t)d);

    for (;;) {
        uint64_t offset = LOAD(description->offset);
        ssize_t got = fastspool_pread(fs, d, buffer, size, (off_t)offset);
        if (got <= 0)
            return got;
        /* Another process may read through the same description.  Each byte goes to one of them. */
        if (__atomic_compare_exchange_n(&ATOMIC(description->offset), &offset, offset + (uint64_t)got, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return got;
    }
}

struct writing {
    uint32_t description;
    uint32_t inode;
    uint32_t generation;
    const char *bytes;
    size_t size;
    uint64_t offset;
    bool own_offset; /* write(2), not pwrite(2) */
    bool append;     /* whatever the description's flags say */
};

static int write_body(struct fastspool *fs, void *argument)
{
    struct writing *w = argument;
    const struct description *description = description_at(fs, w->description);
    const struct inode *inode = inode_at(fs, w->inode);
    size_t size = w->size < DATA_STEP ? w->size : DATA_STEP;

    if (!inode_valid(fs, w->inode) || inode->generation != w->generation || description->inode != w->inode)
        return -EBADF;
    if (inode->flags & INODE_SPILLED)
        return -ENOSPC;
    uint64_t offset = w->own_offset ? description->offset : w->offset;
    if (w->append || (description->flags & O_APPEND))
        offset = inode->size;
    if (!fs->mirror && offset + size > inode->size && residency_must_wait(fs, inode))
        return -EAGAIN;
    access_modified(fs, w->inode);
    int result = data_write(fs, w->inode, w->bytes, size, offset);
    if (result < 0)
        return result;
    if (w->own_offset)
        SET(fs, description->offset, offset + size);
    return (int)size;
}

static ssize_t write_all(struct fastspool *fs, struct writing *w)
{
    ssize_t done = 0;

    if (S_ISDIR(inode_at(fs, w->inode)->mode))
        return -EBADF;
    while (w->size > 0) {
        int result = change_run(fs, write_body, w);
        if (result < 0)
            return done ? done : result;
        done += result;
        w->bytes += result;
        w->size -= (size_t)result;
        w->offset += (uint64_t)result;
    }
    return done;
}

ssize_t fastspool_write(struct fastspool *fs, int d, const void *buffer, size_t size)
{
    struct writing w = {.description = (uint32_t)d, .bytes = buffer, .size = size, .own_offset = true};
    int result = file_of(fs, d, O_RDONLY, &w.inode, &w.generation);

    return result < 0 ? result : write_all(fs, &w);
}

ssize_t fastspool_pwrite(struct fastspool *fs, int d, const void *buffer, size_t size, off_t offset)
{
    struct writing w = {.description = (uint32_t)d, .bytes = buffer, .size = size, .offset = (uint64_t)offset};
    int result = offset < 0 ? -EINVAL : file_of(fs, d, O_RDONLY, &w.inode, &w.generation);

    return result < 0 ? result : write_all(fs, &w);
}

ssize_t fastspool_append(struct fastspool *fs, int d, const void *buffer, size_t size)
{
    struct writing w = {.description = (uint32_t)d, .bytes = buffer, .size = size, .append = true};
    int result = file_of(fs, d, O_RDONLY, &w.inode, &w.generation);

    return result < 0 ? result : write_all(fs, &w);
}

off_t fastspool_lseek(struct fastspool *fs, int d, off_t offset, int whence)
{
    uint32_t inode, generation;
    int result = used(fs, d, &inode, &generation);

    if (result < 0)
        return result;
    const struct description *description = description_at(fs, (uint32_t)d);
    off_t size = (off_t)LOAD(inode_at(fs, inode)->size);
    off_t base = 0;
    switch (whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        base = (off_t)LOAD(description->offset);
        break;
    case SEEK_END:
        base = size;
        break;
    case SEEK_DATA: /* as on a file system without holes: all is data, up to a hole at the end */
    case SEEK_HOLE:
        if (offset < 0 || offset >= size)
            return -ENXIO;
        base = whence == SEEK_HOLE ? size - offset : 0;
        break;
    default:
        return -EINVAL;
    }
    if (__builtin_add_overflow(base, offset, &offset))
        return -EOVERFLOW;
    if (offset < 0)
        return -EINVAL;
    STORE(description->offset, (uint64_t)offset);
    return offset;
}

/* ---- attributes ---- */

int fastspool_fstat(struct fastspool *fs, int description, struct stat *st)
{
    uint64_t handle;
    return fastspool_flookup(fs, description, &handle, st);
}

int fastspool_flookup(struct fastspool *fs, int description, uint64_t *handle, struct stat *st)
{
    struct section_read read = SECTION_READ;
    uint32_t inode, generation;
    int result;

    do {
        result = section_read_begin(fs, &read);
        if (result == 0)
            result = descriptions_file(fs, (uint32_t)description, &inode, &generation);
        if (result == 0)
            result = inodes_stat(fs, inode, st);
        if (result == 0)
            *handle = walk_handle(fs, inode);
    } while (section_read_retry(fs, &read));
    return doubt_settle(fs, result);
}

/* The inode of a change: by path, or without a path by description. */
static int target(struct fastspool *fs, const struct change *change, uint32_t *inode)
{
    struct place place;
    uint32_t generation;

    if (!change->path)
        return used(fs, (int)change->description, inode, &generation);
    int result = walk_to(fs, change->path, &change->who, &place);
    if (result == 0)
        result = walk_must_exist(fs, &place);
    *inode = place.inode;
    return result;
}

static int chmod_body(struct fastspool *fs, void *argument)
{
    const struct change *change = argument;
    uint32_t inode;
    int result = target(fs, change, &inode);

    return result < 0 ? result : access_chmod(fs, inode, change->mode, &change->who);
}

int fastspool_chmod(struct fastspool *fs, const char *path, mode_t mode)
{
    struct change change = {.path = path, .mode = mode};
    return run(fs, chmod_body, &change);
}

int fastspool_fchmod(struct fastspool *fs, int description, mode_t mode)
{
    struct change change = {.description = (uint32_t)description, .mode = mode};
    return run(fs, chmod_body, &change);
}

static int chown_body(struct fastspool *fs, void *argument)
{
    const struct change *change = argument;
    uint32_t inode;
    int result = target(fs, change, &inode);

    return result < 0 ? result : access_chown(fs, inode, change->uid, change->gid, &change->who);
}

int fastspool_chown(struct fastspool *fs, const char *path, uid_t uid, gid_t gid)
{
    struct change change = {.path = path, .uid = uid, .gid = gid};
    return run(fs, chown_body, &change);
}

int fastspool_fchown(struct fastspool *fs, int description, uid_t uid, gid_t gid)
{
    struct change change = {.description = (uint32_t)description, .uid = uid, .gid = gid};
    return run(fs, chown_body, &change);
}

static int utimens_body(struct fastspool *fs, void *argument)
{
    const struct change *change = argument;
    uint32_t inode;
    int result = target(fs, change, &inode);

    return result < 0 ? result : access_utimens(fs, inode, change->times, &change->who);
}

int fastspool_utimens(struct fastspool *fs, const char *path, const struct timespec times[2])
{
    struct change change = {.path = path, .times = times};
    return run(fs, utimens_body, &change);
}

int fastspool_futimens(struct fastspool *fs, int description, const struct timespec times[2])
{
    struct change change = {.description = (uint32_t)description, .times = times};
    return run(fs, utimens_body, &change);
}

static int truncate_body(struct fastspool *fs, void *argument)
{
    struct change *change = argument;
    uint32_t inode;
    int result = target(fs, change, &inode);

    if (result < 0)
        return result;
    if (S_ISDIR(inode_at(fs, inode)->mode))
        return change->path ? -EISDIR : -EINVAL;
    if (change->path)
        result = access_permitted(fs, inode, &change->who, W_OK);
    if (result < 0)
        return result;
    if (change->extend && change->size <= inode_at(fs, inode)->size) {
        access_modified(fs, inode);
        return 0;
    }
    if (change->size > 0 && (inode_at(fs, inode)->flags & INODE_EVICTED))
        return NEEDS_OPEN;
    if (change->size > 0 && (inode_at(fs, inode)->flags & INODE_SPILLED))
        return -ENOSPC;
    access_modified(fs, inode);
    result = change->size == 0 ? orphans_discard(fs, inode) : data_truncate(fs, inode, change->size);
    change->again = result > 0;
    return result;
}

static int truncate_to(struct fastspool *fs, struct change *change, off_t size)
{
    int result = size < 0 ? -EINVAL : 0;

    change->size = (uint64_t)size;
    do
        result = result < 0 ? result : run(fs, truncate_body, change);
    while (result >= 0 && change->again);
    return result;
}

int fastspool_truncate(struct fastspool *fs, const char *path, off_t size)
{
    struct change change = {.path = path};
    int result = truncate_to(fs, &change, size);

    while (result == NEEDS_OPEN) { /* more than once only if another evicted file takes the path */
        int d = fastspool_open(fs, path, O_WRONLY, 0);
        if (d < 0)
            return d;
        result = truncate_to(fs, &change, size);
        fastspool_close(fs, d);
    }
    return result;
}

static int truncate_open(struct fastspool *fs, int description, off_t size, bool extend)
{
    struct change change = {.description = (uint32_t)description, .extend = extend};
    uint32_t inode, generation;
    int result = file_of(fs, description, O_RDONLY, &inode, &generation);

    if (result == -EBADF && used(fs, description, &inode, &generation) == 0)
        return -EINVAL; /* open, but not for writing */
    return result < 0 ? result : truncate_to(fs, &change, size);
}

int fastspool_ftruncate(struct fastspool *fs, int description, off_t size)
{
    return truncate_open(fs, description, size, false);
}

int fastspool_allocate(struct fastspool *fs, int description, off_t offset, off_t size)
{
    off_t end;

    if (offset < 0 || size <= 0)
        return -EINVAL;
    if (__builtin_add_overflow(offset, size, &end))
        return -EFBIG;
    int result = truncate_open(fs, description, end, true);
    return result == -EINVAL ? -EBADF : result;
}

int fastspool_fsync(struct fastspool *fs, int description)
{
    uint32_t inode, generation;
    int result = used(fs, description, &inode, &generation);

    if (result < 0)
        return result;
    const struct inode *file = inode_at(fs, inode);
    return tickets_sync(fs, section_load(fs, &file->ticket), S_ISDIR(file->mode));
}

int fastspool_lock(struct fastspool *fs, int description, int command, struct flock *lock)
{
    return locks_control(fs, (uint32_t)description, command, lock);
}

int fastspool_lock_owner(struct fastspool *fs)
{
    return locks_owner(fs);
}

int fastspool_lock_for(struct fastspool *fs, int description, int owner, int command, struct flock *lock)
{
    return locks_control_for(fs, (uint32_t)description, owner, command, lock);
}

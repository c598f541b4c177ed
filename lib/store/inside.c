/* SPDX-License-Identifier: MIT
 *
 * The store as the preloaded library sees it.
 */
#include "store/inside.h"

#include "base/atomic.h"
#include "base/fd.h"
#include "fastspool.h"
#include "store/access.h"
#include "store/await.h"
#include "store/data.h"
#include "store/descriptions.h"
#include "store/directories.h"
#include "store/files.h"
#include "store/layout.h"
#include "store/locks.h"
#include "store/mutex.h"
#include "store/section.h"
#include "store/span.h"
#include "store/spilled.h"
#include "store/status.h"
#include "store/store.h"
#include "store/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

_Static_assert(INSIDE_DESCRIPTIONS == DESCRIPTIONS_MAX, "as the layout has it");
_Static_assert(INSIDE_BLOCK == BLOCK_SIZE, "as the layout has it");

/* ---- the spool ---- */

const char *inside_spool(const struct fastspool *fs)
{
    return fs->spool;
}

uint64_t inside_memory(const struct fastspool *fs)
{
    return fs->memory ? fs->memory : LOAD(fs->header->memory_limit); /* the first is this process's own */
}

bool inside_may_hold(const struct fastspool *fs, uid_t uid)
{
    return uid == 0 || uid == fs->owner;
}

unsigned inside_next_own(struct fastspool *fs, unsigned from, unsigned to)
{
    const int fds[] = {fs->segment_fd, fs->locks_fd, fs->runtime_fd, fs->spool_fd, fs->presence_fd};
    unsigned next = descriptions_next_own(fs, from, to);

    for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
        next = fd_next(from, fds[i], next);
    return next <= to ? next : UINT_MAX;
}

bool inside_terminated(const sigset_t *own)
{
    return await_terminated(own);
}

bool inside_view(const struct fastspool *fs)
{
    return LOAD(fs->header->view.status) == VIEW_MOUNTED;
}

bool inside_failed(const struct fastspool *fs)
{
    return LOAD(fs->header->state) == SEGMENT_FAILED;
}

void inside_set_view(const struct fastspool *fs, bool mounted)
{
    STORE(fs->header->view.unavailable, 0);
    STORE(fs->header->view.status, mounted ? VIEW_MOUNTED : VIEW_NONE);
}

void inside_set_left(const struct fastspool *fs, uint32_t locked, uint32_t conflicts, uint32_t left)
{
    STORE(fs->header->view.locked, locked);
    STORE(fs->header->view.conflicts, conflicts);
    STORE(fs->header->view.left, left);
}

int inside_adopt(struct fastspool *fs, const char *path, const struct stat *attributes)
{
    return directories_adopt(fs, path, attributes);
}

struct visitor {
    const struct fastspool *fs;
    inside_visit *visit;
    void *context;
};

static void visit_with_size(void *context, const char *path, uint32_t inode)
{
    const struct visitor *visitor = context;

    if (inode_valid(visitor->fs, inode))
        visitor->visit(visitor->context, path, LOAD(inode_at(visitor->fs, inode)->size));
}

void inside_each_name(struct fastspool *fs, inside_visit *visit, void *context)
{
    struct visitor visitor = {fs, visit, context};

    status_each(fs, visit_with_size, &visitor);
}

ssize_t inside_peek(struct fastspool *fs, const char *path, void *buffer, size_t size)
{
    uint64_t handle;
    struct stat st;
    int result = fastspool_lookup(fs, path, &handle, &st);

    if (result < 0)
        return result;
    uint32_t inode = (uint32_t)(handle % FASTSPOOL_HANDLE_MIN);
    if (!inode_valid(fs, inode) || LOAD(inode_at(fs, inode)->flags) & INODE_EVICTED)
        return -EAGAIN;
    int description = fastspool_open(fs, path, O_RDONLY, 0);
    ssize_t got = description < 0 ? description : fastspool_pread(fs, description, buffer, size, 0);
    if (description >= 0)
        fastspool_close(fs, description);
    return got;
}

/* ---- open file descriptions ---- */

int inside_open(struct fastspool *fs, const char *path, int flags, mode_t mode, int *placeholder, int *fresh)
{
    return files_open_new(fs, path, flags, mode, placeholder, fresh);
}

int inside_give(struct fastspool *fs, uint32_t description, bool few)
{
    return descriptions_give(fs, description, few);
}

int inside_close(struct fastspool *fs, uint32_t description)
{
    return descriptions_close(fs, description);
}

int inside_leave(struct fastspool *fs, uint32_t description)
{
    return descriptions_leave(fs, description);
}

int inside_kept(struct fastspool *fs, uint32_t description)
{
    return descriptions_kept(fs, description);
}

void inside_drop_locks(struct fastspool *fs, uint32_t description)
{
    uint32_t inode, generation;

    if (descriptions_file(fs, description, &inode, &generation) == 0)
        locks_drop(fs, description, inode);
}

void inside_shared(struct fastspool *fs)
{
    descriptions_shared(fs);
    (void)span_follow(fs); /* else each child maps what has come since, four calls */
}

/* Here, near what it calls: the child of each fork pays for the code's pages. */
void fastspool_after_fork_child(struct fastspool *fs)
{
    descriptions_after_fork_child(fs);
    locks_after_fork_child();
    mutex_after_fork_child();
}

uint32_t inside_identify(struct fastspool *fs, int fd)
{
    return descriptions_identify(fs, fd);
}

bool inside_is_placeholder(const struct fastspool *fs, const struct stat *st)
{
    return descriptions_is_placeholder(fs, st);
}

uint64_t inside_handle(struct fastspool *fs, uint32_t description)
{
    uint64_t handle;
    struct stat st;

    return fastspool_flookup(fs, (int)description, &handle, &st) < 0 ? 0 : handle;
}

int inside_flags(const struct fastspool *fs, uint32_t description)
{
    return (int)LOAD(description_at(fs, description)->flags);
}

int inside_change_flags(struct fastspool *fs, uint32_t description, int which, int flags)
{
    const uint32_t *kept = &description_at(fs, description)->flags;
    uint32_t before = LOAD(*kept), after, inode, generation;
    struct credentials who;

    if (flags & which & ~(int)before & O_NOATIME) {
        int result = descriptions_file(fs, description, &inode, &generation);
        access_credentials(&who);
        if (result < 0 || !access_owns(fs, inode, &who))
            return result < 0 ? result : -EPERM;
    }
    do {
        after = (before & ~(uint32_t)which) | (uint32_t)(flags & which);
    } while (!__atomic_compare_exchange_n(&ATOMIC(*kept), &before, after, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return (int)before;
}

void inside_became(uid_t uid)
{
    access_became(uid);
}

void inside_became_of(gid_t gid)
{
    access_became_of(gid);
}

void inside_write_for_others(struct fastspool *fs)
{
    fs->for_others = true;
}

off_t inside_offset(const struct fastspool *fs, uint32_t description)
{
    return (off_t)LOAD(description_at(fs, description)->offset);
}

bool inside_is_alone(const struct fastspool *fs, uint32_t description)
{
    uint32_t inode, generation;

    return descriptions_file(fs, description, &inode, &generation) == 0 && LOAD(inode_at(fs, inode)->opens) == 1;
}

int inside_path(struct fastspool *fs, uint32_t description, char *path, size_t size)
{
    uint32_t inode, generation;
    int result = descriptions_file(fs, description, &inode, &generation);

    return result < 0 ? result : walk_path(fs, inode, path, size);
}

ssize_t inside_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, off_t offset)
{
    uint32_t inode, generation;
    int result = descriptions_file(fs, description, &inode, &generation);

    return result < 0 ? result : data_read(fs, inode, generation, buffer, size, (uint64_t)offset);
}

int inside_spill(struct fastspool *fs, uint32_t description)
{
    return spilled_open(fs, description);
}

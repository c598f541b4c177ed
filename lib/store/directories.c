/* SPDX-License-Identifier: MIT
 *
 * The public calls on directories: they make, move, remove and list names.  (The table of names is in names.c.)
 *
 * The happy path: a change is one critical section.  It walks the path, checks kind and permission in the kernel's
 * order (so that the same errno comes first), and changes names and inodes.  The blocks of a large file that is gone
 * are freed after it.  A listing takes no lock.
 *
 * Failure modes:
 *   - A section fails: it has changed nothing.
 *   - A process waits for the page-in of the file whose last name is to go: the change waits too.  Then the body runs
 *     again from its start, because the path may lead elsewhere by then.
 *   - That page-in fails: the file has no waiters any more, and the name goes.
 *   - No mirror comes up for it: the change fails.
 */
#include "store/directories.h"

#include "fastspool.h"
#include "store/access.h"
#include "store/change.h"
#include "store/descriptions.h"
#include "store/doubt.h"
#include "store/history.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/orphans.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"
#include "store/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Returned by a body that has changed nothing but to request a page-in, and must wait for it. */
#define NEEDS_DATA 1000

/* ---- changes by path: each has a body, and all share one set of arguments ---- */

struct name_change {
    const char *path;
    const char *to;
    unsigned flags;
    mode_t mode;
    struct credentials who;
    uint32_t evicted; /* out: the inode to page in first */
    uint32_t evicted_generation;
};

/* In a body: inode @i must be paged in first.  The body returns the result, and runs again later. */
static int need_data(struct fastspool *fs, struct name_change *change, uint32_t i)
{
    residency_want(fs, i);
    change->evicted = i;
    change->evicted_generation = inode_at(fs, i)->generation;
    return NEEDS_DATA;
}

#define run(fs, body, change) run_named((fs), HISTORY_NAME_OF(body), (body), (change))
static int run_named(struct fastspool *fs, const char *name, section_body *body, struct name_change *change)
{
    int result, failed = 0;

    access_credentials(&change->who);
    /* After a page-in that failed the body runs once more.  If it still needs the data, no mirror has come up. */
    while ((result = change_run_named(fs, name, body, change)) == NEEDS_DATA && failed == 0)
        failed = residency_wait(fs, change->evicted, change->evicted_generation);
    if (result == NEEDS_DATA)
        return failed;
    if (result >= 0 && LOAD(fs->header->tree.orphans))
        orphans_free(fs);
    return result;
}

/* May @who change the names in directory @parent?  A removed one, which is still open, gets no names. */
static inline int may_change(struct fastspool *fs, uint32_t parent, const struct credentials *who)
{
    const struct inode *directory = inode_at(fs, parent);

    if (directory->names == 0 && parent != fs->header->tree.root)
        return -ENOENT;
    return access_permitted_to(fs, parent, directory, who, W_OK | X_OK);
}

/* May @who take the name of @inode out of @parent? */
static inline int may_remove(struct fastspool *fs, uint32_t parent, uint32_t inode, const struct credentials *who)
{
    int result = may_change(fs, parent, who);
    return result < 0 ? result : access_remove(fs, parent, inode, who);
}

int directories_make(struct fastspool *fs, const struct place *place, mode_t mode, const struct credentials *who,
                     uint32_t *inode)
{
    const struct inode *parent = inode_at(fs, place->parent);
    int result = may_change(fs, place->parent, who);
    gid_t gid = who->gid;

    if (result == 0 && S_ISDIR(mode) && parent->links == UINT32_MAX)
        result = -EMLINK;
    if (result < 0)
        return result;
    if (parent->mode & S_ISGID) {
        mode = access_inherited_mode(fs, place->parent, mode, who);
        gid = parent->gid;
    }
    result = inodes_take(fs, mode, who->uid, gid, inode);
    return result < 0 ? result : names_add(fs, place->parent, place->name, place->length, place->hash, *inode);
}

/* ---- making and removing directories ---- */

static int mkdir_body(struct fastspool *fs, void *argument)
{
    const struct name_change *change = argument;
    struct place place;
    uint32_t inode;
    int result = walk_to(fs, change->path, &change->who, &place);

    if (result < 0)
        return result;
    if (place.inode)
        return -EEXIST;
    return directories_make(fs, &place, S_IFDIR | (change->mode & 01777), &change->who, &inode);
}

int fastspool_mkdir(struct fastspool *fs, const char *path, mode_t mode)
{
    struct name_change change = {.path = path, .mode = mode};
    return run(fs, mkdir_body, &change);
}

static int rmdir_body(struct fastspool *fs, void *argument)
{
    const struct name_change *change = argument;
    struct place place;
    int result = walk_to(fs, change->path, &change->who, &place);

    if (result < 0)
        return result;
    if (place.inode == 0)
        return -ENOENT;
    if (place.entry == 0) /* the spool itself, "." or ".." */
        return place.length == 0 ? -EBUSY : place.length == 1 ? -EINVAL : -ENOTEMPTY;
    result = walk_must_exist(fs, &place);
    if (result == 0)
        result = may_remove(fs, place.parent, place.inode, &change->who);
    if (result == 0 && !S_ISDIR(inode_at(fs, place.inode)->mode))
        result = -ENOTDIR;
    if (result == 0 && inode_at(fs, place.inode)->dir.entries > 0)
        result = -ENOTEMPTY;
    if (result == 0)
        result = names_remove(fs, place.entry, place.hash);
    return result < 0 ? result : orphans_drop(fs, place.inode);
}

int fastspool_rmdir(struct fastspool *fs, const char *path)
{
    struct name_change change = {.path = path};
    return run(fs, rmdir_body, &change);
}

/* ---- unlink, link, rename ---- */

/* Must inode @i keep its name?  Its last one stays until the page-in that a process waits for is done: otherwise a
 * checkpoint could remove the data from the database before the pager has read it.  (A prefetch has no waiter.) */
static bool keeps_name(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);
    return (inode->flags & (INODE_WANTED | INODE_AHEAD)) == INODE_WANTED && inode->links == 1;
}

static int unlink_body(struct fastspool *fs, void *argument)
{
    struct name_change *change = argument;
    struct place place;
    int result = walk_to(fs, change->path, &change->who, &place);

    if (result < 0)
        return result;
    if (place.inode && place.entry == 0)
        return -EISDIR; /* the spool itself, "." or ".." */
    result = walk_must_exist(fs, &place);
    if (result == 0)
        result = may_remove(fs, place.parent, place.inode, &change->who);
    if (result == 0 && S_ISDIR(inode_at(fs, place.inode)->mode))
        result = -EISDIR;
    if (result == 0 && keeps_name(fs, place.inode))
        return need_data(fs, change, place.inode);
    if (result == 0)
        result = names_remove(fs, place.entry, place.hash);
    return result < 0 ? result : orphans_drop(fs, place.inode);
}

int fastspool_unlink(struct fastspool *fs, const char *path)
{
    struct name_change change = {.path = path};
    return run(fs, unlink_body, &change);
}

static int link_body(struct fastspool *fs, void *argument)
{
    const struct name_change *change = argument;
    struct place from, to;
    int result = walk_to(fs, change->path, &change->who, &from);

    if (result == 0)
        result = walk_must_exist(fs, &from);
    if (result == 0)
        result = walk_to(fs, change->to, &change->who, &to);
    if (result < 0)
        return result;
    if (to.inode)
        return -EEXIST;
    if (to.directory || inode_at(fs, from.inode)->links == 0)
        return -ENOENT;
    result = access_link(fs, from.inode, &change->who);
    if (result == 0)
        result = may_change(fs, to.parent, &change->who);
    if (result == 0 && S_ISDIR(inode_at(fs, from.inode)->mode))
        result = -EPERM;
    return result < 0 ? result : names_add(fs, to.parent, to.name, to.length, to.hash, from.inode);
}

int fastspool_link(struct fastspool *fs, const char *from, const char *to)
{
    struct name_change change = {.path = from, .to = to};
    return run(fs, link_body, &change);
}

/* Is directory @inode the directory @below, or an ancestor of it?  0, 1 or -EUCLEAN. */
static int is_above(struct fastspool *fs, uint32_t inode, uint32_t below)
{
    for (uint32_t steps = 0; steps < fs->header->tables.inodes.used && steps < INODES_MAX; steps++) {
        if (below == inode)
            return 1;
        if (below == fs->header->tree.root || !inode_valid(fs, below))
            return 0;
        below = inode_at(fs, below)->dir.parent;
    }
    return doubt("a directory is above itself");
}

/* Have the new name lead to what is moved, and not to what it led to. */
static int displace(struct fastspool *fs, const struct place *from, const struct place *to,
                    const struct credentials *who)
{
    const struct inode *moved = inode_at(fs, from->inode);
    const struct inode *victim = inode_at(fs, to->inode);
    int result = may_remove(fs, to->parent, to->inode, who);

    if (result < 0)
        return result;
    if (S_ISDIR(moved->mode) && !S_ISDIR(victim->mode))
        return -ENOTDIR;
    if (!S_ISDIR(moved->mode) && S_ISDIR(victim->mode))
        return -EISDIR;
    if (S_ISDIR(victim->mode) && victim->dir.entries > 0)
        return -ENOTEMPTY;
    result = names_replace(fs, to->entry, from->inode);
    return result < 0 ? result : orphans_drop(fs, to->inode);
}

static int rename_body(struct fastspool *fs, void *argument)
{
    struct name_change *change = argument;
    struct place from, to;
    int result = walk_to(fs, change->path, &change->who, &from);

    if (result == 0)
        result = walk_to(fs, change->to, &change->who, &to);
    if (result < 0)
        return result;
    if ((from.inode && from.entry == 0) || (to.inode && to.entry == 0))
        return -EBUSY; /* the spool itself, "." or ".." */
    result = walk_must_exist(fs, &from);
    if (result < 0)
        return result;
    bool directory = S_ISDIR(inode_at(fs, from.inode)->mode);
    if (to.inode && (change->flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (to.directory && !directory)
        return -ENOTDIR;
    result = directory ? is_above(fs, from.inode, to.parent) : 0;
    if (result != 0)
        return result < 0 ? result : -EINVAL;
    result = to.inode ? is_above(fs, to.inode, from.parent) : 0;
    if (result != 0)
        return result < 0 ? result : -ENOTEMPTY;
    if (to.inode == from.inode)
        return 0;
    result = may_remove(fs, from.parent, from.inode, &change->who);
    if (result == 0 && to.inode && keeps_name(fs, to.inode))
        return need_data(fs, change, to.inode);
    if (result == 0)
        result = to.inode ? displace(fs, &from, &to, &change->who) : may_change(fs, to.parent, &change->who);
    if (result == 0 && directory && from.parent != to.parent)
        result = access_permitted(fs, from.inode, &change->who, W_OK); /* its ".." changes */
    if (result < 0)
        return result;
    return to.inode ? names_remove(fs, from.entry, from.hash)
                    : names_move(fs, from.entry, from.hash, to.parent, to.name, to.length, to.hash);
}

int fastspool_rename(struct fastspool *fs, const char *from, const char *to, unsigned flags)
{
    struct name_change change = {.path = from, .to = to, .flags = flags};

    if (flags & ~(unsigned)RENAME_NOREPLACE)
        return -EINVAL;
    return run(fs, rename_body, &change);
}

/* ---- listing ---- */

ssize_t fastspool_list(struct fastspool *fs, int description, uint64_t after, struct fastspool_entry *entries,
                       size_t size)
{
    struct section_read read = SECTION_READ;
    uint32_t inode, generation;
    ssize_t result;

    do {
        result = section_read_begin(fs, &read);
        if (result == 0)
            result = descriptions_file(fs, (uint32_t)description, &inode, &generation);
        if (result == 0 && (LOAD(description_at(fs, (uint32_t)description)->flags) & O_PATH))
            result = -EBADF;
        if (result == 0)
            result = walk_list(fs, inode, after, entries, size);
    } while (section_read_retry(fs, &read));
    return result < 0 ? doubt_settle(fs, (int)result) : result;
}

uint64_t fastspool_list_end(struct fastspool *fs)
{
    struct section_read read = SECTION_READ;
    uint64_t end;

    do {
        (void)section_read_begin(fs, &read); /* of the header alone */
        end = walk_end(fs);
    } while (section_read_retry(fs, &read));
    return end;
}

/* ---- adopting ---- */

struct adoption {
    const char *path;
    size_t length; /* of the part of the path to be made */
    const struct stat *attributes;
};

static int adopt_body(struct fastspool *fs, void *argument)
{
    const struct adoption *adoption = argument;
    const struct credentials root = {0, 0, UINT32_MAX};
    struct place place;
    uint32_t inode;
    char path[4096];

    if (adoption->length >= sizeof(path))
        return -ENAMETOOLONG;
    memcpy(path, adoption->path, adoption->length);
    path[adoption->length] = '\0';
    int result = walk_to(fs, path, &root, &place);
    if (result < 0 || place.inode)
        return result;
    const struct stat *st = adoption->attributes;
    result = inodes_take(fs, S_IFDIR | (st->st_mode & 07777), st->st_uid, st->st_gid, &inode);
    return result < 0 ? result : names_add(fs, place.parent, place.name, place.length, place.hash, inode);
}

int directories_adopt(struct fastspool *fs, const char *path, const struct stat *attributes)
{
    int result = 0;

    for (size_t length = 1; result >= 0 && path[length - 1]; length++) {
        struct adoption adoption = {path, length, attributes};
        if (path[length] == '/' || path[length] == '\0')
            result = change_run(fs, adopt_body, &adoption);
    }
    return result;
}

/* ---- the root ---- */

static int make_root(struct fastspool *fs, void *argument)
{
    const struct stat *st = argument;
    uint32_t root;
    int result = inodes_take(fs, st->st_mode, st->st_uid, st->st_gid, &root);

    if (result < 0)
        return result;
    SET(fs, inode_at(fs, root)->links, 2);
    SET(fs, inode_at(fs, root)->dir.parent, root);
    SET(fs, fs->header->tree.root, root);
    inodes_dirty(fs, root);
    return 0;
}

int directories_make_root(struct fastspool *fs)
{
    struct stat st;

    if (fstat(fs->spool_fd, &st) < 0)
        return -errno;
    return change_run(fs, make_root, &st);
}

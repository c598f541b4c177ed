/* SPDX-License-Identifier: MIT
 *
 * Export, the reverse of the import.  A message is moved once, whenever a process is killed or the power fails.  So at
 * each instant one of store and disk alone has it under a name that Exim finds:
 *
 *   1. copy     Exim's lock on the store's -D file; all files are copied to the disk, under names that Exim doesn't
 *               know, and synced
 *   2. decide   in the store the files go to .export/tree, the -H file first, and that is flushed.  The disk has the
 *               message from here on
 *   3. show     the copies get their names, -H files last, and that is synced
 *   4. remove   the store's files, the -H file last
 *
 * A batch of messages goes through this at a time, because a flush is a commit.  An export begins with what a killed
 * one has left: what is in .export/tree is shown and removed.  Every other copy is of a message that the store still
 * has: it is removed.  The file .export/to names the spool that the tree belongs to, and its lock says that an export
 * runs.
 *
 * A process may have opened a -D file, sleep before it locks it, and find the message's -H file on the disk: two
 * processes would deliver one message.  So step 3 waits until nobody else has the file of .export/tree open.
 *
 * What belongs to no message needs no lock.  Files of a message without a -D file wait for the end, because an Exim
 * that has delivered it may just be removing them.
 *
 * Failure modes: a message that is locked, or that somebody keeps open, stays in the store, and so does a file that
 * changes while it is copied.  So does one that the disk has with another content; with the same content the store's
 * alone is removed.  The disk is full, or a commit fails: the batch goes back to the store, and the export ends.
 */
#include "plain/export.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "plain/disk.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE          PLACES_EXPORT "/tree"
#define TARGET        PLACES_EXPORT "/to"
#define OWN           "."
#define BATCH         128
#define BATCH_BYTES   (UINT64_C(8) << 20)
#define MEMBERS       8 /* files of a message, at most */
#define PIECE         (64 << 10)
#define DEEPEST       6
#define BEING_MADE    10 /* seconds: Exim makes an empty -D file, and locks it a moment later */
#define SETTLED       NS_PER_S
#define PATIENCE      (3 * NS_PER_S) /* with who has a file open; the dead are noticed once a second */
#define FLUSH_TIMEOUT (60 * NS_PER_S)

/* A file of a group. */
struct file {
    char *path;
    uint64_t size, mtime;
    bool copied; /* or the disk had the same before */
    bool taken;  /* it is in the tree */
};

/* A message, or a file that belongs to none. */
struct group {
    struct file file[MEMBERS]; /* the -H file is the first */
    size_t files;
    int description; /* of the -D file, locked, or of the single file; -1: none */
    bool message;
};

struct export
{
    struct fastspool *fs;
    int disk;
    dev_t device; /* of the spool's own directory */
    const char *to;
    struct export_result *result;
    uint64_t end; /* what comes into the store later is not exported */
    struct group group[BATCH];
    size_t groups;
    uint64_t bytes; /* of the batch */
    bool late;      /* the second pass: messages without a -D file */
    bool waiting;   /* there are such */
    char piece[PIECE], other[PIECE];
};

/* The store asks it for no permission. */
static const struct fastspool_client server;

typedef int visitor(struct export *ex, const char *path);

static int fail(struct export *ex, int code, const char *what, const char *path)
{
    char shown[FASTSPOOL_PATH_MAX];

    return error_set(ex->result->error, code, "cannot %s %s: %s", what,
                     escape_bytes(shown, sizeof(shown), path, strlen(path)), strerrordesc_np(-code));
}

static void tell(const struct export *ex, const char *path, const char *why)
{
    if (ex->result->tell)
        ex->result->tell(path, why);
}

/* The store has no path that is too long: then this one leads nowhere. */
static void tree_path(const char *path, char in_tree[PATH_MAX])
{
    if (snprintf(in_tree, PATH_MAX, TREE "/%s", path) >= PATH_MAX)
        in_tree[0] = '\0';
}

static bool has(const struct export *ex, const char *path)
{
    struct stat st;

    return fastspool_stat(ex->fs, path, &st) == 0;
}

/* Call @make for each directory above @path. */
static int each_parent(struct export *ex, const char *path, visitor *make)
{
    char parent[PATH_MAX];
    int result = 0;

    for (const char *slash = strchr(path, '/'); slash && result == 0; slash = strchr(slash + 1, '/')) {
        snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
        result = make(ex, parent);
    }
    return result;
}

static int make_in_store(struct export *ex, const char *path)
{
    int result = fastspool_mkdir(ex->fs, path, 0700);

    return result == -EEXIST ? 0 : result;
}

/* As it is in the store. */
static int make_on_disk(struct export *ex, const char *path)
{
    struct stat st;
    int result = fastspool_stat(ex->fs, path, &st);

    return result < 0 ? result : disk_make_directory(ex->disk, path, &st);
}

static int flush(struct export *ex)
{
    int result = fastspool_flush(ex->fs, FLUSH_TIMEOUT);

    return result < 0 ? fail(ex, result, "flush", inside_spool(ex->fs)) : 0;
}

/* ---- copies ---- */

enum outcome { DONE, CONFLICT, CHANGED, LEFT };

/* Has the disk's file @fd the same content as the store's? */
static int same(struct export *ex, int description, int fd, const struct stat *st, const struct stat *there)
{
    int result = S_ISREG(there->st_mode) && there->st_size == st->st_size ? DONE : CONFLICT;

    for (off_t at = 0; result == DONE && at < st->st_size;) {
        ssize_t size = fastspool_pread(ex->fs, description, ex->piece, PIECE, at);
        if (size < 0)
            return (int)size;
        if (size == 0 || pread(fd, ex->other, (size_t)size, at) != size ||
            memcmp(ex->piece, ex->other, (size_t)size) != 0)
            result = CONFLICT;
        at += size;
    }
    return result;
}

static int write_all(int fd, const char *bytes, ssize_t size)
{
    while (size > 0) {
        ssize_t part = write(fd, bytes, (size_t)size);
        if (part < 0 && errno != EINTR)
            return -errno;
        bytes += part > 0 ? part : 0;
        size -= part > 0 ? part : 0;
    }
    return 0;
}

static int copy_bytes(struct export *ex, int description, int fd, const struct stat *st)
{
    for (off_t at = 0;;) {
        ssize_t size = fastspool_pread(ex->fs, description, ex->piece, PIECE, at);
        if (size < 0)
            return (int)size;
        if (size == 0)
            return at == st->st_size ? DONE : CHANGED;
        int result = write_all(fd, ex->piece, size);
        if (result < 0)
            return result;
        at += size;
    }
}

static int copy(struct export *ex, const char *path, int description, const struct stat *st)
{
    struct stat made;
    int fd = disk_make_copy(ex->disk, path);

    if (fd == -ENAMETOOLONG || fd == -EACCES || fd == -EPERM)
        return LEFT;
    if (fd < 0)
        return fd;
    int result = disk_dress(fd, st);
    if (result == -EPERM)
        result = LEFT;
    if (result == 0)
        result = copy_bytes(ex, description, fd, st);
    if (result == DONE && futimens(fd, (struct timespec[]){st->st_atim, st->st_mtim}) < 0)
        result = -errno;
    if (result == DONE && (fstat(fd, &made) < 0 || made.st_dev != ex->device) && fsync(fd) < 0)
        result = -errno; /* settle() does not sync another file system */
    close(fd);
    if (result != DONE)
        disk_remove_copy(ex->disk, path);
    return result;
}

/* Copy @path of the store, open as @description, unless the disk has the same. */
static int copy_open(struct export *ex, struct group *group, const char *path, int description)
{
    struct file *file = &group->file[group->files];
    struct stat st, there;
    int result = fastspool_fstat(ex->fs, description, &st);

    if (result == 0)
        result = each_parent(ex, path, make_on_disk);
    if (result < 0)
        return result;
    int fd = disk_open(ex->disk, path, O_RDONLY, &there);
    if (fd >= 0) {
        result = same(ex, description, fd, &st, &there);
        close(fd);
    } else {
        result = fd == -ENOENT ? copy(ex, path, description, &st) : CONFLICT;
    }
    if (result != DONE)
        return result;
    *file = (struct file){strdup(path), (uint64_t)st.st_size, clock_nanoseconds(&st.st_mtim), fd == -ENOENT, false};
    if (!file->path)
        return -ENOMEM;
    group->files++;
    ex->bytes += file->size;
    return DONE;
}

/* A file that isn't there is no failure. */
static int copy_file(struct export *ex, struct group *group, const char *path)
{
    for (size_t i = 0; i < group->files; i++) {
        if (strcmp(group->file[i].path, path) == 0)
            return DONE;
    }
    int description = fastspool_open(ex->fs, path, O_RDONLY, 0);
    if (description < 0)
        return description == -ENOENT ? DONE : description;
    int result = copy_open(ex, group, path, description);
    fastspool_close(ex->fs, description);
    return result;
}

/* ---- groups ---- */

/* The files of a group are no longer part of the batch.  The lock goes with the description. */
static void forget(struct export *ex, struct group *group)
{
    for (size_t i = 0; i < group->files; i++)
        free(group->file[i].path);
    if (group->description >= 0)
        fastspool_close(ex->fs, group->description);
    *group = (struct group){.description = -1};
}

/* All of a group is the store's again: the -H file last, and the copies are removed after that. */
static int give_back(struct export *ex, struct group *group)
{
    char in_tree[PATH_MAX];

    for (size_t i = group->files; i-- > 0;) {
        struct file *file = &group->file[i];
        tree_path(file->path, in_tree);
        int result = file->taken ? fastspool_rename(ex->fs, in_tree, file->path, RENAME_NOREPLACE) : 0;
        if (result < 0)
            return fail(ex, result, "give back", file->path);
    }
    for (size_t i = 0; i < group->files; i++) {
        if (group->file[i].copied)
            disk_remove_copy(ex->disk, group->file[i].path);
    }
    forget(ex, group);
    return 0;
}

/* Take Exim's lock of the message with -D file @data.  -EAGAIN: somebody has it, or the message is just being made. */
static int lock_message(struct export *ex, const char *data)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    uint64_t opened = 0, named = 1;
    struct stat st;
    int description = fastspool_open(ex->fs, data, O_RDWR, 0);

    if (description < 0)
        return description;
    int result = fastspool_lock(ex->fs, description, F_SETLK, &whole);
    if (result == -EACCES)
        result = -EAGAIN;
    if (result == 0)
        result = fastspool_lookup(ex->fs, data, &named, &st);
    if (result == 0)
        result = fastspool_flookup(ex->fs, description, &opened, &st);
    if (result == 0 && (opened != named || (st.st_size == 0 && time(NULL) - st.st_mtime < BEING_MADE)))
        result = -EAGAIN;
    if (result < 0)
        fastspool_close(ex->fs, description);
    return result < 0 ? result : description;
}

/* Copy the files of the message with -D file @data, and @path, which may be one of them or belong to none. */
static int copy_group(struct export *ex, struct group *group, const char *data, const char *path)
{
    char member[PATH_MAX];
    int result = DONE;

    for (unsigned n = 0; result == DONE && group->message && exim_member(data, n, member); n++) {
        bool open = group->description >= 0 && strcmp(member, data) == 0;
        result = open ? copy_open(ex, group, member, group->description) : copy_file(ex, group, member);
    }
    if (result != DONE || group->message)
        return result == DONE ? copy_file(ex, group, path) : result;
    return copy_open(ex, group, path, group->description);
}

/* ---- the steps ---- */

static bool in_one_directory(const char *one, const char *other)
{
    size_t length = (size_t)(strrchr(one, '/') - one) + 1;

    return strncmp(one, other, length) == 0 && !strchr(other + length, '/');
}

/* Make durable what was done to the names of the batch.  Its messages come a directory at a time. */
static int sync_names(struct export *ex)
{
    for (size_t i = 0; i < ex->groups; i++) {
        const struct group *group = &ex->group[i], *before = i ? group - 1 : NULL;
        for (size_t k = 0; k < group->files; k++) {
            const char *path = group->file[k].path;
            if ((k && in_one_directory(path, group->file[k - 1].path)) ||
                (before && k < before->files && in_one_directory(path, before->file[k].path)))
                continue;
            int result = disk_sync_around(ex->disk, path);
            if (result < 0 && result != -ENOENT) /* a killed export's message is delivered, and its directory gone */
                return fail(ex, result, "sync", path);
        }
    }
    return 0;
}

/* Make the copies of the batch durable. */
static int settle(struct export *ex)
{
    int result = syncfs(ex->disk) < 0 ? -errno : 0;

    return result < 0 ? fail(ex, result, "sync", *ex->to == '/' ? ex->to : inside_spool(ex->fs)) : sync_names(ex);
}

/* Step 2 of a group, up to the flush.  What was removed since its copy was made is not exported. */
static int take(struct export *ex, struct group *group, bool *changed)
{
    char in_tree[PATH_MAX];
    struct stat st;

    for (size_t i = 0; i < group->files; i++) {
        struct file *file = &group->file[i];
        tree_path(file->path, in_tree);
        int result = each_parent(ex, in_tree, make_in_store);
        if (result == 0)
            result = fastspool_rename(ex->fs, file->path, in_tree, 0);
        file->taken = result == 0;
        if (result == 0)
            result = fastspool_stat(ex->fs, in_tree, &st);
        if (result == -ENOENT ||
            (result == 0 && ((uint64_t)st.st_size != file->size || clock_nanoseconds(&st.st_mtim) != file->mtime)))
            *changed = true;
        else if (result < 0)
            return fail(ex, result, "take", file->path);
    }
    return 0;
}

/* Does nobody else have the group's -D file open, or its single file?  No process can open it any more. */
static bool is_alone(const struct export *ex, const struct group *group, uint64_t until)
{
    if (group->description < 0)
        return true;
    while (!inside_is_alone(ex->fs, (uint32_t)group->description)) {
        if (clock_monotonic() >= until)
            return false;
        clock_sleep(10 * NS_PER_MS);
    }
    return true;
}

static int decide(struct export *ex)
{
    uint64_t until = clock_monotonic() + PATIENCE;
    int result = settle(ex);

    for (size_t i = 0; i < ex->groups && result == 0; i++) {
        bool changed = false;
        result = take(ex, &ex->group[i], &changed);
        if (result == 0 && (changed || !is_alone(ex, &ex->group[i], until))) {
            ex->result->locked += ex->group[i].message;
            result = give_back(ex, &ex->group[i]);
        }
    }
    return result < 0 ? result : flush(ex);
}

/* Give the copies their names: those of -H files, or all others. */
static int show(struct export *ex, bool headers)
{
    char to[PATH_MAX];
    int result = 0;

    for (size_t i = 0; i < ex->groups; i++) {
        const struct group *group = &ex->group[i];
        for (size_t k = 0; k < group->files && result == 0; k++) {
            const char *path = group->file[k].path, *name = strrchr(path, '/') + 1;
            if (exim_shows(name) != headers)
                continue;
            result = disk_show_copy(ex->disk, path);
            if (result == -EEXIST) { /* it has come since the copy was made */
                snprintf(to, sizeof(to), "%s" PLACES_EXPORT, name);
                tell(ex, path, "another file has come in the way: this one has the suffix " PLACES_EXPORT);
                result = disk_show_copy_as(ex->disk, path, to);
            }
            if (result < 0 && result != -ENOENT)
                return fail(ex, result, "make", path);
            result = 0;
        }
    }
    return sync_names(ex);
}

static int remove_group(struct export *ex, struct group *group)
{
    char in_tree[PATH_MAX];

    for (size_t i = group->files; i-- > 0;) {
        tree_path(group->file[i].path, in_tree);
        int result = fastspool_unlink(ex->fs, in_tree);
        if (result < 0 && result != -ENOENT)
            return fail(ex, result, "remove", in_tree);
        ex->result->files++;
    }
    ex->result->messages += group->message && group->description >= 0;
    forget(ex, group);
    return 0;
}

/* Steps 3 and 4, of what is decided durably. */
static int finish(struct export *ex)
{
    int result = show(ex, false);

    if (result == 0)
        result = show(ex, true);
    for (size_t i = 0; i < ex->groups && result == 0; i++)
        result = remove_group(ex, &ex->group[i]);
    return result;
}

/* Steps 2 to 4 of the batch.  @decided: it is what a killed export has left in the tree. */
static int commit(struct export *ex, bool decided)
{
    if (ex->groups == 0)
        return 0;
    int result = decided ? flush(ex) : decide(ex);
    if (result < 0 && !decided) {
        char why[FASTSPOOL_ERROR_MAX];
        memcpy(why, ex->result->error, sizeof(why));
        for (size_t i = 0; i < ex->groups; i++)
            give_back(ex, &ex->group[i]); /* what can't be goes on as a killed export's */
        memcpy(ex->result->error, why, sizeof(why));
    }
    if (result == 0)
        result = finish(ex);
    for (size_t i = 0; i < ex->groups; i++)
        forget(ex, &ex->group[i]);
    ex->groups = 0;
    ex->bytes = 0;
    if (result == 0 && ex->result->progress)
        ex->result->progress(ex->result);
    return result;
}

/* ---- the store's files ---- */

/* The group that @path belongs to.  @data: the path of its -D file; "": it belongs to no message. */
static int export_group(struct export *ex, const char *path, const char *data, bool locked)
{
    struct group *group = &ex->group[ex->groups];

    *group = (struct group){.description = -1, .message = *data};
    if (locked)
        group->description = lock_message(ex, data);
    else if (!*data)
        group->description = fastspool_open(ex->fs, path, O_RDONLY, 0);
    if (group->description == -EAGAIN) {
        ex->result->locked++;
        return 0;
    }
    if (group->description < 0 && (locked || !*data))
        return group->description == -ENOENT ? 0 : fail(ex, group->description, "open", path);
    ex->groups++;
    int result = copy_group(ex, group, data, path);
    if (result == DONE && group->files > 0)
        return ex->groups == BATCH || ex->bytes >= BATCH_BYTES ? commit(ex, false) : 0;
    ex->groups--;
    ex->result->locked += result == CHANGED;
    ex->result->conflicts += result == CONFLICT;
    ex->result->left += result == LEFT;
    if (result == CONFLICT)
        tell(ex, path, "the disk has another file of that name");
    if (result == LEFT)
        tell(ex, path, "only root can make it on the disk, or its name is too long");
    int back = give_back(ex, group);
    return result < 0 ? fail(ex, result, "copy", path) : back;
}

/* Is @path found by -D file @data? */
static bool goes_with(const char *path, const char *data)
{
    char member[PATH_MAX];

    for (unsigned n = 0; exim_member(data, n, member); n++) {
        if (strcmp(member, path) == 0)
            return true;
    }
    return false;
}

static int visit_file(struct export *ex, const char *path)
{
    char data[PATH_MAX];
    bool message = exim_family(path, data) && goes_with(data, data);
    bool whole = message && has(ex, data);

    if (!message)
        data[0] = '\0';
    if (whole && strcmp(path, data) != 0) /* it goes with the -D file, or stays with a locked one */
        return 0;
    bool waits = message && !whole;
    ex->waiting = ex->waiting || waits;
    return waits == ex->late && has(ex, path) ? export_group(ex, path, data, whole) : 0;
}

/* The disk's directory @path is as the store's: an Exim with the library has changed that one alone. */
static int dress_directory(struct export *ex, const char *path, int fd)
{
    struct stat st;
    int result = fastspool_stat(ex->fs, path, &st);

    if (result == 0)
        result = disk_dress(fd, &st);
    return result == -EPERM ? 0 : result; /* this is not root */
}

/* The disk's directory @path: no copy of a killed export stays, and the import has left nothing half done. */
static int clean_directory(struct export *ex, const char *path)
{
    struct stat st;
    const struct dirent *entry;
    int result = make_on_disk(ex, path);
    int fd = result < 0 ? result : disk_open(ex->disk, path, O_RDONLY | O_DIRECTORY, &st);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (!directory) {
        if (fd >= 0)
            close(fd);
        return fail(ex, fd < 0 ? fd : -errno, "open", path);
    }
    result = dress_directory(ex, path, fd);
    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        if (strncmp(entry->d_name, PLACES_COPIED, strlen(PLACES_COPIED)) == 0)
            result = unlinkat(fd, entry->d_name, 0) < 0 ? -errno : 0;
        else if (strncmp(entry->d_name, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0 && strcmp(ex->to, OWN) == 0)
            result = -EUCLEAN;
    }
    if (result == 0 && errno != 0)
        result = -errno;
    closedir(directory);
    if (result == -EUCLEAN)
        return error_set(ex->result->error, result,
                         "an import from %s was interrupted: run `fastspool import` first, which goes on with it",
                         path);
    return result < 0 ? fail(ex, result, "clean", path) : 0;
}

/* Visit each file of @root below @path.  Directories of the store are made on the disk; those of the tree are removed
 * when they are empty. */
static int each_file(struct export *ex, const char *root, const char *path, visitor *visit)
{
    struct fastspool_entry entries[32];
    char directory[PATH_MAX], below[PATH_MAX];
    bool tree = *root, more = true;
    uint64_t after = 0;
    ssize_t count = 0;
    int depth = 0, result = 0;

    for (const char *c = path; *c; c++)
        depth += *c == '/';
    snprintf(directory, sizeof(directory), "%s%s%s", root, tree && *path ? "/" : "", path);
    int description = fastspool_open(ex->fs, directory, O_RDONLY | O_DIRECTORY, 0);
    if (description < 0)
        return description == -ENOENT ? 0 : fail(ex, description, "list", directory);
    if (depth > DEEPEST)
        result = fail(ex, -ELOOP, "list", directory);
    if (result == 0 && !tree && *path && (result = commit(ex, false)) == 0) /* its copies are not to be cleaned away */
        result = clean_directory(ex, path);
    while (result == 0 && more && (count = fastspool_list(ex->fs, description, after, entries, 32)) > 0) {
        after = entries[count - 1].position;
        for (ssize_t i = 0; i < count && result == 0; i++) {
            more = tree || entries[i].position <= ex->end;
            if (!more || (!tree && !*path && entries[i].name[0] == '.'))
                continue;
            snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name);
            result = entries[i].type == DT_DIR ? each_file(ex, root, below, visit) : visit(ex, below);
        }
    }
    fastspool_close(ex->fs, description);
    if (tree && result == 0)
        fastspool_rmdir(ex->fs, directory);
    return result < 0 ? result : count < 0 ? fail(ex, (int)count, "list", directory) : 0;
}

/* ---- what a killed export has left ---- */

/* A file of a message in the tree: in the tree, or still in its place, with a copy on the disk. */
static int gather(struct export *ex, struct group *group, const char *path)
{
    char in_tree[PATH_MAX];
    struct file *file = &group->file[group->files];

    tree_path(path, in_tree);
    if (!has(ex, in_tree) && disk_has_copy(ex->disk, path)) {
        int result = each_parent(ex, in_tree, make_in_store);
        if (result == 0)
            result = fastspool_rename(ex->fs, path, in_tree, 0);
        if (result < 0 && result != -ENOENT)
            return fail(ex, result, "take", path);
    }
    if (!has(ex, in_tree))
        return 0;
    *file = (struct file){.path = strdup(path), .copied = true, .taken = true};
    if (!file->path)
        return -ENOMEM;
    group->files++;
    return 0;
}

static int visit_left(struct export *ex, const char *path)
{
    char data[PATH_MAX], in_tree[PATH_MAX], member[PATH_MAX];
    struct group *group = &ex->group[ex->groups];
    bool message = exim_family(path, data) && goes_with(path, data);
    int result = 0;

    for (size_t i = 0; i < ex->groups; i++) {
        for (size_t k = 0; k < ex->group[i].files; k++) {
            if (strcmp(ex->group[i].file[k].path, path) == 0)
                return 0;
        }
    }
    *group = (struct group){.description = -1, .message = message};
    for (unsigned n = 0; message && result == 0 && exim_member(data, n, member); n++)
        result = gather(ex, group, member);
    if (!message)
        result = gather(ex, group, path);
    if (result < 0)
        return result;
    tree_path(message ? data : path, in_tree);
    if (has(ex, in_tree))
        group->description = message ? lock_message(ex, in_tree) : fastspool_open(ex->fs, in_tree, O_RDONLY, 0);
    ex->groups++;
    if (group->description < -1 || !is_alone(ex, group, clock_monotonic() + PATIENCE))
        result = error_set(ex->result->error, -EBUSY,
                           "a process keeps %s open, which an interrupted export had begun to move: run the export "
                           "again when that process has ended",
                           data);
    return result < 0 ? result : ex->groups == BATCH ? commit(ex, true) : 0;
}

static int finish_left(struct export *ex)
{
    int result = each_file(ex, TREE, "", visit_left);

    if (result < 0) {
        while (ex->groups > 0)
            forget(ex, &ex->group[--ex->groups]);
        return result;
    }
    result = commit(ex, true);
    return result < 0 ? result : each_file(ex, TREE, "", visit_left); /* the directories */
}

/* ---- begin and end ---- */

/* Open and lock the file that says where the tree belongs.  Its description; -EXDEV: another spool's. */
static int begin(struct export *ex)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char before[FASTSPOOL_PATH_MAX] = "";
    int result = make_in_store(ex, PLACES_EXPORT);
    int target = result < 0 ? result : fastspool_open(ex->fs, TARGET, O_RDWR | O_CREAT, 0600);

    if (target < 0)
        return fail(ex, target, "make", TARGET);
    result = fastspool_lock(ex->fs, target, F_SETLK, &whole);
    if (result == -EAGAIN || result == -EACCES)
        result = error_set(ex->result->error, -EBUSY, "another export of %s runs", inside_spool(ex->fs));
    else if (result == 0 && fastspool_pread(ex->fs, target, before, sizeof(before) - 1, 0) < 0)
        result = fail(ex, -EIO, "read", TARGET);
    if (result == 0 && *before && strcmp(before, ex->to) != 0 && has(ex, TREE))
        result = error_set(
            ex->result->error, -EXDEV, "an export to %s was interrupted: finish it first, with `fastspool export %s`",
            strcmp(before, OWN) == 0 ? "the spool's own directory" : before, strcmp(before, OWN) == 0 ? "" : before);
    if (result == 0 && strcmp(before, ex->to) != 0) {
        result = fastspool_ftruncate(ex->fs, target, 0);
        if (result == 0)
            result = (int)fastspool_pwrite(ex->fs, target, ex->to, strlen(ex->to), 0);
        result = result < 0 ? fail(ex, result, "write", TARGET) : 0;
    }
    if (result < 0)
        fastspool_close(ex->fs, target);
    return result < 0 ? result : target;
}

/* @whole: not only what a killed one has left. */
static int run(struct export *ex, bool whole)
{
    struct fastspool_status status;
    int target = begin(ex);
    int result = target < 0 ? target : finish_left(ex);

    if (result == 0 && whole && has(ex, PLACES_IMPORT))
        result = error_set(ex->result->error, -EUCLEAN,
                           "an import was interrupted: run `fastspool import` first, which goes on with it");
    if (fastspool_status(ex->fs, &status) == 0)
        ex->result->total = status.files;
    uint64_t since = clock_precise();
    for (int late = 0; late < 2 && result == 0 && whole && (!late || ex->waiting); late++) {
        uint64_t gone = clock_precise() - since;
        if (late && gone < SETTLED)
            clock_sleep(SETTLED - gone);
        ex->late = late;
        result = each_file(ex, "", "", visit_file);
        int last = commit(ex, false);
        result = result < 0 ? result : last;
    }
    if (result == 0)
        result = finish_left(ex);
    if (target >= 0 && !has(ex, TREE))
        fastspool_unlink(ex->fs, TARGET);
    if (target >= 0)
        fastspool_close(ex->fs, target);
    fastspool_rmdir(ex->fs, PLACES_EXPORT);
    return result < 0 ? result : flush(ex);
}

static int export(struct fastspool *fs, int directory, const char *to, struct export_result *result, bool whole)
{
    struct export *ex = calloc(1, sizeof(*ex));
    struct stat st = {0};

    result->error[0] = '\0';
    if (!ex || fstat(directory, &st) < 0) {
        free(ex);
        return error_set(result->error, -ENOMEM, "no memory for an export");
    }
    ex->fs = fs;
    ex->disk = directory;
    ex->device = st.st_dev;
    ex->to = to ? to : OWN;
    ex->result = result;
    fastspool_act_for(&server);
    ex->end = fastspool_list_end(fs);
    int code = run(ex, whole);
    fastspool_act_for(NULL);
    free(ex);
    return code;
}

int export_run(struct fastspool *fs, int directory, const char *to, struct export_result *result)
{
    return export(fs, directory, to, result, true);
}

int export_finish(struct fastspool *fs, int directory, struct export_result *result)
{
    struct stat st;

    if (fastspool_stat(fs, TREE, &st) < 0)
        return 0;
    int code = export(fs, directory, NULL, result, false);
    return code == -EXDEV ? 0 : code; /* another spool's: it stays in the tree */
}

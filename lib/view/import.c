/* SPDX-License-Identifier: MIT
 *
 * Import.  A message is moved once, whenever a process is killed or the power fails.  So at each instant one of disk
 * and store alone has it under a name that Exim finds:
 *
 *   1. stage     Exim's lock on the disk's -D file; all files are copied to .import/new in the store, and flushed
 *   2. take      on the disk the -H file gets a name that Exim doesn't know
 *   3. decide    .import/new becomes .import/taken, and that is flushed.  The store has the message from here on
 *   4. publish   the files get their names in the store, -H files last
 *   5. remove    the disk's files, the -H file last
 *
 * A batch of messages goes through this at a time, because a flush is a commit.  A pass begins with what a killed one
 * has left: .import/taken is published; from .import/new the disk's -H files get their names back, and it is removed.
 * An -H file with the other name that neither tree knows belongs to a message that was published: its files are
 * removed.
 *
 * What belongs to no message needs no lock and no other name.  It is copied, and removed where the store has the same
 * content.  Files of a message without a -D file wait for the end of the pass, because an Exim that has delivered it
 * may just be removing them.  Hard links are kept, but become copies if the process dies between two of their names.
 *
 * Failure modes: a file that changes while it is read stays, with its message, as one that is locked.  A file that the
 * store has with another content stays, with its message.  The store is full, or a commit fails: the batch goes back to
 * the disk, and the pass ends.
 */
#include "view/import.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "spool/exim.h"
#include "view/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>
#include <uthash.h>

#define NEW           PLACES_IMPORT "/new"
#define TAKEN         PLACES_IMPORT "/taken"
#define BATCH         128 /* messages: each has a descriptor, and not all have 1,024 */
#define BATCH_BYTES   (UINT64_C(8) << 20)
#define PIECE         (64 << 10)
#define FLUSH_TIMEOUT (60 * NS_PER_S)
#define SETTLED       NS_PER_S /* no Exim takes so long between its unlinks of one message */

/* A file that the scan has found, with the -D file of its message or itself: where in `text` their paths begin. */
struct found {
    size_t path, key;
};

/* A group is a message, or a file that belongs to none. */
struct group {
    const char *key;
    size_t first; /* of its files in `moved` */
    int lock;     /* -1: none */
    bool message;
    bool shown; /* the disk has its -H file */
    bool taken; /* which has its other name, or shall have it */
};

struct moved {
    char *path;
    uint64_t size;
    bool staged; /* or in the store before */
};

struct file_id {
    dev_t device;
    ino_t inode;
};

struct linked { /* a file with several names; size and time, because an inode's number may come to mean another file */
    struct file_id id;
    off_t size;
    uint64_t mtime;
    uint64_t batch; /* in which it was staged under the name `path` */
    UT_hash_handle hh;
    char path[];
};

struct import {
    struct fastspool *fs;
    int disk;
    struct import_result *result;
    uint32_t lines;
    char *text;
    size_t text_size, text_room;
    struct found *found;
    size_t found_count, found_room;
    struct group group[BATCH];
    size_t groups;
    struct moved *moved;
    size_t moved_count, moved_room;
    uint64_t batch, bytes; /* its number and size */
    struct linked *linked;
    char piece[PIECE], other[PIECE];
};

static const struct fastspool_client server; /* uid 0: whom the store asks for no permission */

static int fail(struct import *im, int code, const char *what, const char *path)
{
    char shown[FASTSPOOL_PATH_MAX];

    return error_set(im->result->error, code, "%s %s: %s", what, escape_bytes(shown, sizeof(shown), path, strlen(path)),
                     strerrordesc_np(-code));
}

/* What has to stay: a line, but not in each pass again. */
static void tell(struct import *im, const char *path, const char *why)
{
    char shown[FASTSPOOL_PATH_MAX];

    if (++im->lines <= im->result->told)
        return;
    im->result->told = im->lines;
    syslog(LOG_MAIL | LOG_WARNING, "fastspool: import: %s stays on the disk: %s",
           escape_bytes(shown, sizeof(shown), path, strlen(path)), why);
}

/* Room for one more entry of @size bytes in *@array. */
static int grow(void *array, size_t count, size_t *room, size_t size)
{
    void *old, *larger;

    if (count < *room)
        return 0;
    memcpy(&old, array, sizeof(old));
    if (!(larger = realloc(old, (*room * 2 + 64) * size)))
        return -ENOMEM;
    memcpy(array, &larger, sizeof(larger));
    *room = *room * 2 + 64;
    return 0;
}

/* ---- the scan ---- */

/* A copy of @path in `text`; its offset. */
static int keep(struct import *im, const char *path, size_t *offset)
{
    for (*offset = im->text_size;; path++) {
        if (grow(&im->text, im->text_size, &im->text_room, 1) < 0)
            return -ENOMEM;
        if ((im->text[im->text_size++] = *path) == '\0')
            return 0;
    }
}

static int add_found(struct import *im, const char *path)
{
    char plain[PATH_MAX], key[PATH_MAX];
    const char *name = strrchr(path, '/') + 1;
    struct found found;
    int result = grow(&im->found, im->found_count, &im->found_room, sizeof(found));

    snprintf(plain, sizeof(plain), "%s", path);
    if (strncmp(name, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0)
        snprintf(plain + (name - path), sizeof(plain) - (size_t)(name - path), "%s", name + strlen(PLACES_TAKEN));
    if (result == 0)
        result = keep(im, path, &found.path);
    found.key = found.path;
    if (result == 0 && exim_family(plain, key) && strcmp(key, path) != 0)
        result = keep(im, key, &found.key);
    if (result == 0)
        im->found[im->found_count++] = found;
    return result;
}

/* The directory @path in the store, as it is on the disk. */
static int make_directory(struct import *im, const char *path, const struct stat *st)
{
    int result = fastspool_mkdir(im->fs, path, st->st_mode & 07777);

    if (result == 0)
        result = fastspool_chown(im->fs, path, st->st_uid, st->st_gid);
    if (result == 0)
        result = fastspool_chmod(im->fs, path, st->st_mode & 07777);
    return result == -EEXIST ? 0 : result < 0 ? fail(im, result, "make", path) : 0;
}

typedef int visitor(struct import *im, const char *path, int type);

/* Visit each entry of the disk's directory @path. */
static int each_entry(struct import *im, const char *path, int fd, visitor *visit)
{
    DIR *directory = fdopendir(fd);
    const struct dirent *entry;
    struct stat st;
    int result = 0;

    if (!directory) {
        close(fd);
        return fail(im, -errno, "list", path);
    }
    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        char below[PATH_MAX];
        int type = entry->d_type;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (type == DT_UNKNOWN && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            type = (int)IFTODT(st.st_mode);
        snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entry->d_name);
        result = visit(im, below, type);
    }
    if (result == 0 && errno != 0)
        result = fail(im, -errno, "list", path);
    closedir(directory);
    return result;
}

static int leave(struct import *im, const char *path, const char *why)
{
    im->result->left++;
    tell(im, path, why);
    return 0;
}

static int scan_file(struct import *im, const char *path, int type)
{
    if (type == DT_REG)
        return add_found(im, path) < 0 ? fail(im, -ENOMEM, "scan", path) : 0;
    return leave(im, path, type == DT_DIR ? "a directory, deeper than Exim's" : "no regular file");
}

static int scan_directory(struct import *im, const char *path, visitor *visit)
{
    struct stat st;
    int fd = disk_open(im->disk, path, O_RDONLY | O_DIRECTORY, &st), result;

    if (fd < 0)
        return fd == -ENOENT ? 0 : leave(im, path, strerrordesc_np(-fd));
    if ((result = make_directory(im, path, &st)) == 0)
        return each_entry(im, path, fd, visit);
    close(fd);
    return result;
}

static int scan_split(struct import *im, const char *path, int type)
{
    return type == DT_DIR ? scan_directory(im, path, scan_file) : scan_file(im, path, type);
}

static bool is_top(const char *path)
{
    return exim_is_top(path) && exim_policy(path) == EXIM_STORE;
}

static int scan_of_queue(struct import *im, const char *path, int type)
{
    char queue[PATH_MAX];
    struct stat st;

    (void)type;
    if (!is_top(path))
        return 0;
    snprintf(queue, sizeof(queue), "%.*s", (int)(strrchr(path, '/') - path), path);
    int fd = disk_open(im->disk, queue, O_PATH, &st), result;
    if (fd < 0)
        return 0;
    close(fd);
    result = make_directory(im, queue, &st);
    return result < 0 ? result : scan_directory(im, path, scan_split);
}

static int scan_top(struct import *im, const char *path, int type)
{
    struct stat st;

    if (is_top(path))
        return scan_directory(im, path, scan_split);
    int fd = type == DT_DIR && path[0] != '.' ? disk_open(im->disk, path, O_RDONLY | O_DIRECTORY, &st) : -1;
    return fd < 0 ? 0 : each_entry(im, path, fd, scan_of_queue);
}

static int compare(const void *a, const void *b, void *text)
{
    const struct found *x = a, *y = b;
    const char *paths = text;
    int order = strcmp(paths + x->key, paths + y->key);

    return order ? order : strcmp(paths + x->path, paths + y->path);
}

static int scan(struct import *im)
{
    struct stat st;
    int fd = disk_open(im->disk, ".", O_RDONLY | O_DIRECTORY, &st);
    int result = fd < 0 ? fail(im, fd, "open", ".") : each_entry(im, "", fd, scan_top);

    if (result == 0 && im->found_count > 0)
        qsort_r(im->found, im->found_count, sizeof(*im->found), compare, im->text);
    return result;
}

/* ---- the trees in the store ---- */

static void staged_path(const char *root, const char *path, char staged[PATH_MAX])
{
    snprintf(staged, PATH_MAX, "%s/%s", root, path);
}

/* The directories above @path. */
static void make_parents(struct import *im, const char *path, mode_t mode)
{
    char parent[PATH_MAX];

    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
        struct fastspool_client owner = {geteuid(), getegid(), NULL};
        fastspool_act_for(&owner);
        fastspool_mkdir(im->fs, parent, mode);
    }
    fastspool_act_for(&server);
}

/* Visit each file of the tree @root below @path, and remove the directories that are empty then. */
static int each_staged(struct import *im, const char *root, const char *path, visitor *visit)
{
    struct fastspool_entry entries[32];
    char directory[PATH_MAX], below[PATH_MAX];
    uint64_t after = 0;
    ssize_t count = 0;

    snprintf(directory, sizeof(directory), "%s%s%s", root, *path ? "/" : "", path);
    int description = fastspool_open(im->fs, directory, O_RDONLY | O_DIRECTORY, 0), result = 0;
    if (description < 0)
        return description == -ENOENT ? 0 : fail(im, description, "list", directory);
    while (result == 0 && (count = fastspool_list(im->fs, description, after, entries, 32)) > 0) {
        after = entries[count - 1].position;
        for (ssize_t i = 0; i < count && result == 0; i++) {
            snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name);
            result = entries[i].type == DT_DIR ? each_staged(im, root, below, visit) : visit(im, below, DT_REG);
        }
    }
    fastspool_close(im->fs, description);
    fastspool_rmdir(im->fs, directory);
    return result < 0 ? result : count < 0 ? fail(im, (int)count, "list", directory) : 0;
}

static int flush(struct import *im)
{
    int result = fastspool_flush(im->fs, FLUSH_TIMEOUT);

    return result < 0 ? fail(im, result, "flush", PLACES_IMPORT) : 0;
}

/* ---- back to the disk ---- */

static int give_back(struct import *im, const char *path, int type)
{
    int result = exim_shows(strrchr(path, '/') + 1) ? disk_give_back(im->disk, path) : -ENOENT;

    (void)type;
    if (result == 0)
        result = disk_sync_around(im->disk, path);
    return result == -ENOENT ? 0 : result < 0 ? fail(im, result, "give back", path) : 0;
}

static int remove_staged(struct import *im, const char *path, int type)
{
    char staged[PATH_MAX];

    (void)type;
    staged_path(NEW, path, staged);
    int result = fastspool_unlink(im->fs, staged);
    return result < 0 ? fail(im, result, "remove", staged) : 0;
}

static int roll_back(struct import *im)
{
    int result = each_staged(im, NEW, "", give_back);

    return result < 0 ? result : each_staged(im, NEW, "", remove_staged);
}

/* ---- publish ---- */

static int publish(struct import *im, const char *path, int type)
{
    char staged[PATH_MAX], to[PATH_MAX];

    (void)type;
    staged_path(TAKEN, path, staged);
    int result = fastspool_rename(im->fs, staged, path, RENAME_NOREPLACE);
    if (result == -ENOENT) { /* an empty directory of a split spool: Exim has removed it */
        make_parents(im, path, 0750);
        result = fastspool_rename(im->fs, staged, path, RENAME_NOREPLACE);
    }
    if (result == -EEXIST) { /* has come since the staging */
        snprintf(to, sizeof(to), "%s" PLACES_IMPORT, path);
        syslog(LOG_MAIL | LOG_WARNING, "fastspool: import: a file has come in the way; the disk's is %s", to);
        result = fastspool_rename(im->fs, staged, to, 0);
    }
    return result < 0 ? fail(im, result, "publish", path) : 0;
}

static int publish_hidden(struct import *im, const char *path, int type)
{
    return exim_shows(strrchr(path, '/') + 1) ? 0 : publish(im, path, type);
}

static int publish_all(struct import *im)
{
    int result = each_staged(im, TAKEN, "", publish_hidden);

    return result < 0 ? result : each_staged(im, TAKEN, "", publish);
}

/* What a killed pass has left. */
static int recover(struct import *im)
{
    struct stat st;
    int result = 0;

    if (fastspool_stat(im->fs, TAKEN, &st) == 0 && (result = flush(im)) == 0)
        result = publish_all(im);
    return result < 0 ? result : roll_back(im);
}

/* ---- stage ---- */

/* What became of a file; a negative errno is the store's. */
enum outcome { DONE, CONFLICT, CHANGED, UNREADABLE };

static ssize_t read_piece(int fd, void *to)
{
    size_t got = 0;

    while (got < PIECE) {
        ssize_t part = read(fd, (char *)to + got, PIECE - got);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return -1;
        if (part == 0)
            break;
        got += (size_t)part;
    }
    return (ssize_t)got;
}

/* Has the store the same content under @path? */
static int same(struct import *im, const char *path, int fd, const struct stat *st, const struct stat *there)
{
    int result = DONE, description;
    ssize_t size = 1;

    if (!S_ISREG(there->st_mode) || there->st_size != st->st_size)
        return CONFLICT;
    if ((description = fastspool_open(im->fs, path, O_RDONLY, 0)) < 0)
        return description;
    for (off_t at = 0; result == DONE && size > 0; at += size) {
        if ((size = read_piece(fd, im->piece)) < 0)
            result = UNREADABLE;
        else if (fastspool_pread(im->fs, description, im->other, PIECE, at) != size ||
                 memcmp(im->piece, im->other, (size_t)size) != 0)
            result = CONFLICT;
    }
    fastspool_close(im->fs, description);
    return result;
}

static int copy_bytes(struct import *im, int description, int fd, const struct stat *st)
{
    for (off_t left = st->st_size;;) {
        ssize_t size = read_piece(fd, im->piece);
        if (size < 0)
            return UNREADABLE;
        if (size > left || (size < PIECE && size < left))
            return CHANGED;
        for (ssize_t done = 0; done < size;) {
            ssize_t part = fastspool_write(im->fs, description, im->piece + done, (size_t)(size - done));
            if (part < 0)
                return (int)part;
            done += part;
        }
        left -= size;
        if (size < PIECE)
            return DONE;
    }
}

static int copy(struct import *im, const char *staged, int fd, const struct stat *st)
{
    const struct fastspool_client owner = {st->st_uid, st->st_gid, NULL};
    struct stat now;

    int description = -ENOENT;
    for (int attempt = 0; description == -ENOENT && attempt < 2; attempt++) {
        if (attempt)
            make_parents(im, staged, 0700);
        fastspool_act_for(&owner);
        description = fastspool_open(im->fs, staged, O_WRONLY | O_CREAT | O_EXCL, st->st_mode & 07777);
    }
    if (description < 0)
        return description;
    int result = copy_bytes(im, description, fd, st);
    if (result == DONE)
        result = fastspool_fchmod(im->fs, description, st->st_mode & 07777);
    if (result == DONE)
        result = fastspool_futimens(im->fs, description, (struct timespec[]){st->st_atim, st->st_mtim});
    fastspool_close(im->fs, description);
    if (result == DONE && (fstat(fd, &now) < 0 || now.st_size != st->st_size ||
                           clock_nanoseconds(&now.st_mtim) != clock_nanoseconds(&st->st_mtim)))
        result = CHANGED;
    if (result != DONE)
        fastspool_unlink(im->fs, staged);
    return result;
}

/* Perhaps the store has the disk's file already, under another name.  True: now under this one, too. */
static bool link_known(struct import *im, const char *path, const char *staged, const struct stat *st)
{
    const struct file_id id = {st->st_dev, st->st_ino};
    struct linked *linked, *file;
    char from[PATH_MAX];
    bool done = false;

    HASH_FIND(hh, im->linked, &id, sizeof(id), linked);
    if (linked) {
        snprintf(from, sizeof(from), "%s%s", linked->batch == im->batch ? NEW "/" : "", linked->path);
        make_parents(im, staged, 0700);
        done = linked->size == st->st_size && linked->mtime == clock_nanoseconds(&st->st_mtim) &&
               fastspool_link(im->fs, from, staged) == 0;
        HASH_DEL(im->linked, linked);
        free(linked);
    }
    if (st->st_nlink < 2 || !(file = calloc(1, sizeof(*file) + strlen(path) + 1)))
        return done;
    file->id = id;
    file->size = st->st_size;
    file->mtime = clock_nanoseconds(&st->st_mtim);
    file->batch = im->batch;
    memcpy(file->path, path, strlen(path) + 1);
    HASH_ADD(hh, im->linked, id, sizeof(file->id), file);
    return done;
}

/* Stage the disk's file @path, if it is there. */
static int stage(struct import *im, const struct group *group, const char *path)
{
    char staged[PATH_MAX];
    struct stat st, there;

    for (size_t i = group->first; i < im->moved_count; i++) {
        if (strcmp(im->moved[i].path, path) == 0)
            return DONE;
    }
    int fd = disk_open(im->disk, path, O_RDONLY, &st);
    if (fd < 0)
        return fd == -ENOENT ? DONE : UNREADABLE;
    staged_path(NEW, path, staged);
    struct moved file = {.size = (uint64_t)st.st_size};
    int result = grow(&im->moved, im->moved_count, &im->moved_room, sizeof(file));
    if (result == 0 && !S_ISREG(st.st_mode))
        result = UNREADABLE;
    else if (result == 0 && fastspool_stat(im->fs, path, &there) == 0)
        result = same(im, path, fd, &st, &there);
    else if (result == 0) {
        file.staged = true;
        if ((st.st_nlink < 2 && !im->linked) || !link_known(im, path, staged, &st))
            result = copy(im, staged, fd, &st);
    }
    fastspool_act_for(&server);
    close(fd);
    if (result == DONE && !(file.path = strdup(path)))
        result = -ENOMEM;
    if (result == DONE)
        im->moved[im->moved_count++] = file;
    return result;
}

/* Stage all files of a group: those that the scan has found, and those that have come since. */
static int stage_group(struct import *im, struct group *group, const struct found *found, size_t count)
{
    char path[PATH_MAX];
    bool staged = false;
    int result = DONE;

    for (unsigned n = 0; result == DONE && group->message && exim_member(group->key, n, path); n++) {
        result = stage(im, group, path);
        if (n == 0 && im->moved_count > group->first) {
            group->shown = true;
            group->taken = im->moved[group->first].staged;
        }
    }
    for (size_t i = 0; result == DONE && i < count; i++)
        result = stage(im, group, im->text + found[i].path);
    for (size_t i = group->first; i < im->moved_count; i++)
        staged = staged || im->moved[i].staged;
    /* The store's message is alive: it may have delivered where the disk's has not. */
    if (result == DONE && staged && group->shown && !group->taken)
        result = CONFLICT;
    return result;
}

/* ---- a batch ---- */

/* The files of the groups from @first on are no longer part of the batch. */
static void forget(struct import *im, size_t first, bool removed)
{
    size_t moved = first < im->groups ? im->group[first].first : im->moved_count;

    for (size_t i = first; i < im->groups; i++) {
        if (im->group[i].lock >= 0 && removed)
            disk_unlock_removed(im->group[i].lock);
        else if (im->group[i].lock >= 0)
            close(im->group[i].lock);
    }
    for (size_t i = moved; i < im->moved_count; i++)
        free(im->moved[i].path);
    im->moved_count = moved;
    im->groups = first;
}

/* Steps 1 to 4.  The -H files of groups that were published before have their other name already. */
static int take_batch(struct import *im)
{
    char header[PATH_MAX];
    int result = flush(im);

    for (size_t i = 0; result == 0 && i < im->groups; i++) {
        const struct group *group = &im->group[i];
        if (!group->taken || !group->shown)
            continue;
        exim_member(group->key, 0, header);
        if ((result = disk_take(im->disk, header)) < 0)
            fail(im, result, "rename", header);
    }
    for (size_t i = 0; result == 0 && i < im->groups; i++) { /* each directory once: the groups are sorted */
        const char *path = im->group[i].key, *next = i + 1 < im->groups ? im->group[i + 1].key : "";
        size_t length = (size_t)(strrchr(path, '/') - path) + 1;
        if (strncmp(path, next, length) != 0 || strchr(next + length, '/'))
            result = disk_sync_around(im->disk, path);
        if (result < 0)
            fail(im, result, "sync", path);
    }
    if (result == 0 && (result = fastspool_rename(im->fs, NEW, TAKEN, 0)) < 0)
        fail(im, result, "rename", NEW);
    if (result < 0) {
        char why[FASTSPOOL_ERROR_MAX];
        memcpy(why, im->result->error, sizeof(why));
        if (roll_back(im) == 0)
            memcpy(im->result->error, why, sizeof(why));
        return result;
    }
    return (result = flush(im)) < 0 ? result : publish_all(im);
}

static int remove_group(struct import *im, size_t i)
{
    const struct group *group = &im->group[i];
    size_t end = i + 1 < im->groups ? im->group[i + 1].first : im->moved_count;
    char header[PATH_MAX];
    int result = 0;

    for (size_t k = group->first; k < end && result == 0; k++) {
        const struct moved *file = &im->moved[k];
        if ((result = disk_unlink(im->disk, file->path)) < 0 && result != -ENOENT)
            return fail(im, result, "remove", file->path);
        im->result->files++;
        im->result->bytes += file->size;
        result = 0;
    }
    exim_member(group->key, 0, header);
    if (group->taken && (result = disk_remove_taken(im->disk, header)) < 0 && result != -ENOENT)
        return fail(im, result, "remove", header);
    im->result->messages += group->message && end > group->first;
    return 0;
}

static int commit(struct import *im)
{
    bool staged = false;
    int result = 0;

    for (size_t i = 0; i < im->moved_count; i++)
        staged = staged || im->moved[i].staged;
    if (staged)
        result = take_batch(im);
    bool removed = result == 0;
    for (size_t i = 0; i < im->groups && result == 0; i++)
        result = remove_group(im, i);
    forget(im, 0, removed);
    im->batch++;
    im->bytes = 0;
    return result;
}

/* ---- groups ---- */

static bool is_taken(const char *path)
{
    return strncmp(strrchr(path, '/') + 1, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0;
}

/* A message that a killed pass has published: its files are to be removed.  A new -H file of that name is not its own.
 */
static int note_published(struct import *im, struct group *group, const struct found *found, size_t count)
{
    group->taken = true;
    for (size_t i = 0; i < count; i++) {
        const char *path = im->text + found[i].path;
        struct moved file = {.path = NULL};
        if (is_taken(path))
            continue;
        if (exim_shows(strrchr(path, '/') + 1))
            return CONFLICT;
        if (grow(&im->moved, im->moved_count, &im->moved_room, sizeof(file)) < 0 || !(file.path = strdup(path)))
            return -ENOMEM;
        im->moved[im->moved_count++] = file;
    }
    return DONE;
}

/* The last group of the batch is not to be moved. */
static void drop_group(struct import *im)
{
    for (size_t i = im->group[im->groups - 1].first; i < im->moved_count; i++) {
        if (im->moved[i].staged)
            remove_staged(im, im->moved[i].path, DT_REG);
    }
    forget(im, im->groups - 1, false);
}

/* The lock of a message; -ENOENT: it has no -D file.  Two names of one -D file have one lock. */
static int lock_group(struct import *im, const char *key)
{
    struct stat st;
    int lock = disk_lock(im->disk, key), fd, result;

    if (lock != -EAGAIN || im->groups == 0 || (fd = disk_open(im->disk, key, O_PATH, &st)) < 0)
        return lock;
    close(fd);
    if (st.st_nlink < 2)
        return lock;
    return (result = commit(im)) < 0 ? result : disk_lock(im->disk, key);
}

static int import_group(struct import *im, const struct found *found, size_t count, bool message, bool published)
{
    const char *key = im->text + found->key;
    struct group group = {.key = key, .lock = -1, .message = message};
    int result = DONE;

    if (message && (group.lock = lock_group(im, key)) == -EAGAIN) {
        im->result->locked++;
        return 0;
    }
    if (*im->result->error)
        return group.lock;
    if (group.lock < 0 && group.lock != -ENOENT && message)
        return leave(im, key, strerrordesc_np(-group.lock));
    group.first = im->moved_count;
    im->group[im->groups++] = group;
    struct group *last = &im->group[im->groups - 1];
    result = published ? note_published(im, last, found, count) : stage_group(im, last, found, count);
    for (size_t i = last->first; i < im->moved_count; i++)
        im->bytes += im->moved[i].size;
    if (result != DONE)
        drop_group(im);
    else if (im->groups == BATCH || im->bytes >= BATCH_BYTES)
        return commit(im);
    if (result < 0)
        return fail(im, result, "copy", key);
    im->result->locked += result == CHANGED;
    im->result->conflicts += result == CONFLICT;
    if (result == CONFLICT)
        tell(im, key, "the store has another file of that name");
    return result == UNREADABLE ? leave(im, key, "can't be read") : 0;
}

/* All groups.  First those that can be locked, or need no lock, and then, if @late, messages without a -D file. */
static int import_groups(struct import *im, bool late, bool *more)
{
    char header[PATH_MAX];
    int result = 0;

    for (size_t i = 0, end; i < im->found_count && result == 0; i = end) {
        const char *key = im->text + im->found[i].key;
        bool message = exim_member(key, 0, header), data = false, published = false;
        for (end = i; end < im->found_count && strcmp(im->text + im->found[end].key, key) == 0; end++) {
            const char *path = im->text + im->found[end].path;
            data = data || strcmp(path, key) == 0;
            published = published || is_taken(path);
        }
        bool waits = message && !data && !published;
        *more = *more || waits;
        if (waits == late)
            result = import_group(im, &im->found[i], end - i, message, published);
    }
    int last = commit(im);
    return result < 0 ? result : last;
}

static int pass(struct import *im)
{
    bool more = false;
    int result = recover(im);

    if (result == 0)
        result = scan(im);
    uint64_t scanned = clock_precise();
    if (result == 0)
        result = import_groups(im, false, &more);
    uint64_t since = clock_precise() - scanned;
    if (result == 0 && more && since < SETTLED)
        clock_sleep(SETTLED - since);
    if (result == 0 && more)
        result = import_groups(im, true, &more);
    if (result == 0) /* the directories of what was not moved */
        result = each_staged(im, NEW, "", remove_staged);
    fastspool_rmdir(im->fs, PLACES_IMPORT);
    return result;
}

int import_run(struct fastspool *fs, int spool_fd, struct import_result *result)
{
    struct import *im = calloc(1, sizeof(*im));
    struct linked *linked, *next;
    uint64_t begin = clock_precise();

    if (!im)
        return error_set(result->error, -ENOMEM, "no memory for an import");
    im->fs = fs;
    im->disk = spool_fd;
    im->result = result;
    result->locked = result->conflicts = result->left = 0;
    result->error[0] = '\0';
    fastspool_act_for(&server);
    int code = pass(im);
    fastspool_act_for(NULL);
    result->told = im->lines;
    result->ns = clock_precise() - begin;
    HASH_ITER (hh, im->linked, linked, next) {
        HASH_DEL(im->linked, linked);
        free(linked);
    }
    free(im->moved);
    free(im->found);
    free(im->text);
    free(im);
    return code;
}

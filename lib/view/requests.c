/* SPDX-License-Identifier: MIT
 *
 * Requests: what the kernel asks of the view, answered from the store.
 *
 * Happy path:
 *   - The kernel's number of a node is the store's handle of the file, so the view keeps no table of nodes.
 *     FUSE_ROOT_ID is the spool.
 *   - The kernel has checked every permission against the attributes that it has just been given
 *     (default_permissions).  So each call acts for the caller (fastspool_act_for()): what it makes is the caller's,
 *     and nothing is refused twice.
 *   - The kernel keeps nothing: names and attributes are valid for no time, and reads and writes are direct I/O.  So
 *     what a process with the library has done is seen by the next call.  (mmap(2) reads through the page cache,
 *     which every open empties.)  But it may keep the attributes of handed.c's directories, which never change.
 *   - An open file is a description of the store, a directory too: so fsync of either works as with the library.
 *
 * Failure modes:
 *   - Every error is the store's, which has those of a file system.
 *   - A file that is gone is -ESTALE: the kernel makes the call by its path again, once, and pins.c sees to it that
 *     the file stays.  A directory that is gone: directories.c; a call by a name in it is -ENOENT.
 *   - An earlier server has died in Exim's fsync of a directory: removals.c.
 *   - Between the kernel's look and an open with O_CREAT, somebody makes the file: open_made().
 *   - A request waits in the store (for a commit, a page-in, memory): for ten seconds at most where a mirror lives,
 *     in a thread of its own.
 */
#include "view/requests.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/places.h"
#include "fastspool.h"
#include "store/inside.h"
#include "view/directories.h"
#include "view/handed.h"
#include "view/owners.h"
#include "view/pins.h"
#include "view/removals.h"
#include "view/shares.h"
#include "view/synced.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTED  32   /* names taken from the store at once */
#define THREADS 4096 /* most requests at once; most wait for a commit or for memory */
#define IDLE    8    /* threads kept for the next requests */

static struct requests serving; /* what requests_serve() was asked for */

/* The store, for a call that acts for the process that asks.  @synced: of fastspool_client. */
static struct fastspool *acting_with(fuse_req_t req, uint64_t *synced)
{
    const struct fuse_ctx *context = fuse_req_ctx(req);

    fastspool_act_for(&(const struct fastspool_client){context->uid, context->gid, synced});
    return serving.fs;
}

static struct fastspool *acting(fuse_req_t req)
{
    return acting_with(req, NULL);
}

struct path {
    char text[NAME_MAX + 32]; /* "//HANDLE/NAME" */
};

/* The path of @node, or with @name of a name below it. */
static struct path path_of(fuse_ino_t node, const char *name)
{
    struct path path;

    if (node == FUSE_ROOT_ID)
        snprintf(path.text, sizeof(path.text), "%.*s", NAME_MAX + 1, name ? name : "");
    else
        snprintf(path.text, sizeof(path.text), "//%llx%s%.*s", (unsigned long long)node, name ? "/" : "", NAME_MAX + 1,
                 name ? name : "");
    return path;
}

static bool is_privileged(fuse_req_t req)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    return uid == 0 || uid == serving.owner;
}

/* PLACES_HANDLE: a file by its handle, for root and the owner, who hand descriptors on to programs without the library.
 */
static bool by_handle(fuse_req_t req, const char *name, struct path *path)
{
    unsigned long long handle;
    int length = 0;

    if (!is_privileged(req) || sscanf(name, PLACES_HANDLE_FORM, &handle, &length) != 1 || name[length])
        return false;
    *path = path_of(handle, NULL);
    return true;
}

static void reply(fuse_req_t req, int result)
{
    if (result == -ESTALE)
        pins_stale(fuse_req_ctx(req)->pid);
    fuse_reply_err(req, -result);
}

/* Is @result an error?  Then it is the answer. */
static bool failed(fuse_req_t req, ssize_t result)
{
    if (result < 0)
        reply(req, (int)result);
    return result < 0;
}

/* The answer to a call by a name, whose directory may be gone. */
static void reply_named(fuse_req_t req, int result)
{
    reply(req, result == -ESTALE ? -ENOENT : result);
}

/* For the removal of a name. */
static struct fastspool *removing(fuse_req_t req)
{
    synced_note_change(fuse_req_ctx(req)->pid);
    return acting(req);
}

/* For another change of names. */
static struct fastspool *changing(fuse_req_t req)
{
    removals_other(fuse_req_ctx(req)->pid);
    return removing(req);
}

/* ---- names ---- */

/* Answer with @entry, or with the error of the call that should have found or made it. */
static void reply_entry(fuse_req_t req, const struct fuse_entry_param *entry, int result)
{
    if (result < 0) {
        reply_named(req, result);
        return;
    }
    if (S_ISDIR(entry->attr.st_mode))
        directories_add(entry->ino, &entry->attr);
    if (fuse_reply_entry(req, entry) < 0)
        directories_forget(entry->ino, 1);
}

static void do_forget(fuse_req_t req, fuse_ino_t node, uint64_t count)
{
    directories_forget(node, count);
    handed_forget(node);
    fuse_reply_none(req);
}

/* Is @name that of a directory of what the process hands on to itself?  Then that is the answer. */
static bool answered_by_handed(fuse_req_t req, const char *name)
{
    uint64_t node = is_privileged(req) ? handed_make(name) : 0;

    if (!node)
        return false;
    const struct fuse_entry_param entry = {.ino = node, .attr = handed_attributes(node), .attr_timeout = HANDED_KEPT};
    if (fuse_reply_entry(req, &entry) < 0)
        handed_forget(node);
    return true;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct path path = path_of(parent, name), file;
    struct stat st;
    struct fuse_entry_param entry = {0};
    struct fastspool *fs = acting(req);

    if (answered_by_handed(req, name))
        return;
    /* A directory has one name in the kernel, and a lookup by another one would move it there. */
    if (by_handle(req, name, &file) && (fastspool_stat(fs, file.text, &st) < 0 || !S_ISDIR(st.st_mode)))
        path = file;
    reply_entry(req, &entry, pins_lookup(fs, fuse_req_ctx(req)->pid, path.text, &entry.ino, &entry.attr));
}

/* A directory that was made, and that another process has removed already.  The kernel has to be told of one. */
static void removed_again(fuse_req_t req, mode_t mode, struct fuse_entry_param *entry)
{
    static uint64_t next;
    const struct fuse_ctx *context = fuse_req_ctx(req);

    entry->ino = FUSE_ROOT_ID + 1 + __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % (FASTSPOOL_HANDLE_MIN - 2);
    entry->attr =
        (struct stat){.st_ino = entry->ino, .st_mode = S_IFDIR | mode, .st_uid = context->uid, .st_gid = context->gid};
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    const struct path path = path_of(parent, name);
    struct fastspool *fs = changing(req);
    struct fuse_entry_param entry = {0};
    int result = fastspool_mkdir(fs, path.text, mode);

    if (result == 0 && (fastspool_lookup(fs, path.text, &entry.ino, &entry.attr) < 0 || !S_ISDIR(entry.attr.st_mode)))
        removed_again(req, mode, &entry);
    reply_entry(req, &entry, result);
}

static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    struct fastspool *fs = changing(req);
    struct fuse_entry_param entry = {0};
    int d = S_ISREG(mode) ? fastspool_open(fs, path_of(parent, name).text, flags, mode) : -EPERM;

    (void)device;
    reply_entry(req, &entry, d < 0 ? d : fastspool_flookup(fs, d, &entry.ino, &entry.attr));
    if (d >= 0)
        fastspool_close(fs, d);
}

static void do_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link, (void)parent, (void)name;
    reply(req, -EPERM);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    const struct path path = path_of(parent, name);
    struct stat st = {0};

    fastspool_stat(acting(req), path.text, &st); /* a failure is the removal's, too */
    if (!removals_may(fuse_req_ctx(req)->pid, name, clock_nanoseconds(&st.st_ctim)))
        reply(req, -EAGAIN);
    else
        reply_named(req, fastspool_unlink(removing(req), path.text));
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply_named(req, fastspool_rmdir(changing(req), path_of(parent, name).text));
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new,
                      unsigned flags)
{
    reply_named(req, fastspool_rename(changing(req), path_of(parent, name).text, path_of(to, new).text, flags));
}

static void do_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
    const struct path path = path_of(node, NULL);
    struct fastspool *fs = changing(req);
    struct fuse_entry_param entry = {0};
    int result = fastspool_link(fs, path.text, path_of(parent, name).text);

    reply_entry(req, &entry, result < 0 ? result : fastspool_lookup(fs, path.text, &entry.ino, &entry.attr));
}

/* ---- attributes ---- */

/* Answer with the attributes of @node, if @result of the call that changed them is no error. */
static void reply_attributes(fuse_req_t req, fuse_ino_t node, int result)
{
    struct stat st;

    if (result == 0) {
        result = fastspool_stat(acting(req), path_of(node, NULL).text, &st);
        if (result == -ESTALE && directories_removed(node, &st))
            result = 0;
    }
    if (!failed(req, result))
        fuse_reply_attr(req, &st, 0);
}

static void do_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    (void)file;
    if (!handed_is(node)) {
        reply_attributes(req, node, 0);
        return;
    }
    const struct stat st = handed_attributes(node);
    fuse_reply_attr(req, &st, HANDED_KEPT);
}

static struct timespec time_to_set(int set, int set_now, struct timespec given)
{
    return set_now ? (struct timespec){.tv_nsec = UTIME_NOW} : set ? given : (struct timespec){.tv_nsec = UTIME_OMIT};
}

/* Does @set give the file other times than now, another owner, or another mode than one without set-ID bits (which the
 * kernel takes away when somebody writes)? */
static bool is_owners(int set, const struct stat *wanted, const struct stat *is)
{
    bool mode = (set & FUSE_SET_ATTR_MODE) && (wanted->st_mode & 07777) != (is->st_mode & 07777) &&
                (wanted->st_mode & 07777) != (is->st_mode & 01777);

    return mode || (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) ||
           ((set & FUSE_SET_ATTR_ATIME) && !(set & FUSE_SET_ATTR_ATIME_NOW)) ||
           ((set & FUSE_SET_ATTR_MTIME) && !(set & FUSE_SET_ATTR_MTIME_NOW));
}

/* For a call by a descriptor the kernel has checked the owner that it saw last.  A process with the library may have
 * given the file to somebody else since. */
static int check_owner(fuse_req_t req, const struct path *path, const struct stat *wanted, int set)
{
    struct stat st;

    if (is_privileged(req))
        return 0;
    int result = fastspool_stat(acting(req), path->text, &st);
    return result == 0 && st.st_uid != fuse_req_ctx(req)->uid && is_owners(set, wanted, &st) ? -EPERM : result;
}

static void do_setattr(fuse_req_t req, fuse_ino_t node, struct stat *st, int set, struct fuse_file_info *file)
{
    const struct path path = path_of(node, NULL);
    struct fastspool *fs = acting(req);
    const struct timespec times[2] = {
        time_to_set(set & FUSE_SET_ATTR_ATIME, set & FUSE_SET_ATTR_ATIME_NOW, st->st_atim),
        time_to_set(set & FUSE_SET_ATTR_MTIME, set & FUSE_SET_ATTR_MTIME_NOW, st->st_mtim)};

    int result = check_owner(req, &path, st, set);
    if (result == 0 && (set & FUSE_SET_ATTR_SIZE))
        result =
            file ? fastspool_ftruncate(fs, (int)file->fh, st->st_size) : fastspool_truncate(fs, path.text, st->st_size);
    if (result == 0 && (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
        result = fastspool_chown(fs, path.text, set & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1,
                                 set & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1);
    if (result == 0 && (set & FUSE_SET_ATTR_MODE)) /* after the owner, whose change takes set-ID bits away */
        result = fastspool_chmod(fs, path.text, st->st_mode);
    if (result == 0)
        result = fastspool_utimens(fs, path.text, times);
    reply_attributes(req, node, result);
}

static void do_statfs(fuse_req_t req, fuse_ino_t node)
{
    struct statvfs st;

    (void)node;
    if (!failed(req, fastspool_statvfs(acting(req), &st)))
        fuse_reply_statfs(req, &st);
}

/* ---- open files ---- */

static uid_t openers[INSIDE_DESCRIPTIONS]; /* whose share each open file is of */

/* Open a file or directory, as one of @uid's share.  A description, or -errno. */
static int open_of(uid_t uid, fuse_req_t req, const struct path *path, int flags, mode_t mode)
{
    if (!shares_take(SHARE_OPEN, uid))
        return -ENFILE;
    int d = fastspool_open(acting(req), path->text, flags, mode);
    if (d < 0)
        shares_give(SHARE_OPEN, uid);
    else
        openers[d] = uid;
    return d;
}

static int open_for(fuse_req_t req, const struct path *path, int flags, mode_t mode)
{
    return open_of(fuse_req_ctx(req)->uid, req, path, flags, mode);
}

static int close_for(struct fastspool *fs, uint64_t description)
{
    shares_give(SHARE_OPEN, openers[description]);
    return fastspool_close(fs, (int)description);
}

/* Answer an open, with @made if it has made a file.  The kernel may have given up on it: then nobody will close it. */
static void opened(fuse_req_t req, int description, struct fuse_file_info *file, const struct fuse_entry_param *made)
{
    if (failed(req, description))
        return;
    file->fh = (uint64_t)description;
    file->direct_io = 1;
    if ((made ? fuse_reply_create(req, made, file) : fuse_reply_open(req, file)) == -ENOENT)
        close_for(serving.fs, file->fh);
}

static void do_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    const struct path path = path_of(node, NULL);
    opened(req, open_for(req, &path, file->flags & (O_ACCMODE | O_TRUNC), 0), file, NULL);
}

/* Open, with O_CREAT, what somebody has made since the kernel looked.  It has not checked the permissions: they are
 * clear if the file is the caller's.  Else -ESTALE makes it look again. */
static int open_made(fuse_req_t req, const struct path *path, int flags, mode_t mode)
{
    static const mode_t needed[] = {S_IRUSR, S_IWUSR, S_IRUSR | S_IWUSR, S_IRUSR | S_IWUSR}; /* by O_ACCMODE */
    mode_t need = needed[flags & O_ACCMODE] | (flags & O_TRUNC ? S_IWUSR : 0);
    uint64_t node;
    struct stat st;
    int d = open_for(req, path, (flags & O_ACCMODE) | O_CREAT, mode);

    if (d < 0)
        return d;
    int result = fastspool_flookup(serving.fs, d, &node, &st);
    if (result == 0 && (st.st_uid != fuse_req_ctx(req)->uid || (st.st_mode & need) != need))
        result = -ESTALE;
    else if (result == 0 && (flags & O_TRUNC)) /* also where it is open for reading alone */
        result = fastspool_truncate(serving.fs, path_of(node, NULL).text, 0);
    if (result < 0)
        close_for(serving.fs, (uint64_t)d);
    return result < 0 ? result : d;
}

/* Make the file, or open what has been made. */
static int create(fuse_req_t req, const struct path *path, int flags, mode_t mode)
{
    changing(req);
    int d = open_for(req, path, (flags & O_ACCMODE) | O_CREAT | O_EXCL, mode);

    if (d == -ESTALE)
        d = -ENOENT;
    else if (d == -EEXIST && !(flags & O_EXCL))
        d = open_made(req, path, flags, mode);
    return d;
}

static int open_handed(fuse_req_t req, fuse_ino_t directory, const char *name, int flags)
{
    uid_t share = fuse_req_ctx(req)->uid;
    uint64_t handle = handed_file(directory, name, flags, &share);
    const struct path path = path_of(handle, NULL);

    return handle ? open_of(share, req, &path, flags & O_ACCMODE, 0) : -ENOENT;
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file)
{
    const struct path path = path_of(parent, name);
    struct fastspool *fs = serving.fs;
    struct fuse_entry_param entry = {0};
    int d = handed_is(parent) ? open_handed(req, parent, name, file->flags) : create(req, &path, file->flags, mode);
    int result = d < 0 ? d : fastspool_flookup(fs, d, &entry.ino, &entry.attr);
    if (d >= 0 && result < 0)
        close_for(fs, (uint64_t)d);
    opened(req, result < 0 ? result : d, file, &entry);
}

static void do_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *file)
{
    char *bytes = malloc(size);
    ssize_t got = bytes ? fastspool_pread(acting(req), (int)file->fh, bytes, size, offset) : -ENOMEM;

    (void)node;
    if (!failed(req, got))
        fuse_reply_buf(req, bytes, (size_t)got);
    free(bytes);
}

static void do_write(fuse_req_t req, fuse_ino_t node, const char *bytes, size_t size, off_t offset,
                     struct fuse_file_info *file)
{
    struct fastspool *fs = acting(req);
    /* The kernel's idea of the end of the file may be old. */
    ssize_t done = file->flags & O_APPEND ? fastspool_append(fs, (int)file->fh, bytes, size)
                                          : fastspool_pwrite(fs, (int)file->fh, bytes, size, offset);

    (void)node;
    if (!failed(req, done))
        fuse_reply_write(req, (size_t)done);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t size,
                         struct fuse_file_info *file)
{
    (void)node;
    reply(req, mode ? -EOPNOTSUPP : fastspool_allocate(acting(req), (int)file->fh, offset, size));
}

static void do_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    owners_flush(node, file->lock_owner);
    reply(req, 0);
}

static void do_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    (void)node;
    owners_release((int)file->fh);
    reply(req, close_for(acting(req), file->fh));
}

/* fsync(2) of a file or @directory. */
static int sync_for(fuse_req_t req, bool directory, uint64_t description)
{
    uint64_t own, *synced = synced_of(fuse_req_ctx(req)->pid, directory, &own);
    return fastspool_fsync(acting_with(req, synced), (int)description);
}

static void do_fsync(fuse_req_t req, fuse_ino_t node, int data_only, struct fuse_file_info *file)
{
    (void)node, (void)data_only;
    reply(req, sync_for(req, false, file->fh));
}

/* ---- directories ---- */

/* A directory that is not opened for listing, which opendir(3), fts(3) and find(1) do with O_NONBLOCK, is most often
 * opened for fsync(2).  So wait here, while the kernel holds no lock (synced.c).  Exim without the library on a disk of
 * 200 IOPS, acked, split spool, 1, 8 and 32 connections: 93, 99, 116 messages/s without this, 96, 414, 430 with it. */
static bool opens_to_sync(int flags)
{
    return !(flags & O_NONBLOCK);
}

static void open_handed_directory(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    if (!failed(req, handed_open(acting(req), node)) && fuse_reply_open(req, file) == -ENOENT)
        handed_close(serving.fs, node);
}

static void do_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    const struct path path = path_of(node, NULL);

    if (handed_is(node)) {
        open_handed_directory(req, node, file);
        return;
    }
    int d = open_for(req, &path, O_RDONLY | O_DIRECTORY, 0);

    if (d >= 0) {
        bool syncs = opens_to_sync(file->flags);
        int result = syncs ? sync_for(req, true, (uint64_t)d) : 0;
        synced_opened(d, syncs ? fuse_req_ctx(req)->pid : 0, result);
    }
    opened(req, d, file, NULL);
}

static void do_fsyncdir(fuse_req_t req, fuse_ino_t node, int data_only, struct fuse_file_info *file)
{
    pid_t pid = fuse_req_ctx(req)->pid;
    int result;

    (void)data_only;
    if (handed_is(node)) {
        reply(req, 0);
        return;
    }
    if (!synced_enough((int)file->fh, pid, &result) || serving.durability != FASTSPOOL_ACKED)
        result = sync_for(req, true, file->fh);
    if (result < 0)
        removals_sync_failed(pid);
    reply(req, result);
}

static void do_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
    struct fastspool *fs = acting(req);

    if (handed_is(node))
        handed_close(fs, node);
    reply(req, handed_is(node) ? 0 : close_for(fs, file->fh));
}

/* A listing as it fills. */
struct listing {
    fuse_req_t req;
    char *bytes;
    size_t size, used;
};

/* False: it is full. */
static bool add(struct listing *listing, const struct fastspool_entry *entry)
{
    const struct stat st = {.st_ino = entry->inode, .st_mode = DTTOIF((mode_t)entry->type)};
    size_t room = listing->size - listing->used;
    size_t size =
        fuse_add_direntry(listing->req, listing->bytes + listing->used, room, entry->name, &st, (off_t)entry->position);

    if (size <= room)
        listing->used += size;
    return size <= room;
}

/* Where the listing of each open directory ends: at what was the newest name when it began. */
static uint64_t ends[INSIDE_DESCRIPTIONS];

/* fastspool_list() of @node, with "." and ".." at positions 1 and 2. */
static ssize_t list(fuse_ino_t node, int description, uint64_t after, struct fastspool_entry entries[LISTED])
{
    struct stat st;

    if (after >= 2)
        return fastspool_list(serving.fs, description, after, entries, LISTED);
    entries[0] = (struct fastspool_entry){.position = after + 1, .type = DT_DIR, .name = {'.', after ? '.' : '\0'}};
    if (fastspool_stat(serving.fs, path_of(node, entries[0].name).text, &st) == 0)
        entries[0].inode = st.st_ino;
    return 1;
}

static int fill(struct listing *listing, fuse_ino_t node, int description, uint64_t after)
{
    struct fastspool_entry entries[LISTED];
    ssize_t count;

    if (after <= 2) /* the first name is still to come */
        STORE(ends[description], fastspool_list_end(serving.fs));
    while ((count = list(node, description, after, entries)) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            if (entries[i].position > LOAD(ends[description]) || !add(listing, &entries[i]))
                return 0;
            after = entries[i].position;
        }
    }
    return listing->used ? 0 : (int)count;
}

static void do_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t after, struct fuse_file_info *file)
{
    struct listing listing = {.req = req, .bytes = malloc(size), .size = size};

    acting(req);
    int result = handed_is(node) ? 0 : listing.bytes ? fill(&listing, node, (int)file->fh, (uint64_t)after) : -ENOMEM;
    if (!failed(req, result))
        fuse_reply_buf(req, listing.bytes, listing.used);
    free(listing.bytes);
}

/* ---- locks ---- */

static void do_getlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file, struct flock *lock)
{
    if (!failed(req, owners_get(node, file->lock_owner, (int)file->fh, lock)))
        fuse_reply_lock(req, lock);
}

static void do_setlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file, struct flock *lock, int sleep)
{
    owners_set(req, node, file->lock_owner, (int)file->fh, lock, sleep);
}

/* ---- the session ---- */

static void do_init(void *user_data, struct fuse_conn_info *connection)
{
    (void)user_data;
    connection->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                                    FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_HANDLE_KILLPRIV);
    connection->time_gran = 1;
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init,
    .lookup = do_lookup,
    .forget = do_forget,
    .getattr = do_getattr,
    .setattr = do_setattr,
    .mkdir = do_mkdir,
    .mknod = do_mknod,
    .symlink = do_symlink,
    .unlink = do_unlink,
    .rmdir = do_rmdir,
    .rename = do_rename,
    .link = do_link,
    .open = do_open,
    .create = do_create,
    .read = do_read,
    .write = do_write,
    .flush = do_flush,
    .release = do_release,
    .fsync = do_fsync,
    .opendir = do_opendir,
    .readdir = do_readdir,
    .fsyncdir = do_fsyncdir,
    .releasedir = do_releasedir,
    .statfs = do_statfs,
    .getlk = do_getlk,
    .setlk = do_setlk,
    .fallocate = do_fallocate,
};

int requests_serve(const struct requests *requests, int fuse)
{
    struct fuse_args arguments = FUSE_ARGS_INIT(1, ((char *[]){(char[]){"fastspool"}, NULL}));
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof(operations), NULL);
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    char path[32];

    serving = *requests;
    snprintf(path, sizeof(path), "/dev/fd/%d", fuse);
    if (!session || !loop || fuse_session_mount(session, path) < 0)
        return -ENOMEM;
    fuse_loop_cfg_set_max_threads(loop, THREADS);
    fuse_loop_cfg_set_idle_threads(loop, IDLE);
    removals_begin();
    int result = owners_start(serving.fs);
    if (result == 0)
        result = pins_start(serving.fs);
    if (result == 0)
        result = fuse_session_loop_mt(session, loop);
    return result < 0 ? result : 0;
}

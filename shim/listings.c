/* SPDX-License-Identifier: MIT
 *
 * Listings: directory streams of the store, merged with the disk's directory of the same path.
 *
 * Happy path:
 *   - A stream of the store is a structure of this file, known by its first two words.  Every other DIR is libc's.
 *   - "." and ".." come first, then the store's entries in batches, then the disk's entries that the store doesn't
 *     have.  (Directories exist in both, a message in one of them.)  With a view the disk has none.
 *   - The spool directory itself is the disk's.  Its listing leaves out the state directory.
 *
 * Failure modes:
 *   - opendir is ENOMEM without memory.
 *   - An error while reading is NULL with errno.
 *   - Exim takes an error for an empty directory: serve_end_listing().
 */
#include "attachment.h"
#include "descriptors.h"
#include "fastspool.h"
#include "opening.h"
#include "paths.h"
#include "pointers.h"
#include "serve.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64

#define DISK_POSITION (1L << 62) /* of telldir: in the disk's part */

struct listing {
    uint64_t mark;        /* LISTING_MARK */
    struct listing *self; /* the program's DIR */
    int fd;               /* of the store's directory, -1: the spool itself, the disk's */
    DIR *disk;            /* the disk's directory of the same path, NULL: none */
    char path[PATH_MAX];  /* relative to the spool */
    uint64_t position;    /* 0 to 2: how many of "." and ".." were given; else of the store's last name */
    bool store_done;      /* the disk's entries are next */
    size_t next, count;   /* in the batch */
    struct fastspool_entry batch[BATCH];
    struct dirent entry; /* that readdir returned last */
};

/* ---- the store's streams ---- */

#define LISTING_MARK UINT64_C(0xfa57590014571196)

/* No table, and no lock that a thread could hold at a fork.  libc's DIR begins with a descriptor and a lock; the size
 * of its buffer follows, a small number and not its own address. */
static struct listing *find(DIR *stream)
{
    struct listing *listing = (struct listing *)stream;

    return listing && listing->mark == LISTING_MARK && listing->self == listing ? listing : NULL;
}

static DIR *enter(struct listing *listing)
{
    listing->mark = LISTING_MARK;
    listing->self = listing;
    return (DIR *)listing;
}

static void leave(struct listing *listing)
{
    listing->self = NULL;
}

/* ---- opening ---- */

/* The disk's directory of the same path.  NULL: none. */
static DIR *disk_directory(const struct fastspool *fs, const char *path)
{
    char real_path[PATH_MAX + FASTSPOOL_PATH_MAX];
    int saved = errno;

    snprintf(real_path, sizeof(real_path), "%s/%s", inside_spool(fs), path);
    DIR *disk = real.opendir(real_path);
    errno = saved;
    return disk;
}

/* @fd is a directory of the store. */
static DIR *open_listing(struct fastspool *fs, int fd)
{
    struct listing *listing = calloc(1, sizeof(*listing));

    if (!listing)
        return NULL;
    listing->fd = fd;
    if (paths_ask_disk(fs) && inside_path(OF(descriptors_find(fd)), listing->path, sizeof(listing->path)) >= 0)
        listing->disk = disk_directory(fs, listing->path);
    return enter(listing);
}

/* @disk is the spool directory itself. */
static DIR *open_spool(DIR *disk)
{
    struct listing *listing = disk ? calloc(1, sizeof(*listing)) : NULL;

    if (!listing) {
        if (disk)
            real.closedir(disk);
        return NULL;
    }
    listing->fd = -1;
    listing->disk = disk;
    listing->store_done = true;
    return enter(listing);
}

static bool is_spool_itself(const char *path)
{
    size_t offset = serve_active() && pointers_text(path) && *path == '/' ? serve_match(path) : 0;
    return offset && strspn(path + offset, "/.") == strlen(path + offset) && !strstr(path + offset, "..");
}

EXPORT DIR *opendir(const char *path)
{
    struct store_path target;
    bool foreign;

    BOUND();
    if (is_spool_itself(path))
        return open_spool(real.opendir(path));
    if (!paths_follow(AT_FDCWD, path, &target))
        return real.opendir(path);
    int fd = opening_place(&target, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, &foreign);
    if (foreign)
        return real.opendir(path);
    if (fd < 0) {
        serve_end_listing(-fd);
        errno = -fd;
        return NULL;
    }
    DIR *stream = open_listing(target.fs, fd);
    if (!stream)
        close(fd);
    return stream;
}

EXPORT DIR *fdopendir(int fd)
{
    struct stat st;

    BOUND();
    uint32_t description = descriptors_find(fd);
    if (!description)
        return real.fdopendir(fd);
    if (fstat(fd, &st) < 0)
        return NULL;
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return NULL;
    }
    if (inside_flags(OF(description)) & O_PATH) {
        errno = EBADF;
        return NULL;
    }
    return open_listing(attachment_of(description), fd);
}

/* ---- reading ---- */

static struct dirent *give(struct listing *listing, uint64_t inode, long position, unsigned char type, const char *name)
{
    struct dirent *entry = &listing->entry;

    entry->d_ino = inode;
    entry->d_off = position;
    entry->d_reclen = sizeof(*entry);
    entry->d_type = type;
    strcpy(entry->d_name, name);
    return entry;
}

static struct dirent *read_dots(struct listing *listing)
{
    struct stat st;
    bool first = listing->position == 0;

    listing->position++;
    if (fstat(listing->fd, &st) < 0)
        st.st_ino = 1;
    return give(listing, st.st_ino, (long)listing->position, DT_DIR, first ? "." : "..");
}

/* A removed directory that is still open has no "." and ".." either. */
static bool is_removed(const struct listing *listing)
{
    struct stat st;
    return fstat(listing->fd, &st) == 0 && st.st_nlink < 2;
}

static struct dirent *read_store(struct listing *listing)
{
    if (listing->next == listing->count) {
        ssize_t count = fastspool_list(OF(descriptors_find(listing->fd)), listing->position, listing->batch, BATCH);
        if (count < 0) {
            serve_end_listing((int)-count);
            errno = (int)-count;
            return NULL;
        }
        listing->next = 0;
        listing->count = (size_t)count;
        if (count == 0) {
            listing->store_done = true;
            return NULL;
        }
    }
    const struct fastspool_entry *entry = &listing->batch[listing->next++];
    listing->position = entry->position;
    return give(listing, entry->inode, (long)entry->position, entry->type, entry->name);
}

/* The store has given this name already, or it is the library's own. */
static bool is_hidden(struct listing *listing, const char *name)
{
    char path[PATH_MAX + 256];
    struct stat st;

    if (listing->fd < 0)
        return strcmp(name, ".fastspool") == 0;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return true;
    snprintf(path, sizeof(path), "%s/%s", listing->path, name);
    return fastspool_stat(attachment_of(descriptors_find(listing->fd)), path, &st) == 0;
}

static struct dirent *read_disk(struct listing *listing)
{
    struct dirent *entry;

    while (listing->disk && (entry = real.readdir(listing->disk)) != NULL) {
        if (!is_hidden(listing, entry->d_name))
            return give(listing, entry->d_ino, DISK_POSITION | entry->d_off, entry->d_type, entry->d_name);
    }
    return NULL;
}

EXPORT struct dirent *readdir(DIR *stream)
{
    BOUND();
    struct listing *listing = find(stream);
    if (!listing)
        return real.readdir(stream);
    if (!listing->store_done && listing->position < 2 && listing->count == 0) {
        if (!is_removed(listing))
            return read_dots(listing);
        listing->position = 2;
    }
    int saved = errno;
    errno = 0;
    struct dirent *entry = listing->store_done ? NULL : read_store(listing);
    if (!entry && listing->store_done)
        entry = read_disk(listing);
    if (errno == 0)
        errno = saved;
    return entry;
}
EXPORT_ALIAS(readdir64, readdir);

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* old programs call it */
EXPORT int readdir_r(DIR *stream, struct dirent *entry, struct dirent **result)
{
    int saved = errno;

    errno = 0;
    struct dirent *next = readdir(stream);
    int error = next ? 0 : errno;
    errno = saved;
    if (next)
        *entry = *next;
    *result = next ? entry : NULL;
    return error;
}
EXPORT_ALIAS(readdir64_r, readdir_r);

/* ---- the rest ---- */

EXPORT int closedir(DIR *stream)
{
    BOUND();
    struct listing *listing = find(stream);
    if (!listing)
        return real.closedir(stream);
    leave(listing);
    int result = listing->fd >= 0 ? close(listing->fd) : 0;
    if (listing->disk)
        real.closedir(listing->disk);
    free(listing);
    return result;
}

EXPORT int dirfd(DIR *stream)
{
    BOUND();
    struct listing *listing = find(stream);
    if (!listing)
        return real.dirfd(stream);
    return listing->fd >= 0 ? listing->fd : real.dirfd(listing->disk);
}

EXPORT long telldir(DIR *stream)
{
    BOUND();
    struct listing *listing = find(stream);
    if (!listing)
        return real.telldir(stream);
    return listing->store_done && listing->disk ? DISK_POSITION | real.telldir(listing->disk) : (long)listing->position;
}

EXPORT void seekdir(DIR *stream, long position)
{
    BOUND();
    struct listing *listing = find(stream);
    if (!listing) {
        real.seekdir(stream, position);
        return;
    }
    listing->next = listing->count = 0;
    listing->store_done = listing->fd < 0 || (position & DISK_POSITION);
    if (listing->store_done && listing->disk)
        real.seekdir(listing->disk, position & ~DISK_POSITION);
    else if (listing->disk)
        real.rewinddir(listing->disk);
    if (!listing->store_done)
        listing->position = (uint64_t)position;
}

EXPORT void rewinddir(DIR *stream)
{
    BOUND();
    struct listing *listing = find(stream);
    if (!listing) {
        real.rewinddir(stream);
        return;
    }
    listing->next = listing->count = 0;
    listing->position = 0;
    listing->store_done = listing->fd < 0;
    if (listing->disk)
        real.rewinddir(listing->disk);
}

static bool append(struct dirent ***entries, int count, const struct dirent *entry)
{
    struct dirent **more = realloc(*entries, ((size_t)count + 1) * sizeof(**entries));
    struct dirent *copy = malloc(sizeof(*copy));

    if (more)
        *entries = more;
    if (!more || !copy) {
        free(copy);
        return false;
    }
    *copy = *entry;
    more[count] = copy;
    return true;
}

/* libc's scandir would not call the wrappers.  As there, a listing that breaks off is an error, and the filter's errno
 * is none. */
static int scan(DIR *stream, struct dirent ***list, int (*filter)(const struct dirent *),
                int (*compare)(const struct dirent **, const struct dirent **))
{
    struct dirent **entries = NULL, *entry;
    int count = 0, saved = errno, error = 0;

    if (!stream)
        return -1;
    while (error == 0 && (errno = 0, entry = readdir(stream)) != NULL) {
        if (filter && !filter(entry))
            continue;
        if (append(&entries, count, entry))
            count++;
        else
            error = ENOMEM;
    }
    if (error == 0)
        error = errno;
    closedir(stream);
    errno = error ? error : saved;
    if (error) {
        while (count > 0)
            free(entries[--count]);
        free(entries);
        return -1;
    }
    if (compare && count > 0)
        qsort(entries, (size_t)count, sizeof(*entries), (int (*)(const void *, const void *))compare);
    *list = entries;
    return count;
}

EXPORT int scandir(const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
                   int (*compare)(const struct dirent **, const struct dirent **))
{
    struct store_path target;

    BOUND();
    if (!paths_follow(AT_FDCWD, path, &target))
        return real.scandir(path, list, filter, compare);
    return scan(opendir(path), list, filter, compare);
}
EXPORT_ALIAS(scandir64, scandir);

EXPORT int scandirat(int dirfd, const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
                     int (*compare)(const struct dirent **, const struct dirent **))
{
    struct store_path target;

    BOUND();
    if (!paths_follow(dirfd, path, &target))
        return real.scandirat(dirfd, path, list, filter, compare);
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (fd >= 0 && !stream)
        close(fd);
    return scan(stream, list, filter, compare);
}
EXPORT_ALIAS(scandirat64, scandirat);

/* The kernel's form of a listing is not made.  (A placeholder would look like an empty directory.) */
EXPORT ssize_t getdents64(int fd, void *buffer, size_t size)
{
    struct stat st;

    BOUND();
    if (!descriptors_find(fd))
        return real.getdents64(fd, buffer, size);
    return result_of(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? -EOPNOTSUPP : -ENOTDIR);
}

/* ---- patterns ---- */

static void close_stream(void *stream)
{
    closedir(stream);
}

/* libc's glob takes functions of the caller's. */
EXPORT int glob(const char *pattern, int flags, int (*failed)(const char *path, int error), glob_t *found)
{
    BOUND();
    if (!serve_active() || (flags & GLOB_ALTDIRFUNC))
        return real.glob(pattern, flags, failed, found);
    found->gl_opendir = (void *(*)(const char *))opendir;
    found->gl_readdir = (struct dirent * (*)(void *)) readdir;
    found->gl_closedir = close_stream;
    found->gl_stat = stat;
    found->gl_lstat = lstat;
    return real.glob(pattern, flags | GLOB_ALTDIRFUNC, failed, found);
}
EXPORT_ALIAS(glob64, glob);

/* SPDX-License-Identifier: MIT
 *
 * The recorder replaces libc's calls for all of this process, LMDB included.  It does them by system calls, except
 * fsync and fdatasync, and notes them.  The disk keeps for each file what is synced and what is not yet.
 *
 * It assumes less of a file system than ext4 gives.  A name is sure to be durable only when its directory is synced.
 * Blocks of 4 KiB reach the disk in any order.  A block that is on its way at the cut may be there in some of its
 * sectors only, from its beginning.
 */
#include "record.h"

#include "base/unconst.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX  (1u << 20)
#define NESTED_MAX  65536u
#define OBJECTS_MAX 65536u
#define BLOCK       4096u
#define SECTOR      512u
#define FILE_MAX    (8u << 20)

struct event *record_events;
uint64_t *record_count;

static bool recording;
static pid_t recorder;
static dev_t device;
static enum record_fault wanted_fault;
static int fail_after = -1;
static struct event *outer_events; /* while a child records for itself */
static uint64_t *outer_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static ino_t inodes[OBJECTS_MAX];
static uint32_t objects;

/* ---- noting ---- */

static bool active(void)
{
    return recording && getpid() == recorder;
}

/* The object of an inode; 0 is the root.  A tmpfs does not reuse inode numbers while it is mounted. */
static uint32_t object_of(ino_t inode)
{
    for (uint32_t i = objects; i-- > 0;) {
        if (inodes[i] == inode)
            return i;
    }
    if (objects == OBJECTS_MAX)
        abort();
    inodes[objects] = inode;
    return objects++;
}

static bool known(const struct stat *st)
{
    return st->st_dev == device;
}

static void note(struct event event)
{
    struct timespec now;

    if (*record_count == (outer_events ? NESTED_MAX : EVENTS_MAX))
        abort();
    clock_gettime(CLOCK_MONOTONIC, &now);
    event.time = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    if (event.bytes) {
        char *copy = malloc(event.size);
        memcpy(copy, event.bytes, event.size);
        event.bytes = copy;
    }
    record_events[*record_count] = event;
    __atomic_store_n(record_count, *record_count + 1, __ATOMIC_RELEASE);
}

/* True: the object is a file of the journal, whose names are numbers. */
static bool in_journal(uint32_t object)
{
    for (uint64_t i = *record_count; i-- > 0;) {
        const struct event *event = &record_events[i];
        if (event->kind == EVENT_LINK && event->target == object)
            return event->name[0] == '0';
    }
    return false;
}

static struct event held; /* FAULT_SWAPPED: a write that is held until the sync that should follow it */

static void note_write(int fd, const void *bytes, size_t size, off_t offset)
{
    struct stat st;

    if (!active() || fstat(fd, &st) < 0 || !known(&st) || !S_ISREG(st.st_mode))
        return;
    pthread_mutex_lock(&mutex);
    struct event event = {.kind = EVENT_WRITE,
                          .object = object_of(st.st_ino),
                          .offset = (uint64_t)offset,
                          .size = size,
                          .bytes = UNCONST(bytes)};
    if (wanted_fault == FAULT_SWAPPED && in_journal(event.object)) {
        event.bytes = memcpy(malloc(size), bytes, size);
        held = event;
    } else {
        note(event);
        if (fcntl(fd, F_GETFL) & O_DSYNC)
            note((struct event){.kind = EVENT_SYNC_ONE, .object = event.object});
    }
    pthread_mutex_unlock(&mutex);
}

static void note_size(int fd)
{
    struct stat st;

    if (!active() || fstat(fd, &st) < 0 || !known(&st))
        return;
    pthread_mutex_lock(&mutex);
    note((struct event){.kind = EVENT_SIZE, .object = object_of(st.st_ino), .offset = (uint64_t)st.st_size});
    pthread_mutex_unlock(&mutex);
}

static int note_sync(int fd)
{
    struct stat st;
    int result = 0;

    if (!active() || fstat(fd, &st) < 0 || !known(&st))
        return 0;
    pthread_mutex_lock(&mutex);
    uint32_t object = object_of(st.st_ino);
    bool journal = S_ISREG(st.st_mode) && in_journal(object);
    if (journal && fail_after >= 0 && fail_after-- == 0) {
        note((struct event){.kind = EVENT_LOST, .object = object});
        errno = EIO;
        result = -1;
    } else if (!(journal && wanted_fault == FAULT_NO_SYNC)) {
        note((struct event){.kind = EVENT_SYNC, .object = object});
    }
    if (held.bytes && held.object == object) {
        note(held);
        free(held.bytes);
        held.bytes = NULL;
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

static void note_name(enum event_kind kind, int directory, const char *path, ino_t target)
{
    char above[512];
    struct stat st;
    const char *name = strrchr(path, '/');

    snprintf(above, sizeof(above), "%.*s", name ? (int)(name - path) : 1, name ? path : ".");
    name = name ? name + 1 : path;
    if (!active() || strcmp(name, "lock.mdb") == 0 || fstatat(directory, above, &st, 0) < 0 || !known(&st))
        return;
    pthread_mutex_lock(&mutex);
    struct event event = {.kind = kind, .object = object_of(st.st_ino)};
    if (kind == EVENT_LINK)
        event.target = object_of(target);
    snprintf(event.name, sizeof(event.name), "%s", name);
    note(event);
    pthread_mutex_unlock(&mutex);
}

static void note_new(int directory, const char *path)
{
    struct stat st;

    if (fstatat(directory, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
        note_name(EVENT_LINK, directory, path, st.st_ino);
}

void record_begin(const char *root, enum record_fault fault)
{
    struct stat st;

    if (!record_events) {
        record_events = calloc(EVENTS_MAX, sizeof(*record_events));
        record_count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    for (uint64_t i = 0; i < *record_count; i++)
        free(record_events[i].bytes);
    *record_count = 0;
    objects = 0;
    if (stat(root, &st) < 0)
        abort();
    device = st.st_dev;
    object_of(st.st_ino);
    wanted_fault = fault;
    recorder = getpid();
    recording = true;
}

void record_end(void)
{
    recording = false;
}

void record_nested(const char *root)
{
    struct stat st;

    outer_events = record_events;
    outer_count = record_count;
    record_events = calloc(NESTED_MAX, sizeof(*record_events));
    record_count = calloc(1, sizeof(*record_count));
    objects = 0;
    if (stat(root, &st) < 0)
        abort();
    object_of(st.st_ino);
    wanted_fault = FAULT_NONE;
    fail_after = -1;
    recorder = getpid();
    recording = true;
}

uint64_t record_nested_end(struct event **events)
{
    uint64_t count = *record_count;

    recording = false;
    *events = record_events;
    record_events = outer_events;
    record_count = outer_count;
    return count;
}

void record_fail_sync(unsigned skip)
{
    fail_after = (int)skip;
}

/* ---- the calls that replace libc's ---- */

#define TAKES(name) __asm__(#name)

ssize_t taken_pwrite(int fd, const void *bytes, size_t size, off_t offset) TAKES(pwrite);
ssize_t taken_pwrite64(int fd, const void *bytes, size_t size, off_t offset) TAKES(pwrite64);
ssize_t taken_writev(int fd, const struct iovec *parts, int count) TAKES(writev);
int taken_ftruncate(int fd, off_t size) TAKES(ftruncate);
int taken_ftruncate64(int fd, off_t size) TAKES(ftruncate64);
int taken_fallocate(int fd, off_t offset, off_t size) TAKES(posix_fallocate64);
int taken_fdatasync(int fd) TAKES(fdatasync);
int taken_fsync(int fd) TAKES(fsync);
int taken_open(const char *path, int flags, ...) TAKES(open);
int taken_open64(const char *path, int flags, ...) TAKES(open64);
int taken_openat64(int directory, const char *path, int flags, ...) TAKES(openat64);
int taken_mkdir(const char *path, mode_t mode) TAKES(mkdir);
int taken_rename(const char *from, const char *to) TAKES(rename);
int taken_unlink(const char *path) TAKES(unlink);
int taken_unlinkat(int directory, const char *path, int flags) TAKES(unlinkat);

ssize_t taken_pwrite64(int fd, const void *bytes, size_t size, off_t offset)
{
    ssize_t result = syscall(SYS_pwrite64, fd, bytes, size, offset);
    if (result > 0)
        note_write(fd, bytes, (size_t)result, offset);
    return result;
}

ssize_t taken_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    return taken_pwrite64(fd, bytes, size, offset);
}

ssize_t taken_writev(int fd, const struct iovec *parts, int count)
{
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t result = syscall(SYS_writev, fd, parts, count), left = result;

    for (int i = 0; offset >= 0 && left > 0 && i < count; i++) {
        size_t size = (size_t)left < parts[i].iov_len ? (size_t)left : parts[i].iov_len;
        note_write(fd, parts[i].iov_base, size, offset);
        offset += (off_t)size;
        left -= (ssize_t)size;
    }
    return result;
}

int taken_ftruncate64(int fd, off_t size)
{
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (result == 0)
        note_size(fd);
    return result;
}

int taken_ftruncate(int fd, off_t size)
{
    return taken_ftruncate64(fd, size);
}

int taken_fallocate(int fd, off_t offset, off_t size)
{
    int result = syscall(SYS_fallocate, fd, 0, offset, size) < 0 ? errno : 0;
    if (result == 0)
        note_size(fd);
    return result;
}

int taken_fdatasync(int fd)
{
    return note_sync(fd);
}

int taken_fsync(int fd)
{
    return note_sync(fd);
}

static int open_noting(int directory, const char *path, int flags, mode_t mode)
{
    bool makes = (flags & O_CREAT) && faccessat(directory, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode);

    if (fd >= 0 && makes)
        note_new(directory, path);
    return fd;
}

#define MODE_OF(flags)                       \
    va_list arguments;                       \
    va_start(arguments, flags);              \
    mode_t mode = va_arg(arguments, mode_t); \
    va_end(arguments)

int taken_open64(const char *path, int flags, ...)
{
    MODE_OF(flags);
    return open_noting(AT_FDCWD, path, flags, mode);
}

int taken_open(const char *path, int flags, ...)
{
    MODE_OF(flags);
    return open_noting(AT_FDCWD, path, flags, mode);
}

int taken_openat64(int directory, const char *path, int flags, ...)
{
    MODE_OF(flags);
    return open_noting(directory, path, flags, mode);
}

int taken_mkdir(const char *path, mode_t mode)
{
    int result = (int)syscall(SYS_mkdir, path, mode);
    if (result == 0)
        note_new(AT_FDCWD, path);
    return result;
}

int taken_rename(const char *from, const char *to)
{
    int result = (int)syscall(SYS_rename, from, to);
    if (result == 0) {
        note_name(EVENT_UNLINK, AT_FDCWD, from, 0);
        note_new(AT_FDCWD, to);
    }
    return result;
}

int taken_unlinkat(int directory, const char *path, int flags)
{
    int result = (int)syscall(SYS_unlinkat, directory, path, flags);
    if (result == 0)
        note_name(EVENT_UNLINK, directory, path, 0);
    return result;
}

int taken_unlink(const char *path)
{
    return taken_unlinkat(AT_FDCWD, path, 0);
}

/* ---- the disk ---- */

#define PENDING_MAX 4096u
#define NAMES_MAX   256u

struct object {
    char *bytes; /* a file's synced content */
    size_t size;
    const struct event **pending; /* events that are not synced, oldest first */
    size_t pendings;
    struct { /* a directory's synced names */
        char name[32];
        uint32_t target;
    } names[NAMES_MAX];
    size_t count;
};

struct disk {
    struct object *object[OBJECTS_MAX];
};

struct disk *disk_new(void)
{
    return calloc(1, sizeof(struct disk));
}

void disk_free(struct disk *disk)
{
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        if (disk->object[i]) {
            free(disk->object[i]->bytes);
            free(disk->object[i]->pending);
        }
        free(disk->object[i]);
    }
    free(disk);
}

static struct object *object_at(struct disk *disk, uint32_t i)
{
    if (!disk->object[i])
        disk->object[i] = calloc(1, sizeof(struct object));
    return disk->object[i];
}

static void need(struct object *object, size_t size)
{
    if (size > FILE_MAX)
        abort();
    if (size > object->size) {
        object->bytes = realloc(object->bytes, size);
        memset(object->bytes + object->size, 0, size - object->size);
        object->size = size;
    }
}

void disk_load(struct disk *disk, const char *root)
{
    struct stat st;
    DIR *listing = opendir(root);

    if (!listing || fstat(dirfd(listing), &st) < 0)
        abort();
    struct object *directory = object_at(disk, object_of(st.st_ino));
    for (struct dirent *entry; (entry = readdir(listing));) {
        char below[600];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strcmp(entry->d_name, "lock.mdb") == 0)
            continue;
        snprintf(below, sizeof(below), "%s/%s", root, entry->d_name);
        if (stat(below, &st) < 0 || directory->count == NAMES_MAX)
            abort();
        snprintf(directory->names[directory->count].name, sizeof(directory->names->name), "%.31s", entry->d_name);
        directory->names[directory->count++].target = object_of(st.st_ino);
        if (S_ISDIR(st.st_mode)) {
            disk_load(disk, below);
            continue;
        }
        struct object *file = object_at(disk, object_of(st.st_ino));
        need(file, (size_t)st.st_size);
        int fd = (int)syscall(SYS_openat, AT_FDCWD, below, O_RDONLY);
        if (fd < 0 || read(fd, file->bytes, file->size) != (ssize_t)file->size)
            abort();
        close(fd);
    }
    closedir(listing);
}

/* An event reaches the disk. */
static void settle(struct object *object, const struct event *event)
{
    size_t i = 0;

    switch (event->kind) {
    case EVENT_WRITE:
        need(object, event->offset + event->size);
        memcpy(object->bytes + event->offset, event->bytes, event->size);
        break;
    case EVENT_SIZE:
        need(object, event->offset);
        object->size = event->offset;
        break;
    default: /* EVENT_LINK, EVENT_UNLINK */
        while (i < object->count && strcmp(object->names[i].name, event->name) != 0)
            i++;
        if (event->kind == EVENT_UNLINK) {
            if (i < object->count)
                object->names[i] = object->names[--object->count];
            break;
        }
        if (i == NAMES_MAX)
            abort();
        object->count += i == object->count;
        strcpy(object->names[i].name, event->name);
        object->names[i].target = event->target;
    }
}

static void settle_some(struct object *object, const struct event *event, unsigned *seed);

void disk_play(struct disk *disk, const struct event *event)
{
    static unsigned seed = 1;
    struct object *object = object_at(disk, event->object);

    switch (event->kind) {
    case EVENT_SYNC:
        for (size_t i = 0; i < object->pendings; i++)
            settle(object, object->pending[i]);
        object->pendings = 0;
        break;
    case EVENT_SYNC_ONE:
        settle(object, object->pending[--object->pendings]);
        break;
    case EVENT_LOST:
        for (size_t i = 0; i < object->pendings; i++)
            settle_some(object, object->pending[i], &seed);
        object->pendings = 0;
        break;
    default:
        if (object->pendings % PENDING_MAX == 0)
            object->pending = realloc(object->pending, (object->pendings + PENDING_MAX) * sizeof(*object->pending));
        object->pending[object->pendings++] = event;
    }
}

/* Some blocks of a write, or parts of blocks, reach the disk. */
static void settle_some(struct object *object, const struct event *event, unsigned *seed)
{
    unsigned how = (unsigned)rand_r(seed) % 4; /* 0: nothing, 1: all, 2: any blocks, 3: any blocks, torn at a sector */

    if (how == 1 || (how && event->kind == EVENT_SIZE)) {
        settle(object, event);
        return;
    }
    for (size_t done = 0; how > 1 && done < event->size;) {
        size_t part = BLOCK - (event->offset + done) % BLOCK;
        if (part > event->size - done)
            part = event->size - done;
        size_t there = rand_r(seed) % 2 ? part : 0;
        if (how == 3 && rand_r(seed) % 2)
            there = (size_t)rand_r(seed) % (part / SECTOR + 1) * SECTOR;
        struct event piece = *event;
        piece.offset += done;
        piece.bytes += done;
        piece.size = there;
        if (there)
            settle(object, &piece);
        done += part;
    }
}

static void write_object(struct disk *disk, uint32_t number, const char *path, bool directory, unsigned *seed)
{
    const struct object *real = object_at(disk, number);
    struct object object = *real;

    if (directory) {
        size_t beginning = real->pendings ? (size_t)rand_r(seed) % (real->pendings + 1) : 0;
        for (size_t i = 0; i < beginning; i++)
            settle(&object, real->pending[i]);
        syscall(SYS_mkdir, path, 0700);
        for (size_t i = 0; i < object.count; i++) {
            char below[600];
            const struct object *target = object_at(disk, object.names[i].target);
            bool holds_names = target->count > 0 || strchr("jm", object.names[i].name[0]);
            for (size_t p = 0; p < target->pendings; p++)
                holds_names |= target->pending[p]->kind == EVENT_LINK;
            snprintf(below, sizeof(below), "%s/%s", path, object.names[i].name);
            write_object(disk, object.names[i].target, below, holds_names, seed);
        }
        return;
    }
    object.bytes = malloc(real->size + 1);
    memcpy(object.bytes, real->bytes ? real->bytes : "", real->size);
    for (size_t i = 0; i < real->pendings; i++)
        settle_some(&object, real->pending[i], seed);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || syscall(SYS_pwrite64, fd, object.bytes, object.size, 0) != (long)object.size)
        abort();
    close(fd);
    free(object.bytes);
}

static void remove_tree(const char *path)
{
    DIR *listing = opendir(path);

    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char below[600];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        if (syscall(SYS_unlink, below) < 0)
            remove_tree(below);
    }
    if (listing)
        closedir(listing);
    rmdir(path);
}

void disk_cut(struct disk *disk, const char *root, unsigned *seed)
{
    remove_tree(root);
    write_object(disk, 0, root, true, seed);
}

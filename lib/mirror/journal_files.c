/* SPDX-License-Identifier: MIT
 *
 * The journal's files.
 *
 * The happy path: the checkpointer makes a spare, the committer begins it as its next file, a checkpoint
 * releases it to be a spare again.
 *
 * Failure modes:
 *  - A write or fdatasync failed: the file is condemned, for the kernel may have dropped its pages and call the next
 *    fdatasync a success.  One that holds nothing durable is removed at once, so that a disk that fails for hours is
 *    not filled by the tries.
 *  - No spare and no room for a file, or for the checkpoint that must follow: ENOSPC, and a checkpoint is due.
 *  - A name could not be synced: the file or directory is removed.  The next sync may succeed without it.
 *  - A predecessor died while it made a file: a file shorter than the others and without a head is removed.
 *  - A file is removed by others, or the directory: a look at the names tells, and rescue.c writes all of it anew.
 *  - The directory is another one, as its disk is not mounted: the segment has what tells it from the one before, so
 *    also a new mirror knows.  Nothing is written there until somebody says that the other one is lost.
 */
#include "mirror/journal_files.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/ends.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE           (2u << 20)          /* bytes of one pwrite, and of a huge page */
#define TICK            (20 * NS_PER_MS)    /* the kernel's clock for times of files moves on */
#define AGE             (60 * NS_PER_S)     /* of the oldest batch, after which a checkpoint is due */
#define FULL            4u                  /* the journal is full at this multiple of the checkpoint's bytes */
#define PARTS           8u                  /* files that share the bytes of a checkpoint */
#define CHECKPOINT_ROOM (UINT64_C(1) << 20) /* bytes that a checkpoint takes besides its data: LMDB's inner pages */

/* ---- opening ---- */

static void close_both(int one, int other)
{
    if (one >= 0)
        close(one);
    if (other >= 0)
        close(other);
}

/* Make a directory and its entry durable.  A directory whose entry cannot be synced is removed: the next sync may
 * succeed without having written it. */
static int make_directory(const char *path, const char *above)
{
    bool made = mkdir(path, 0700) == 0;

    if (!made && errno != EEXIST)
        return -errno;
    int result = fd_sync_directory(above);
    if (result < 0 && made)
        rmdir(path);
    return result;
}

static void remove_file(const struct journal_files *files, uint32_t name)
{
    char text[PLACES_NAME_MAX];

    places_journal_file(name, text);
    unlinkat(files->directory, text, 0);
}

/* Sort the files that are there into those in use and the spares. */
static int take_stock(struct journal_files *files)
{
    struct journal_listed *listed = calloc(JOURNAL_FILES_MAX, sizeof(*listed));
    size_t count;
    int result = listed ? journal_scan_files(files->directory, listed, &count) : -ENOMEM;

    for (size_t i = 0; result == 0 && i < count; i++) {
        const struct journal_listed *file = &listed[i];
        if (file->name >= files->next_name)
            files->next_name = file->name + 1;
        if (file->reason == JOURNAL_WHOLE) {
            /* This process never writes to it: the predecessor may have condemned it. */
            files->file[files->count++] = (struct journal_file){file->name, true, file->head.follows, file->size};
            files->waiting += file->size;
        } else if (journal_scan_is_foreign(file)) {
            continue; /* no recovery has read it: it stays as it is */
        } else if (file->size == files->file_size) {
            files->spare[files->spares++] = file->name;
        } else {
            remove_file(files, file->name); /* a mirror died before it had allocated the blocks */
        }
    }
    if (files->waiting)
        files->oldest = clock_monotonic();
    free(listed);
    return result;
}

/* The spares' names could not be synced, and may never be written although the next sync succeeds. */
static void forget_spares(struct journal_files *files)
{
    while (files->spares > 0)
        remove_file(files, files->spare[--files->spares]);
}

/* Open the directory, or make it.  Where that fails what was open before stays so, and its loss can be seen. */
static int open_directory(struct journal_files *files, char path[PLACES_PATH_MAX])
{
    const char *state = files->fs->state;
    char above[PLACES_PATH_MAX];
    struct stat st;

    places_in_state(state, PLACES_JOURNAL, path);
    snprintf(above, sizeof(above), "%s", state);
    int result = make_directory(state, dirname(above));
    if (result == 0)
        result = make_directory(path, state);
    if (result < 0)
        return result;
    int state_fd = open(state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = state_fd < 0 ? -1 : openat(state_fd, PLACES_JOURNAL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        result = -errno;
        close_both(state_fd, fd);
        return result;
    }
    close_both(files->above, files->directory);
    files->above = state_fd;
    files->directory = fd;
    files->device = st.st_dev;
    files->inode = st.st_ino;
    files->looked = (struct timespec){0};
    STORE(files->away, false);
    return 0;
}

/* What tells the directory from another one in its place: below the mount point of a disk that is not mounted, or on
 * another disk, which may have its number.  `born` is 0 where that can't be told. */
static struct journal_state place_of(const struct journal_files *files)
{
    struct journal_state place = {.device = files->device, .inode = files->inode};
    struct statx about;

    if (statx(files->directory, "", AT_EMPTY_PATH, STATX_BTIME, &about) == 0 && (about.stx_mask & STATX_BTIME))
        place.born = (uint64_t)about.stx_btime.tv_sec * NS_PER_S + about.stx_btime.tv_nsec;
    return place;
}

/* Is it the one that the mirror before had, if there was one? */
static bool is_known(const struct journal_files *files)
{
    const struct journal_state *known = &files->fs->header->journal, place = place_of(files);

    return LOAD(known->inode) == 0 || (LOAD(known->device) == place.device && LOAD(known->inode) == place.inode &&
                                       LOAD(known->born) == place.born);
}

void journal_files_trust(struct journal_files *files)
{
    const struct header *h = files->fs->header;
    struct journal_state place = place_of(files);

    STORE(h->journal.device, place.device);
    STORE(h->journal.inode, place.inode);
    STORE(h->journal.born, place.born);
    files->sure = true;
}

/* Its entries are durable then: a file that a predecessor made may be missing on the disk before. */
static int sync_entries(const struct journal_files *files)
{
    return fsync(files->directory) < 0 ? -errno : 0;
}

int journal_files_open(struct journal_files *files, struct fastspool *fs, uint64_t limit,
                       char error[FASTSPOOL_ERROR_MAX])
{
    char path[PLACES_PATH_MAX];
    uint64_t part = limit / PARTS / FORMAT_BLOCK * FORMAT_BLOCK;

    *files = (struct journal_files){.fs = fs,
                                    .above = -1,
                                    .directory = -1,
                                    .limit = limit,
                                    .ends = {.unknown = LOAD(fs->header->journal.batch)},
                                    .mutex = PTHREAD_MUTEX_INITIALIZER,
                                    .preparing = PTHREAD_MUTEX_INITIALIZER,
                                    .file_size = part > JOURNAL_FILE_MIN ? part : JOURNAL_FILE_MIN};
    int result = open_directory(files, path);
    if (result == 0) {
        int stock = take_stock(files);
        result = sync_entries(files);
        if (result < 0)
            forget_spares(files);
        result = result < 0 ? result : stock;
    }
    files->sure = result == 0 && is_known(files);
    return result < 0 ? error_set(error, result, "open the journal %s: %s", path, strerrordesc_np(-result)) : 0;
}

void journal_files_close(struct journal_files *files)
{
    close_both(files->above, files->directory);
    files->above = files->directory = -1;
    ends_free(&files->ends);
}

/* ---- what is gone ---- */

/* The mutex is held. */
static bool is_gone(const struct journal_files *files, uint32_t name)
{
    char text[PLACES_NAME_MAX];

    places_journal_file(name, text);
    return faccessat(files->directory, text, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

static void look_at_names(struct journal_files *files)
{
    size_t kept = 0;

    pthread_mutex_lock(&files->mutex);
    for (size_t i = 0; i < files->count; i++) {
        if (is_gone(files, files->file[i].name))
            journal_files_lose(files);
    }
    for (size_t i = 0; i < files->spares; i++) {
        if (!is_gone(files, files->spare[i]))
            files->spare[kept++] = files->spare[i];
    }
    files->spares = kept;
    pthread_mutex_unlock(&files->mutex);
}

/* Of a directory that was changed at @time: would one more change be seen in its time? */
static bool has_ticked(const struct timespec *time)
{
    uint64_t tick = time->tv_nsec ? TICK : 2 * NS_PER_S; /* a file system that counts seconds */

    return clock_realtime() > clock_nanoseconds(time) + tick;
}

bool journal_files_whole(struct journal_files *files)
{
    struct stat st;

    if (fstat(files->directory, &st) == 0 &&
        (st.st_mtim.tv_sec != files->looked.tv_sec || st.st_mtim.tv_nsec != files->looked.tv_nsec)) {
        files->looked = has_ticked(&st.st_mtim) ? st.st_mtim : (struct timespec){0};
        look_at_names(files);
    }
    return !LOAD(files->lost);
}

/* A directory that has been moved, or whose disk was unmounted, has its links. */
static bool is_removed(int directory)
{
    struct stat st;

    return fstat(directory, &st) == 0 && st.st_nlink == 0;
}

void journal_files_look(struct journal_files *files, bool database)
{
    struct stat st;

    int result = fstatat(files->above, PLACES_JOURNAL, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
    bool away = database || result == -ENOENT || result == -ENOTDIR ||
                (result == 0 && (st.st_dev != files->device || st.st_ino != files->inode));
    STORE(files->away, away);
    files->removed = result == -ENOENT && !database && is_removed(files->directory);
    if (result == 0 && !away)
        journal_files_whole(files);
}

void journal_files_lose(struct journal_files *files)
{
    STORE(files->lost, 1);
}

bool journal_files_lost(const struct journal_files *files)
{
    return LOAD(files->away) || LOAD(files->lost);
}

bool journal_files_sure(const struct journal_files *files)
{
    return files->sure && (!LOAD(files->away) || files->removed);
}

/* ---- room ---- */

static uint32_t new_name(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    uint32_t name = files->next_name++;
    pthread_mutex_unlock(&files->mutex);
    return name;
}

/* Bytes of the disk that a checkpoint may take, once another file is full too. */
static uint64_t owed(const struct journal_files *files)
{
    uint64_t waits = files->waiting + files->file_size;
    return waits + waits / 4 + CHECKPOINT_ROOM;
}

/* For statvfs.  The mutex is held. */
static void publish_room(struct journal_files *files)
{
    STORE(files->fs->header->disk.owed, owed(files));
    STORE(files->fs->header->disk.reusable, files->reusable);
}

/* May another file be filled, which still needs @taken bytes of the disk?  It must leave room for a checkpoint of all
 * that waits, on the disk or among the database's free pages: a journal that took the last of the disk could never be
 * emptied.  -ENOSPC: no; a checkpoint now gives files back. */
static int ask_for_room(struct journal_files *files, uint64_t taken)
{
    struct statvfs disk;
    int result = fstatvfs(files->directory, &disk) < 0 ? -errno : 0;

    pthread_mutex_lock(&files->mutex);
    uint64_t room = result < 0 ? 0 : (uint64_t)disk.f_bavail * disk.f_frsize + files->reusable;
    if (result == 0 && room < taken + owed(files))
        result = -ENOSPC;
    files->no_space = result == -ENOSPC;
    pthread_mutex_unlock(&files->mutex);
    return result;
}

/* ---- making and taking files ---- */

/* A quota is reached, of which statvfs knows nothing, or somebody was faster: a checkpoint gives files back. */
static void lack_room(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    files->no_space = true;
    pthread_mutex_unlock(&files->mutex);
}

/* PIECE zeros that take no memory: the kernel has a huge page of them, for all.  It is one segment of a request to the
 * disk, where 256 small ones are too many for one.  (Measured, loop device: 8 MiB are 8 operations instead of 16, and a
 * disk that counts has 200 a second.)  Kept for good. */
static const char *zeros(void)
{
    static const char *found; /* under files->preparing */

    if (!found) {
        char *room = mmap(NULL, 2 * PIECE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED)
            return NULL;
        room += -(uintptr_t)room % PIECE;
        madvise(room, PIECE, MADV_HUGEPAGE);
        found = room;
    }
    return found;
}

static int write_zeros(int fd, uint64_t size)
{
    const char *nothing = zeros();
    int result = nothing ? 0 : -ENOMEM;

    for (uint64_t done = 0; result == 0 && done < size; done += PIECE)
        result = fd_write_all(fd, nothing, size - done < PIECE ? size - done : PIECE, done);
    return result;
}

/* Fill a new file with zeros, past the page cache if the file system can.  (Measured, ext4: 8 MiB cost 0.55 ms of
 * processor instead of 3.  And the cache would keep them in large folios, of which an append looks at every block.) */
static int fill(int fd, uint64_t size)
{
    bool direct = fcntl(fd, F_SETFL, O_DIRECT) == 0;
    int result = write_zeros(fd, size);

    if (result == -EINVAL && direct && fcntl(fd, F_SETFL, 0) == 0)
        result = write_zeros(fd, size);
    return result;
}

/* Make a file with all its blocks and a durable entry.  @zeros: write it full; else only allocate the blocks, so that
 * an append costs more, but the file is there at once. */
static int make_file(struct journal_files *files, bool zeros, uint32_t *name)
{
    char text[PLACES_NAME_MAX];
    int result = ask_for_room(files, files->file_size);

    if (result < 0)
        return result;
    *name = new_name(files);
    places_journal_file(*name, text);
    int fd = openat(files->directory, text, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    result = fd < 0 ? -errno : -posix_fallocate(fd, 0, (off_t)files->file_size);
    if (zeros && result == 0)
        result = fill(fd, files->file_size);
    if (result == 0 && (fdatasync(fd) < 0 || fsync(files->directory) < 0))
        result = -errno;
    if (fd >= 0)
        close(fd);
    if (result < 0 && fd >= 0)
        remove_file(files, *name);
    if (error_is_full(result))
        lack_room(files);
    return result;
}

int journal_files_prepare(struct journal_files *files)
{
    uint32_t name;

    pthread_mutex_lock(&files->preparing);
    pthread_mutex_lock(&files->mutex);
    bool enough = files->spares > 0;
    pthread_mutex_unlock(&files->mutex);
    int result = enough ? 0 : make_file(files, true, &name);
    if (!enough && result == 0) {
        pthread_mutex_lock(&files->mutex);
        files->spare[files->spares++] = name;
        pthread_mutex_unlock(&files->mutex);
    }
    pthread_mutex_unlock(&files->preparing);
    return result;
}

static bool take_spare(struct journal_files *files, uint32_t *name)
{
    pthread_mutex_lock(&files->mutex);
    bool any = files->spares > 0;
    if (any)
        *name = files->spare[--files->spares];
    pthread_mutex_unlock(&files->mutex);
    return any;
}

/* No room for a file?  The checkpointer may just be making the last of it into a spare. */
static bool take_prepared(struct journal_files *files, uint32_t *name)
{
    pthread_mutex_lock(&files->preparing);
    pthread_mutex_unlock(&files->preparing);
    return take_spare(files, name);
}

/* The name of a file to begin, with room for a file's bytes. */
static int next_name(struct journal_files *files, uint32_t *name)
{
    pthread_mutex_lock(&files->mutex);
    bool many = files->count + files->spares + 2 > JOURNAL_FILES_MAX;
    files->no_space |= many; /* a checkpoint releases some */
    pthread_mutex_unlock(&files->mutex);
    if (many)
        return -ENOSPC;
    int result = ask_for_room(files, 0);
    if (result == -ENOSPC && take_spare(files, name))
        remove_file(files, *name); /* the database needs it more */
    if (result == 0 && !take_spare(files, name)) {
        result = make_file(files, false, name);
        if (error_is_full(result) && take_prepared(files, name))
            result = 0;
    }
    return result;
}

int journal_files_begin(struct journal_files *files)
{
    char text[PLACES_NAME_MAX];
    uint32_t name = 0;
    int result, fd = -1;

    do { /* once more where it was a spare that somebody has removed */
        result = next_name(files, &name);
        if (result == 0) {
            places_journal_file(name, text);
            fd = openat(files->directory, text, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        }
    } while (result == 0 && fd < 0 && errno == ENOENT);
    if (result == -ENOENT) /* no file can be made: the directory was removed */
        journal_files_lose(files);
    if (fd < 0)
        return result < 0 ? result : -errno;
    pthread_mutex_lock(&files->mutex);
    files->file[files->count++] =
        (struct journal_file){name, false, LOAD(files->fs->header->journal.durable), files->file_size};
    pthread_mutex_unlock(&files->mutex);
    return fd;
}

void journal_files_condemn(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    struct journal_file *file = &files->file[files->count - 1];
    file->condemned = true;
    uint32_t name = file->name;
    bool empty = file->follows == LOAD(files->fs->header->journal.durable);
    if (empty)
        files->count--;
    pthread_mutex_unlock(&files->mutex);
    if (empty)
        remove_file(files, name);
}

/* Where there are too many, or there is no memory for them, the next checkpoint has to look for them.  The mutex is
 * held. */
static void note_ends(struct journal_files *files, uint64_t number, const struct capture *capture)
{
    struct ends *ends = &files->ends;

    for (size_t i = 0; i < capture->count; i++) {
        const struct captured *file = &capture->file[i];
        if (file->state.links > 0 || (ends->count < ENDS_MAX && ends_add(ends, file->inode, number) == 0))
            continue;
        ends_free(ends);
        ends->unknown = number;
    }
}

void journal_files_grow(struct journal_files *files, uint64_t number, const struct capture *capture, uint64_t end,
                        uint64_t bytes)
{
    pthread_mutex_lock(&files->mutex);
    /* Both under the mutex: a checkpoint up to this batch knows its ends, and one that ends before it doesn't. */
    STORE(files->fs->header->journal.durable, number);
    note_ends(files, number, capture);
    struct journal_file *file = &files->file[files->count - 1];
    if (end > file->size) /* a batch larger than a file has made it larger */
        file->size = end;
    files->waiting += bytes;
    if (files->oldest == 0)
        files->oldest = clock_monotonic();
    publish_room(files);
    pthread_mutex_unlock(&files->mutex);
}

/* All that is there holds what the database has, but for files that are another version's. */
static int remove_all(const struct journal_files *files)
{
    struct journal_listed *listed = calloc(JOURNAL_FILES_MAX, sizeof(*listed));
    size_t count;
    int result = listed ? journal_scan_files(files->directory, listed, &count) : -ENOMEM;

    for (size_t i = 0; result == 0 && i < count; i++) {
        if (!journal_scan_is_foreign(&listed[i]))
            remove_file(files, listed[i].name);
    }
    free(listed);
    return result;
}

int journal_files_renew(struct journal_files *files, char error[FASTSPOOL_ERROR_MAX])
{
    char path[PLACES_PATH_MAX];

    pthread_mutex_lock(&files->preparing);
    pthread_mutex_lock(&files->mutex);
    int result = open_directory(files, path);
    if (result == 0)
        result = sync_entries(files);
    if (result == 0)
        result = remove_all(files);
    if (result == 0) {
        files->count = files->spares = 0;
        files->waiting = files->oldest = 0;
        ends_free(&files->ends);
        files->no_space = false;
        journal_files_trust(files);
        publish_room(files);
    }
    STORE(files->lost, result < 0);
    pthread_mutex_unlock(&files->mutex);
    pthread_mutex_unlock(&files->preparing);
    return result < 0 ? error_set(error, result, "open the journal %s: %s", path, strerrordesc_np(-result)) : 0;
}

/* ---- checkpoints ---- */

struct journal_point journal_files_point(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    /* In this order: header.journal.durable is stored before header.tickets.durable. */
    uint64_t ticket = LOAD(files->fs->header->tickets.durable);
    const struct journal_point point = {ticket, LOAD(files->fs->header->journal.durable), files->waiting, files->ends};
    files->ends = (struct ends){0};
    files->wanted = false;
    pthread_mutex_unlock(&files->mutex);
    return point;
}

void journal_files_miss(struct journal_files *files, struct journal_point *point)
{
    ends_free(&point->ends);
    pthread_mutex_lock(&files->mutex);
    if (files->ends.unknown < point->number)
        files->ends.unknown = point->number;
    pthread_mutex_unlock(&files->mutex);
}

void journal_files_release(struct journal_files *files, struct journal_point *point, uint64_t reusable)
{
    size_t kept = 0;

    ends_free(&point->ends);
    pthread_mutex_lock(&files->mutex);
    files->reusable = reusable;
    for (size_t i = 0; i < files->count; i++) {
        const struct journal_file file = files->file[i];
        bool last = i + 1 == files->count;
        if (last || files->file[i + 1].follows > point->number)
            files->file[kept++] = file;
        else if (file.condemned || file.size != files->file_size || files->spares >= 2 * PARTS)
            remove_file(files, file.name);
        else
            files->spare[files->spares++] = file.name;
    }
    files->count = kept;
    files->waiting -= point->bytes;
    files->oldest = files->waiting ? clock_monotonic() : 0;
    files->no_space = false;
    publish_room(files);
    pthread_mutex_unlock(&files->mutex);
}

void journal_files_want_checkpoint(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    files->wanted = true;
    pthread_mutex_unlock(&files->mutex);
}

static bool is_due(const struct journal_files *files)
{
    return files->waiting >= files->limit || (files->waiting && files->no_space) ||
           (files->wanted &&
            LOAD(files->fs->header->residency.checkpointed) < LOAD(files->fs->header->tickets.durable)) ||
           (files->oldest && clock_monotonic() - files->oldest >= AGE);
}

bool journal_files_due(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    bool due = is_due(files);
    pthread_mutex_unlock(&files->mutex);
    return due;
}

bool journal_files_wanting(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    bool wants = is_due(files) || files->spares == 0;
    pthread_mutex_unlock(&files->mutex);
    return wants;
}

bool journal_files_full(struct journal_files *files)
{
    pthread_mutex_lock(&files->mutex);
    bool full = files->waiting >= FULL * files->limit;
    pthread_mutex_unlock(&files->mutex);
    return full;
}

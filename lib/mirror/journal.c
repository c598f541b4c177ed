/* SPDX-License-Identifier: MIT
 *
 * Writing and reading the journal (its form: journal.h).
 *
 * The happy path of a batch: its number is taken and published, then head, payload and tail go out in one contiguous
 * write (in pieces of a MiB where it is large), then one fdatasync, then the number is the durable one.  A batch that
 * does not fit what is left of the file begins the next one, together with that file's head: still one write.
 *
 * Failure modes: a write or fdatasync that fails condemns the file, for the kernel may have dropped its pages and call
 * the next fdatasync a success: the next batch, which holds everything again, goes to another file.  A condemned file
 * that holds nothing durable is removed at once, so that a disk that fails for hours isn't filled by the tries.  No
 * spare file and no room for one (nor for the checkpoint that must follow) is the error of the commit, ENOSPC.
 *
 * Reading stops at the first block of a file that isn't a whole batch of that file: a torn end, or what an earlier use
 * left.  It goes on with the next file; whether something is missing in between, the chain of numbers tells.
 */
#include "mirror/journal.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/format.h"
#include "store/layout.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define HEAD_MAGIC  UINT64_C(0x314c4e524a505346) /* "FSPJRNL1" */
#define BATCH_MAGIC UINT64_C(0x3148435441425346) /* "FSBATCH1" */
#define TAIL_MAGIC  UINT64_C(0x31444e4554414246) /* "FBATEND1" */

#define BLOCK 4096u      /* batches begin on a boundary: no write touches a block that holds durable bytes */
#define PIECE (1u << 20) /* bytes of one pwrite */
#define CHECKPOINT_ROOM                                                                          \
    (UINT64_C(1) << 20) /* bytes that a checkpoint may take besides its data: LMDB's inner pages \
                         */

struct journal_head {
    uint64_t magic;
    uint64_t first;   /* number of the file's first batch: orders the files */
    uint64_t follows; /* number of the last durable batch when the file was begun */
    uint64_t salt;
    uint32_t zero;
    uint32_t crc; /* of all before */
};

struct batch_head {
    uint64_t magic;
    uint64_t salt;
    uint64_t number;
    uint64_t previous;
    uint64_t size; /* of the payload, a multiple of 8 */
    uint32_t root; /* inode of the spool directory */
    uint32_t crc;  /* of all before */
};

struct batch_tail {
    uint64_t magic;
    uint64_t number;
    uint32_t crc; /* of the payload */
    uint32_t zero;
};

#define CRC_START UINT32_MAX

static uint32_t crc32c(uint32_t crc, const void *bytes, size_t size)
{
    return crc32_iscsi((unsigned char *)bytes, (int)size, crc);
}

static uint64_t padded(uint64_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

static uint64_t space_of(uint64_t payload)
{
    return padded(sizeof(struct batch_head) + payload + sizeof(struct batch_tail));
}

/* ---- reading heads ---- */

struct found_file {
    uint32_t name;
    uint64_t size;
    bool valid;
    struct journal_head head;
};

static int read_head(int directory, struct found_file *file)
{
    char name[PLACES_NAME_MAX];
    struct stat st;

    places_journal_file(file->name, name);
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = fstat(fd, &st) < 0 ? -1 : pread(fd, &file->head, sizeof(file->head), 0);
    int result = got < 0 ? -errno : 0;
    close(fd);
    file->size = result == 0 ? (uint64_t)st.st_size : 0;
    file->valid = got == sizeof(file->head) && file->head.magic == HEAD_MAGIC &&
                  file->head.crc == crc32c(CRC_START, &file->head, offsetof(struct journal_head, crc));
    return result;
}

static int by_first(const void *a, const void *b)
{
    const struct found_file *one = a, *other = b;

    if (one->valid != other->valid)
        return one->valid ? -1 : 1;
    return one->head.first < other->head.first ? -1 : one->head.first > other->head.first;
}

/* All files of the journal, those with a head first, in their order. */
static int find_files(int directory, struct found_file files[JOURNAL_FILES_MAX], size_t *count)
{
    DIR *listing = fdopendir(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int result = 0;

    *count = 0;
    if (!listing)
        return -errno;
    for (struct dirent *entry; result == 0 && (errno = 0, entry = readdir(listing));) {
        struct found_file file = {0};
        if (places_parse_journal_file(entry->d_name, &file.name) < 0)
            continue;
        if (*count == JOURNAL_FILES_MAX) {
            result = -EFBIG;
            break;
        }
        result = read_head(directory, &file);
        if (result == 0)
            files[(*count)++] = file;
        else if (result == -ENOENT)
            result = 0; /* released meanwhile: it held nothing that counts */
    }
    if (result == 0 && errno)
        result = -errno; /* a listing that ends early would be a journal that ends early */
    closedir(listing);
    qsort(files, *count, sizeof(*files), by_first);
    return result;
}

/* ---- looking through it ---- */

struct look {
    int fd;
    uint64_t above, upto;
    journal_visit *visit;
    void *context;
    struct journal_found *found;
    char *buffer;
    size_t room;
};

/* Bytes of @fd into the buffer.  1: all of them; 0: the file ends before. */
static int fetch(struct look *look, int fd, uint64_t size, uint64_t offset)
{
    if (size > look->room) {
        free(look->buffer);
        look->buffer = malloc(size);
        look->room = look->buffer ? size : 0;
        if (!look->buffer)
            return -ENOMEM;
    }
    for (uint64_t done = 0; done < size;) {
        ssize_t got = pread(fd, look->buffer + done, size - done, (off_t)(offset + done));
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        done += (uint64_t)got;
    }
    return 1;
}

/* The batch at @offset of a file.  1: it is one, its head in @head, its payload in the buffer; 0: it isn't. */
static int read_batch(struct look *look, int fd, const struct found_file *file, uint64_t offset,
                      struct batch_head *head)
{
    struct batch_tail tail;
    ssize_t got = pread(fd, head, sizeof(*head), (off_t)offset);

    if (got < 0)
        return -errno;
    if (got < (ssize_t)sizeof(*head) || head->magic != BATCH_MAGIC || head->salt != file->head.salt ||
        head->crc != crc32c(CRC_START, head, offsetof(struct batch_head, crc)) || head->size > file->size)
        return 0;
    int result = fetch(look, fd, head->size + sizeof(tail), offset + sizeof(*head));
    if (result != 1)
        return result;
    memcpy(&tail, look->buffer + head->size, sizeof(tail));
    uint32_t crc = CRC_START;
    for (uint64_t done = 0; done < head->size; done += PIECE)
        crc = crc32c(crc, look->buffer + done, head->size - done < PIECE ? head->size - done : PIECE);
    return tail.magic == TAIL_MAGIC && tail.number == head->number && tail.crc == crc;
}

/* A batch that counts: is it the one that was expected? */
static void follow(struct look *look, const struct batch_head *head)
{
    struct journal_found *found = look->found;

    if (found->batches == 0)
        found->detached = head->previous != look->above;
    else if (head->previous != found->last)
        found->missing++;
    found->last = head->number;
    found->batches++;
    found->bytes += head->size;
}

/* The batches of one file, up to number @limit. */
static int look_at_file(struct look *look, const struct found_file *file, uint64_t limit)
{
    struct batch_head head;
    uint64_t before = 0;
    char name[PLACES_NAME_MAX];
    int result;

    places_journal_file(file->name, name);
    int fd = openat(look->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    for (uint64_t offset = BLOCK; (result = read_batch(look, fd, file, offset, &head)) == 1 && head.number > before;
         offset += space_of(head.size)) {
        before = head.number;
        if (head.number > look->found->highest)
            look->found->highest = head.number;
        if (head.number <= look->above || head.number > limit || head.number > look->upto)
            continue;
        follow(look, &head);
        result = look->visit(look->context, head.number, head.root, look->buffer, head.size);
        if (result < 0)
            break;
    }
    close(fd);
    return result < 0 ? result : 0;
}

int journal_look(int fd, uint64_t above, uint64_t upto, journal_visit *visit, void *context,
                 struct journal_found *found)
{
    struct look look = {.fd = fd, .above = above, .upto = upto, .visit = visit, .context = context, .found = found};
    struct found_file *files = calloc(JOURNAL_FILES_MAX, sizeof(*files));
    size_t count;

    *found = (struct journal_found){.last = above, .highest = above};
    if (!files)
        return -ENOMEM;
    int result = find_files(fd, files, &count);
    for (size_t i = 0; result == 0 && i < count && files[i].valid; i++) {
        uint64_t limit = UINT64_MAX;
        for (size_t later = i + 1; later < count && files[later].valid; later++) {
            if (files[later].head.follows < limit)
                limit = files[later].head.follows;
        }
        if (files[i].head.first > found->highest)
            found->highest = files[i].head.first;
        if (limit > above)
            result = look_at_file(&look, &files[i], limit);
    }
    free(look.buffer);
    free(files);
    return result;
}

/* ---- opening ---- */

/* Make a directory and its entry durable.  Where that fails there is none: the next sync may say that all is well. */
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

static void remove_file(struct journal *journal, uint32_t name)
{
    char text[PLACES_NAME_MAX];

    places_journal_file(name, text);
    unlinkat(journal->directory, text, 0);
}

/* Sort the files that are there into those in use and the spares. */
static int take_stock(struct journal *journal)
{
    struct found_file *files = calloc(JOURNAL_FILES_MAX, sizeof(*files));
    size_t count;
    int result = files ? find_files(journal->directory, files, &count) : -ENOMEM;

    for (size_t i = 0; result == 0 && i < count; i++) {
        const struct found_file *file = &files[i];
        if (file->name >= journal->next_name)
            journal->next_name = file->name + 1;
        if (file->valid) {
            /* Never written by this process: whatever its predecessor met there, this one doesn't know. */
            journal->file[journal->files++] = (struct journal_file){file->name, true, file->head.follows, file->size};
            journal->waiting += file->size;
        } else if (file->size == journal->file_size) {
            journal->spare[journal->spares++] = file->name;
        } else {
            remove_file(journal, file->name); /* its maker died before it had taken the blocks */
        }
    }
    if (journal->waiting)
        journal->oldest = clock_monotonic();
    free(files);
    return result;
}

/* Their names could not be synced, and may never be written, though the next sync says that all is well. */
static void forget_spares(struct journal *journal)
{
    while (journal->spares > 0)
        remove_file(journal, journal->spare[--journal->spares]);
}

int journal_open(struct journal *journal, struct fastspool *fs, uint64_t limit, char error[FASTSPOOL_ERROR_MAX])
{
    char path[PLACES_PATH_MAX], above[PLACES_PATH_MAX];
    uint64_t part = limit / JOURNAL_PARTS / BLOCK * BLOCK;

    *journal = (struct journal){.fs = fs,
                                .fd = -1,
                                .directory = -1,
                                .limit = limit,
                                .mutex = PTHREAD_MUTEX_INITIALIZER,
                                .preparing = PTHREAD_MUTEX_INITIALIZER,
                                .file_size = part > JOURNAL_FILE_MIN ? part : JOURNAL_FILE_MIN};
    places_in_state(fs->state, PLACES_JOURNAL, path);
    snprintf(above, sizeof(above), "%s", fs->state);
    int result = make_directory(fs->state, dirname(above));
    if (result == 0)
        result = make_directory(path, fs->state);
    if (result == 0) {
        journal->directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        /* A file that a predecessor made may be missing on the disk until the directory is synced. */
        result = journal->directory < 0 || fsync(journal->directory) < 0 ? -errno : 0;
        int stock = journal->directory < 0 ? result : take_stock(journal);
        if (result < 0)
            forget_spares(journal);
        result = result < 0 ? result : stock;
    }
    return result < 0 ? error_set(error, result, "open the journal %s: %s", path, strerrordesc_np(-result)) : 0;
}

void journal_close(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    if (journal->directory >= 0)
        close(journal->directory);
    journal->fd = journal->directory = -1;
}

/* ---- files ---- */

static uint32_t new_name(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    uint32_t name = journal->next_name++;
    pthread_mutex_unlock(&journal->mutex);
    return name;
}

/* Bytes that a checkpoint of what waits may take of the disk, when another file is full too. */
static uint64_t owed(const struct journal *journal)
{
    uint64_t waits = journal->waiting + journal->file_size;
    return waits + waits / 4 + CHECKPOINT_ROOM;
}

/* What statvfs has to know; the mutex is held. */
static void publish_room(struct journal *journal)
{
    STORE(journal->fs->header->disk.owed, owed(journal));
    STORE(journal->fs->header->disk.reusable, journal->reusable);
}

/* May another file be filled, for which @taken bytes of the disk are still to be taken?  After it there must be room
 * for a checkpoint of all that waits: on the disk, or among the database's free pages.  A journal that took the last of
 * the disk would leave none for the database, and could never be emptied.  Where there isn't, a checkpoint now gives
 * files back. */
static int ask_for_room(struct journal *journal, uint64_t taken)
{
    struct statvfs disk;
    int result = fstatvfs(journal->directory, &disk) < 0 ? -errno : 0;

    pthread_mutex_lock(&journal->mutex);
    uint64_t room = result < 0 ? 0 : (uint64_t)disk.f_bavail * disk.f_frsize + journal->reusable;
    if (result == 0 && room < taken + owed(journal))
        result = -ENOSPC;
    journal->no_space = result == -ENOSPC;
    pthread_mutex_unlock(&journal->mutex);
    return result;
}

/* A new file with room for a file's bytes; its entry is durable.  @zeros: written full, else the blocks are only taken
 *  (an append there costs more, but there is something to append to at once). */
static int make_file(struct journal *journal, bool zeros, uint32_t *name)
{
    static const char nothing[PIECE];
    char text[PLACES_NAME_MAX];
    int result = ask_for_room(journal, journal->file_size);

    if (result < 0)
        return result;
    *name = new_name(journal);
    places_journal_file(*name, text);
    int fd = openat(journal->directory, text, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    result = fd < 0 ? -errno : -posix_fallocate(fd, 0, (off_t)journal->file_size);
    for (uint64_t done = 0; zeros && result == 0 && done < journal->file_size; done += PIECE)
        result = fd_write_all(fd, nothing, journal->file_size - done < PIECE ? journal->file_size - done : PIECE, done);
    if (result == 0 && (fdatasync(fd) < 0 || fsync(journal->directory) < 0))
        result = -errno;
    if (fd >= 0)
        close(fd);
    if (result < 0 && fd >= 0)
        remove_file(journal, *name);
    return result;
}

int journal_prepare(struct journal *journal)
{
    uint32_t name;

    pthread_mutex_lock(&journal->preparing);
    pthread_mutex_lock(&journal->mutex);
    bool enough = journal->spares > 0;
    pthread_mutex_unlock(&journal->mutex);
    int result = enough ? 0 : make_file(journal, true, &name);
    if (!enough && result == 0) {
        pthread_mutex_lock(&journal->mutex);
        journal->spare[journal->spares++] = name;
        pthread_mutex_unlock(&journal->mutex);
    }
    pthread_mutex_unlock(&journal->preparing);
    return result;
}

static bool take_spare(struct journal *journal, uint32_t *name)
{
    pthread_mutex_lock(&journal->mutex);
    bool any = journal->spares > 0;
    if (any)
        *name = journal->spare[--journal->spares];
    pthread_mutex_unlock(&journal->mutex);
    return any;
}

/* There was no room for a file: because the last of it is being made into one? */
static bool take_prepared(struct journal *journal, uint32_t *name)
{
    pthread_mutex_lock(&journal->preparing);
    pthread_mutex_unlock(&journal->preparing);
    return take_spare(journal, name);
}

/* Begin another file: a spare one, or a new one. */
static int next_file(struct journal *journal)
{
    char text[PLACES_NAME_MAX];
    uint32_t name;

    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
    pthread_mutex_lock(&journal->mutex);
    bool many = journal->files + journal->spares + 2 > JOURNAL_FILES_MAX;
    journal->no_space |= many; /* a checkpoint makes them fewer */
    pthread_mutex_unlock(&journal->mutex);
    if (many)
        return -ENOSPC;
    int result = ask_for_room(journal, 0);
    if (result == -ENOSPC && take_spare(journal, &name))
        remove_file(journal, name); /* the database needs it more */
    if (result == 0 && !take_spare(journal, &name)) {
        result = make_file(journal, false, &name);
        if (result == -ENOSPC && take_prepared(journal, &name))
            result = 0;
    }
    if (result < 0)
        return result;
    places_journal_file(name, text);
    journal->fd = openat(journal->directory, text, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (journal->fd < 0)
        return -errno;
    pthread_mutex_lock(&journal->mutex);
    journal->file[journal->files++] =
        (struct journal_file){name, false, LOAD(journal->fs->header->journal.durable), journal->file_size};
    pthread_mutex_unlock(&journal->mutex);
    journal->end = 0;
    return 0;
}

/* The file that is written is not to be trusted any more.  Where it holds nothing durable, it goes. */
static void condemn(struct journal *journal)
{
    close(journal->fd);
    journal->fd = -1;
    pthread_mutex_lock(&journal->mutex);
    struct journal_file *file = &journal->file[journal->files - 1];
    file->condemned = true;
    uint32_t name = file->name;
    bool empty = file->follows == LOAD(journal->fs->header->journal.durable);
    if (empty)
        journal->files--;
    pthread_mutex_unlock(&journal->mutex);
    if (empty)
        remove_file(journal, name);
}

struct journal_point journal_point(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    /* In this order: a batch becomes durable before its changes are said to be. */
    uint64_t ticket = LOAD(journal->fs->header->tickets.durable);
    const struct journal_point point = {ticket, LOAD(journal->fs->header->journal.durable), journal->waiting};
    journal->wanted = false;
    pthread_mutex_unlock(&journal->mutex);
    return point;
}

void journal_release(struct journal *journal, struct journal_point point, uint64_t reusable)
{
    size_t kept = 0;

    pthread_mutex_lock(&journal->mutex);
    journal->reusable = reusable;
    for (size_t i = 0; i < journal->files; i++) {
        const struct journal_file file = journal->file[i];
        bool last = i + 1 == journal->files;
        if (last || journal->file[i + 1].follows > point.number)
            journal->file[kept++] = file;
        else if (file.condemned || file.size != journal->file_size || journal->spares >= 2 * JOURNAL_PARTS)
            remove_file(journal, file.name);
        else
            journal->spare[journal->spares++] = file.name;
    }
    journal->files = kept;
    journal->waiting -= point.bytes;
    journal->oldest = journal->waiting ? clock_monotonic() : 0;
    journal->no_space = false;
    publish_room(journal);
    pthread_mutex_unlock(&journal->mutex);
}

void journal_want_checkpoint(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    journal->wanted = true;
    pthread_mutex_unlock(&journal->mutex);
}

static bool is_due(const struct journal *journal)
{
    return journal->waiting >= journal->limit || (journal->waiting && journal->no_space) ||
           (journal->wanted &&
            LOAD(journal->fs->header->residency.checkpointed) < LOAD(journal->fs->header->tickets.durable)) ||
           (journal->oldest && clock_monotonic() - journal->oldest >= JOURNAL_AGE);
}

bool journal_due(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    bool due = is_due(journal);
    pthread_mutex_unlock(&journal->mutex);
    return due;
}

bool journal_wants(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    bool wants = is_due(journal) || journal->spares == 0;
    pthread_mutex_unlock(&journal->mutex);
    return wants;
}

bool journal_full(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    bool full = journal->waiting >= JOURNAL_FULL * journal->limit;
    pthread_mutex_unlock(&journal->mutex);
    return full;
}

/* ---- appending ---- */

/* Collects a batch into pieces, and writes them where they belong. */
struct writer {
    int fd;
    uint64_t offset; /* in the file, of the piece's first byte */
    size_t used;
    uint32_t crc; /* of the payload so far */
};

static char piece[PIECE]; /* one thread appends */

static int write_piece(struct writer *writer)
{
    int result = fd_write_all(writer->fd, piece, writer->used, writer->offset);

    if (result < 0)
        return result;
    writer->offset += writer->used;
    writer->used = 0;
    return 0;
}

static int collect(struct writer *writer, const void *bytes, size_t size)
{
    for (const char *from = bytes; size > 0;) {
        size_t part = size < PIECE - writer->used ? size : PIECE - writer->used;
        if (from)
            memcpy(piece + writer->used, from, part);
        else
            memset(piece + writer->used, 0, part);
        from = from ? from + part : NULL;
        writer->used += part;
        size -= part;
        int result = writer->used == PIECE ? write_piece(writer) : 0;
        if (result < 0)
            return result;
    }
    return 0;
}

static int collect_payload(void *context, const void *bytes, size_t size)
{
    struct writer *writer = context;

    writer->crc = crc32c(writer->crc, bytes, size);
    return collect(writer, bytes, size);
}

/* The head of a file that is begun: a block of its own. */
static int collect_file_head(struct writer *writer, uint64_t first, uint64_t follows, uint64_t salt)
{
    struct journal_head head = {.magic = HEAD_MAGIC, .first = first, .follows = follows, .salt = salt};

    head.crc = crc32c(CRC_START, &head, offsetof(struct journal_head, crc));
    int result = collect(writer, &head, sizeof(head));
    return result ? result : collect(writer, NULL, BLOCK - sizeof(head));
}

static int write_batch(struct journal *journal, const struct capture *capture, uint64_t number)
{
    struct header *h = journal->fs->header;
    struct writer writer = {.fd = journal->fd, .offset = journal->end, .crc = CRC_START};
    struct batch_head head = {.magic = BATCH_MAGIC,
                              .salt = journal->salt,
                              .number = number,
                              .previous = LOAD(h->journal.durable),
                              .size = format_size(capture),
                              .root = h->tree.root};
    int result = journal->end == 0 ? collect_file_head(&writer, number, head.previous, journal->salt) : 0;

    head.crc = crc32c(CRC_START, &head, offsetof(struct batch_head, crc));
    if (result == 0)
        result = collect(&writer, &head, sizeof(head));
    if (result == 0)
        result = format_encode(journal->fs, capture, collect_payload, &writer);
    const struct batch_tail tail = {.magic = TAIL_MAGIC, .number = number, .crc = writer.crc};
    if (result == 0)
        result = collect(&writer, &tail, sizeof(tail));
    if (result == 0)
        result = collect(&writer, NULL, space_of(head.size) - sizeof(head) - head.size - sizeof(tail));
    if (result == 0)
        result = write_piece(&writer);
    if (result == 0 && fdatasync(journal->fd) < 0)
        result = -errno;
    journal->end = writer.offset;
    return result;
}

/* Bytes that wait for a checkpoint; a batch larger than a file has made the file larger. */
static void count_waiting(struct journal *journal, uint64_t bytes)
{
    pthread_mutex_lock(&journal->mutex);
    struct journal_file *file = &journal->file[journal->files - 1];
    if (journal->end > file->size)
        file->size = journal->end;
    journal->waiting += bytes;
    if (journal->oldest == 0)
        journal->oldest = clock_monotonic();
    publish_room(journal);
    pthread_mutex_unlock(&journal->mutex);
}

int journal_append(struct journal *journal, const struct capture *capture, char error[FASTSPOOL_ERROR_MAX])
{
    struct header *h = journal->fs->header;
    uint64_t space = space_of(format_size(capture));
    uint64_t begun = journal->end;
    int result = 0;

    if (journal->fd < 0 || (journal->end > 0 && journal->end + space > journal->file_size)) {
        result = getrandom(&journal->salt, sizeof(journal->salt), 0) > 0 ? next_file(journal) : -EIO;
        begun = 0;
    }
    if (result < 0) {
        return error_set(error, result, "begin a journal file: %s", strerrordesc_np(-result));
    }
    uint64_t number = LOAD(h->journal.batch) + 1;
    STORE(h->journal.batch, number); /* before a byte is written: whoever comes after this process uses others */
    result = write_batch(journal, capture, number);
    if (result < 0) {
        error_set(error, result, "write to the journal: %s", strerrordesc_np(-result));
        condemn(journal);
        return result;
    }
    STORE(h->journal.durable, number);
    count_waiting(journal, journal->end - begun);
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Reading the journal.
 *
 * The happy path: list the files and their heads, put them in the order of their first batches, and read each of them
 * up to its end.
 *
 * Failure modes:
 *  - A file ends in a torn batch, or in what an earlier use left: its end, with a reason; the next file is read.
 *  - Batches are whole, but a later file continues the journal without them: they were never durable, and do not count.
 *  - Batches that were durable cannot be read: `missing` counts the places, `hole` tells the first.
 *  - A file is removed during the scan: it was released, and held no batch in (above, upto].
 *  - A read fails: the scan fails.  A listing that ends early would be a journal that ends early.
 */
#include "mirror/journal_scan.h"

#include "base/places.h"
#include "mirror/format.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *journal_scan_reason(enum journal_reason reason)
{
    static const char *const words[] = {
        [JOURNAL_WHOLE] = "it is whole",
        [JOURNAL_FILE_END] = "the file ends",
        [JOURNAL_ZEROS] = "a block of zeros: never written",
        [JOURNAL_MAGIC] = "no head of a file or batch: its magic number differs",
        [JOURNAL_SALT] = "a batch of an earlier use of the file: its salt differs",
        [JOURNAL_HEAD_CHECKSUM] = "the checksum of the head differs",
        [JOURNAL_TOO_LARGE] = "the batch is larger than its file",
        [JOURNAL_CUT_SHORT] = "cut short: the file ends within a head or batch",
        [JOURNAL_TAIL] = "the tail of the batch differs: it was not written whole",
        [JOURNAL_PAYLOAD_CHECKSUM] = "the checksum of the batch's payload differs",
        [JOURNAL_ORDER] = "the number of the batch does not grow",
        [JOURNAL_FOLLOWS] = "the batch was never durable: a later file follows an earlier batch",
        [JOURNAL_HELD] = "not read: all of its batches that count are older",
        [JOURNAL_GONE] = "the file was removed meanwhile",
        [JOURNAL_NO_FILE] = "it is no regular file",
    };
    return reason < sizeof(words) / sizeof(*words) ? words[reason] : "unknown";
}

/* ---- files and their heads ---- */

static int open_file(int directory, uint32_t name)
{
    char text[PLACES_NAME_MAX];

    places_journal_file(name, text);
    int fd = openat(directory, text, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int read_head(int directory, struct journal_listed *file)
{
    char block[FORMAT_BLOCK];
    struct stat st;
    int fd = open_file(directory, file->name);

    file->reason = JOURNAL_NO_FILE;
    if (fd < 0)
        return fd == -ELOOP || fd == -ENXIO ? 0 : fd; /* a link, a socket */
    int result = fstat(fd, &st) < 0 ? -errno : 0;
    if (result == 0 && S_ISREG(st.st_mode)) {
        ssize_t got = pread(fd, block, sizeof(block), 0);
        file->size = (uint64_t)st.st_size;
        if (got >= 0)
            file->reason = format_file_head(block, (size_t)got, &file->head);
        else
            result = -errno;
    }
    close(fd);
    return result;
}

static int by_first(const void *a, const void *b)
{
    const struct journal_listed *one = a, *other = b;
    bool headless = one->reason != JOURNAL_WHOLE, other_headless = other->reason != JOURNAL_WHOLE;

    if (headless != other_headless)
        return headless ? 1 : -1;
    return one->head.first < other->head.first ? -1 : one->head.first > other->head.first;
}

bool journal_scan_is_foreign(const struct journal_listed *file)
{
    return file->reason == JOURNAL_MAGIC || file->reason == JOURNAL_HEAD_CHECKSUM || file->reason == JOURNAL_NO_FILE;
}

/* A listing with a descriptor of its own: closing it leaves @directory open.  0 or -errno. */
static int open_listing(int directory, DIR **listing)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    *listing = fdopendir(fd);
    if (*listing)
        return 0;
    int error = -errno;
    close(fd);
    return error;
}

int journal_scan_files(int directory, struct journal_listed files[JOURNAL_FILES_MAX], size_t *count)
{
    DIR *listing;
    int result = open_listing(directory, &listing);

    *count = 0;
    if (result < 0)
        return result;
    for (struct dirent *entry; result == 0 && (errno = 0, entry = readdir(listing));) {
        struct journal_listed file = {0};
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
            result = 0; /* released meanwhile: it held no batch in (above, upto] */
    }
    if (result == 0 && errno)
        result = -errno;
    closedir(listing);
    qsort(files, *count, sizeof(*files), by_first);
    return result;
}

/* ---- one batch ---- */

struct reader {
    int directory;
    const struct journal_scan *scan;
    struct journal_found *found;
    char *buffer;
    size_t room;
};

/* Bytes of @fd into the buffer.  1: all of them; 0: the file ends before. */
static int fetch(struct reader *reader, int fd, uint64_t size, uint64_t offset)
{
    if (size > reader->room) {
        free(reader->buffer);
        reader->buffer = malloc(size);
        reader->room = reader->buffer ? size : 0;
        if (!reader->buffer)
            return -ENOMEM;
    }
    for (uint64_t done = 0; done < size;) {
        ssize_t got = pread(fd, reader->buffer + done, size - done, (off_t)(offset + done));
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        done += (uint64_t)got;
    }
    return 1;
}

/* The batch at @offset of a file: its head in @head, its payload in the buffer.  A reason, or -errno of a read. */
static int read_batch(struct reader *reader, int fd, const struct journal_listed *file, uint64_t offset,
                      struct batch_head *head)
{
    char block[FORMAT_BLOCK];
    ssize_t got = pread(fd, block, sizeof(block), (off_t)offset);

    if (got <= 0)
        return got < 0 ? -errno : JOURNAL_FILE_END;
    enum journal_reason reason = format_batch_head(block, (size_t)got, file->head.salt, file->size, head);
    if (reason != JOURNAL_WHOLE)
        return (int)reason;
    int result = fetch(reader, fd, head->size + sizeof(struct batch_tail), offset + sizeof(*head));
    return result < 0 ? result : result == 0 ? JOURNAL_CUT_SHORT : (int)format_batch_body(head, reader->buffer);
}

/* ---- one file ---- */

/* A batch that counts.  Is it the one that was expected? */
static void follow(struct reader *reader, const struct batch_head *head)
{
    struct journal_found *found = reader->found;

    if (found->batches == 0) {
        found->detached = head->previous != reader->scan->above;
    } else if (head->previous != found->last && found->missing++ == 0) {
        found->hole = found->end;
        found->hole_after = found->last;
    }
    found->last = head->number;
    found->batches++;
    found->bytes += head->size;
}

static int show(struct reader *reader, const struct batch_head *head, uint32_t file, uint64_t offset)
{
    const struct journal_scan *scan = reader->scan;
    const struct journal_batch batch = {.file = file,
                                        .offset = offset,
                                        .number = head->number,
                                        .previous = head->previous,
                                        .root = head->root,
                                        .records = reader->buffer,
                                        .size = head->size};

    if (head->number <= scan->above || head->number > scan->upto)
        return 0;
    follow(reader, head);
    return scan->visit ? scan->visit(scan->context, &batch) : 0;
}

/* All batches of an open file; those that do not count may have the highest number.  0, or a negative errno. */
static int read_batches(struct reader *reader, int fd, struct journal_scanned *scanned)
{
    const struct journal_listed *file = scanned->file;
    struct batch_head head;
    uint64_t before = 0, offset = FORMAT_BLOCK;
    bool counts = true;
    int result;

    for (; (result = read_batch(reader, fd, file, offset, &head)) == JOURNAL_WHOLE;
         offset += format_batch_space(head.size)) {
        if (head.number <= before) {
            result = JOURNAL_ORDER;
            break;
        }
        before = head.number;
        scanned->batches++;
        if (head.number > reader->found->highest)
            reader->found->highest = head.number;
        if (counts && head.number > scanned->limit)
            scanned->counted = (struct journal_end){file->name, JOURNAL_FOLLOWS, offset};
        counts = head.number <= scanned->limit;
        result = counts ? show(reader, &head, file->name, offset) : 0;
        if (result < 0)
            return result;
    }
    if (result < 0)
        return result;
    scanned->read = (struct journal_end){file->name, (enum journal_reason)result, offset};
    if (counts)
        scanned->counted = scanned->read;
    return 0;
}

static int read_file(struct reader *reader, struct journal_scanned *scanned)
{
    uint32_t name = scanned->file->name;
    int fd = open_file(reader->directory, name), result = 0;

    if (fd < 0 && fd != -ENOENT)
        return fd;
    if (fd >= 0) {
        result = read_batches(reader, fd, scanned);
        close(fd);
    } else {
        scanned->read = scanned->counted = (struct journal_end){name, JOURNAL_GONE, 0};
    }
    reader->found->end = scanned->counted;
    return result;
}

/* ---- all of it ---- */

/* Batches of files[@i] with higher numbers were never durable: a later file follows an earlier batch. */
static uint64_t limit_of(const struct journal_listed *files, size_t count, size_t i)
{
    uint64_t limit = UINT64_MAX;

    for (size_t later = i + 1; later < count && files[later].reason == JOURNAL_WHOLE; later++) {
        if (files[later].head.follows < limit)
            limit = files[later].head.follows;
    }
    return limit;
}

static int read_files(struct reader *reader, const struct journal_listed *files, size_t count)
{
    struct journal_found *found = reader->found;
    int result = 0;

    for (size_t i = 0; result == 0 && i < count; i++) {
        bool headless = files[i].reason != JOURNAL_WHOLE;
        struct journal_scanned scanned = {.file = &files[i], .limit = headless ? 0 : limit_of(files, count, i)};
        scanned.read = headless ? (struct journal_end){files[i].name, files[i].reason, 0}
                                : (struct journal_end){files[i].name, JOURNAL_HELD, FORMAT_BLOCK};
        scanned.counted = scanned.read;
        if (!headless && files[i].head.first > found->highest)
            found->highest = files[i].head.first;
        if (!headless && scanned.limit > reader->scan->above)
            result = read_file(reader, &scanned);
        if (result == 0 && reader->scan->ended)
            reader->scan->ended(reader->scan->context, &scanned);
    }
    return result;
}

int journal_scan(int directory, const struct journal_scan *scan, struct journal_found *found)
{
    struct reader reader = {.directory = directory, .scan = scan, .found = found};
    struct journal_listed *files = calloc(JOURNAL_FILES_MAX, sizeof(*files));
    size_t count;

    *found = (struct journal_found){.last = scan->above, .highest = scan->above};
    if (!files)
        return -ENOMEM;
    int result = journal_scan_files(directory, files, &count);
    if (result == 0)
        result = read_files(&reader, files, count);
    free(reader.buffer);
    free(files);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * Appending to the journal (its form: journal.h).
 *
 * The happy path: publish the batch's number; write head, payload and tail, contiguous, in one write (in pieces of a
 * MiB where it is large); one fdatasync; then its number is the durable one.  A batch that does not fit into what is
 * left of the file begins the next one, together with that file's head: still one write.
 *
 * Failure modes:
 *  - A write or fdatasync fails: the file is condemned.  The next batch, which holds everything again, goes to another
 *    file.
 *  - The file, or one that it follows, was removed meanwhile: ESTALE, as if the fdatasync had failed.  What nobody can
 *    find again is not durable, nor are the batches before it: rescue.c writes all of it anew.
 *  - STATE/lock was removed meanwhile: another store may have been made beside this one, by a recovery that has not
 *    read the batch.  So the lock is looked at after the fdatasync.  The files are that store's now, and stay.
 *  - No file, and no room for one: ENOSPC, the error of the commit.
 */
#include "mirror/journal.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/format.h"
#include "mirror/journal_files.h"
#include "spool/presence.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (1u << 20) /* bytes of one pwrite */

int journal_open(struct journal *journal, struct fastspool *fs, uint64_t limit, char error[FASTSPOOL_ERROR_MAX])
{
    journal->fd = -1;
    journal->end = journal->salt = 0;
    return journal_files_open(&journal->pool, fs, limit, error);
}

void journal_close(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
    journal_files_close(&journal->pool);
}

int journal_renew(struct journal *journal, char error[FASTSPOOL_ERROR_MAX])
{
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
    journal->end = 0;
    return journal_files_renew(&journal->pool, error);
}

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

/* The checksum is the copy's: whoever can write the segment may change the bytes at any time. */
static int collect_payload(void *context, const void *bytes, size_t size)
{
    struct writer *writer = context;
    int result = 0;

    for (const char *from = bytes; size > 0 && result == 0;) {
        size_t part = size < PIECE - writer->used ? size : PIECE - writer->used;
        const char *copy = piece + writer->used; /* it stays there when the piece is written */
        result = collect(writer, from, part);
        writer->crc = format_crc(writer->crc, copy, part);
        from += part;
        size -= part;
    }
    return result;
}

/* The head of a file that is begun: a block of its own. */
static int collect_file_head(struct writer *writer, uint64_t first, uint64_t follows, uint64_t salt)
{
    struct journal_head head = {.first = first, .follows = follows, .salt = salt};

    format_seal_file_head(&head);
    int result = collect(writer, &head, sizeof(head));
    return result ? result : collect(writer, NULL, FORMAT_BLOCK - sizeof(head));
}

static int write_batch(struct journal *journal, const struct capture *capture, uint64_t number)
{
    const struct header *h = journal->pool.fs->header;
    struct writer writer = {.fd = journal->fd, .offset = journal->end, .crc = FORMAT_CRC};
    struct batch_head head = {.salt = journal->salt,
                              .number = number,
                              .previous = LOAD(h->journal.durable),
                              .size = format_size(capture),
                              .root = h->tree.root};
    int result = journal->end == 0 ? collect_file_head(&writer, number, head.previous, journal->salt) : 0;

    format_seal_batch_head(&head);
    if (result == 0)
        result = collect(&writer, &head, sizeof(head));
    if (result == 0)
        result = format_encode(journal->pool.fs, capture, collect_payload, &writer);
    const struct batch_tail tail = format_batch_tail(number, writer.crc);
    if (result == 0)
        result = collect(&writer, &tail, sizeof(tail));
    if (result == 0)
        result = collect(&writer, NULL, format_batch_space(head.size) - sizeof(head) - head.size - sizeof(tail));
    if (result == 0)
        result = write_piece(&writer);
    if (result == 0 && fdatasync(journal->fd) < 0)
        result = -errno;
    if (result == 0 && !journal_files_whole(&journal->pool))
        result = -ESTALE;
    journal->end = writer.offset;
    return result;
}

/* Begin another file, with a new salt. */
static int begin_file(struct journal *journal)
{
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
    journal->end = 0;
    if (getrandom(&journal->salt, sizeof(journal->salt), 0) <= 0)
        return -EIO;
    int fd = journal_files_begin(&journal->pool);
    if (fd >= 0)
        journal->fd = fd;
    return fd < 0 ? fd : 0;
}

/* Whoever makes another store has to make the lock first. */
static int check_lock(struct journal *journal, char error[FASTSPOOL_ERROR_MAX])
{
    const struct fastspool *fs = journal->pool.fs;

    if (presence_is_valid(fs->presence_fd, journal->pool.above))
        return 0;
    if (journal->fd >= 0)
        close(journal->fd);
    journal->fd = -1;
    return error_set(error, -EIO, "write to the journal: %s/" PLACES_LOCK " was removed or replaced", fs->state);
}

int journal_append(struct journal *journal, const struct capture *capture, char error[FASTSPOOL_ERROR_MAX])
{
    const struct header *h = journal->pool.fs->header;
    uint64_t space = format_batch_space(format_size(capture));
    uint64_t begun = journal->end;
    int result = 0;

    if (journal->fd < 0 || (journal->end > 0 && journal->end + space > journal->pool.file_size)) {
        if (check_lock(journal, error) < 0)
            return -EIO;
        result = begin_file(journal);
        begun = 0;
    }
    if (result < 0)
        return error_set(error, result, "begin a journal file: %s", strerrordesc_np(-result));
    uint64_t number = LOAD(h->journal.batch) + 1;
    STORE(h->journal.batch, number); /* before a byte is written: the process after this one uses others */
    result = write_batch(journal, capture, number);
    if (check_lock(journal, error) < 0)
        return -EIO;
    if (result < 0) {
        error_set(error, result, "write to the journal: %s", strerrordesc_np(-result));
        close(journal->fd);
        journal->fd = -1;
        journal_files_condemn(&journal->pool);
        return result;
    }
    journal_files_grow(&journal->pool, number, capture, journal->end, journal->end - begun);
    return 0;
}

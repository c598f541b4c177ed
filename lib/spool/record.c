/* SPDX-License-Identifier: MIT
 *
 * The record: STATE/runtime, which says where the memory of the store is.
 *
 * The happy path: three lines of text.
 *
 *     /dev/shm/fastspool.0123456789abcdef
 *     lock IDENTITY               of STATE/lock: a copy of the state directory has another one
 *     spool DEVICE:INODE PATH     which spool the store serves
 *
 * It is published by rename.
 *
 * Failure modes:
 *   - A disk without a free block: it is overwritten in place.  If that is cut short, the name leads to no directory,
 *     and the next process creates a store again.
 *   - An older version's record has the first line alone.
 */
#include "spool/record.h"

#include "base/error.h"
#include "base/places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX (2 * FASTSPOOL_PATH_MAX + PRESENCE_IDENTITY_MAX + 96)

/* The text behind @word in the line that begins with it, "" where there is none. */
static void take_line(const char *text, const char *word, char *value, size_t size)
{
    const char *line = strstr(text, word);
    size_t length = line ? strcspn(line + strlen(word), "\n") : 0;

    value[0] = '\0';
    if (line && length < size) {
        memcpy(value, line + strlen(word), length);
        value[length] = '\0';
    }
}

int record_read(int state_fd, struct record *record)
{
    char text[TEXT_MAX], spool[FASTSPOOL_PATH_MAX + sizeof(record->place)];
    int fd = openat(state_fd, PLACES_RUNTIME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    *record = (struct record){0};
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, text, sizeof(text) - 1);
    int error = length < 0 ? -errno : 0;
    close(fd);
    if (error)
        return error;
    text[length] = '\0';
    size_t first = strcspn(text, "\n");
    if (text[0] != '/' || first >= sizeof(record->runtime))
        return -ENOENT;
    memcpy(record->runtime, text, first);
    record->runtime[first] = '\0';
    take_line(text, "\nlock ", record->identity, sizeof(record->identity));
    take_line(text, "\nspool ", spool, sizeof(spool));
    size_t blank = strcspn(spool, " ");
    if (spool[blank] && blank < sizeof(record->place)) {
        memcpy(record->place, spool, blank);
        record->place[blank] = '\0';
        snprintf(record->spool, sizeof(record->spool), "%s", spool + blank + 1);
    }
    return 0;
}

/* Write @text to the open file, and close it. */
static int write_text(int fd, const char *text)
{
    ssize_t length = (ssize_t)strlen(text);

    if (fd < 0)
        return -errno;
    errno = EIO; /* for a short write */
    int result =
        pwrite(fd, text, (size_t)length, 0) != length || ftruncate(fd, length) < 0 || fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return result;
}

/* A new file, whatever is there: the mail user may have made a FIFO, which an open would wait for. */
static int open_new(int state_fd)
{
    unlinkat(state_fd, PLACES_RUNTIME_NEW, 0);
    return openat(state_fd, PLACES_RUNTIME_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

int record_write(int state_fd, const struct record *record)
{
    char text[TEXT_MAX];

    snprintf(text, sizeof(text), "%s\nlock %s\nspool %s %s\n", record->runtime, record->identity, record->place,
             record->spool);
    int result = write_text(open_new(state_fd), text);
    if (result == 0 && (renameat(state_fd, PLACES_RUNTIME_NEW, state_fd, PLACES_RUNTIME) < 0 || fsync(state_fd) < 0))
        result = -errno;
    if (result < 0)
        unlinkat(state_fd, PLACES_RUNTIME_NEW, 0);
    const int in_place = O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
    if (error_is_full(result) && write_text(openat(state_fd, PLACES_RUNTIME, in_place), text) == 0)
        result = 0;
    return result;
}

bool record_spool(struct record *record, const struct stat *st, const char *spool)
{
    char place[sizeof(record->place)];

    snprintf(place, sizeof(place), "%llu:%llu", (unsigned long long)st->st_dev, (unsigned long long)st->st_ino);
    bool same = strcmp(place, record->place) == 0 && strcmp(spool, record->spool) == 0;
    strcpy(record->place, place);
    snprintf(record->spool, sizeof(record->spool), "%s", spool);
    return same;
}

bool record_is_of(const struct record *record, const struct stat *st, const char *spool)
{
    struct record ours = *record;

    record_spool(&ours, st, spool);
    return record->place[0] == '\0' || strcmp(record->place, ours.place) == 0 || strcmp(record->spool, spool) == 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Insets: our lines in a file of the system's, between two marks that are comments.
 *
 * The happy path: the first mark says what else was made: the newline that the file's last line lacked, the file, its
 * directory.  So all of it can go, and nothing is kept elsewhere.
 *
 * Failure modes:
 *   - Killed: the file is the old one or the new one.  A file beside it, with the suffix .fastspool, may stay, and the
 *     next call replaces it.
 *   - Somebody has taken one of the marks away: a sentence, and nothing is changed.
 */
#include "inset.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BEGIN     "# `fastspool enable` wrote this, `fastspool disable` takes it away:"
#define END       "# fastspool: the end\n"
#define NEWLINE   "[line end]"
#define FILE_     "[file]"
#define DIRECTORY "[directory]"
#define NEW       ".fastspool"
#define SIZE_MAX_ (1 << 20)

/* A file's text, and our lines in it. */
struct text {
    char path[PATH_MAX]; /* the real one */
    struct stat st;      /* st_nlink 0: there is no such file */
    char *bytes;         /* a string, the caller's to free */
    char *begin;         /* of our lines; NULL: there are none */
    char *end;           /* behind them */
};

static int read_file(struct text *text, char *error)
{
    int fd = open(text->path, O_RDONLY | O_CLOEXEC);

    text->bytes = calloc(1, SIZE_MAX_ + 1);
    if (fd < 0 && errno == ENOENT && text->bytes)
        return 0;
    if (fd < 0 || !text->bytes || fstat(fd, &text->st) < 0)
        return error_set(error, -errno, "cannot open %s: %s", text->path, strerrordesc_np(errno));
    ssize_t got, size = 0;
    while ((got = read(fd, text->bytes + size, (size_t)(SIZE_MAX_ - size))) > 0)
        size += got;
    int failure = errno;
    close(fd);
    if (got < 0)
        return error_set(error, -failure, "cannot read %s: %s", text->path, strerrordesc_np(failure));
    if (size == SIZE_MAX_ || (size_t)size != strlen(text->bytes))
        return error_set(error, -EINVAL, "%s is no text of less than 1 MiB, so it is left alone", text->path);
    return 0;
}

static int open_plain(struct text *text, const char *path, char *error)
{
    *text = (struct text){0};
    if (!realpath(path, text->path))
        snprintf(text->path, sizeof(text->path), "%s", path);
    return read_file(text, error);
}

static int open_text(struct text *text, const char *path, char *error)
{
    int result = open_plain(text, path, error);

    if (result < 0)
        return result;
    text->begin = strstr(text->bytes, BEGIN);
    text->end = strstr(text->begin ? text->begin : text->bytes, END);
    if (!text->begin != !text->end)
        return error_set(error, -EINVAL,
                         "%s has only one of the two comments between which `fastspool enable` has written: take away "
                         "by hand what is left of these lines",
                         text->path);
    text->end = text->end ? text->end + strlen(END) : NULL;
    return 0;
}

/* Does the first mark say that we have made @what? */
static bool made(const struct text *text, const char *what)
{
    const char *found = text->begin ? strstr(text->begin, what) : NULL;

    return found && found < strchr(text->begin, '\n');
}

static void parent_of(const char *path, char directory[PATH_MAX])
{
    snprintf(directory, PATH_MAX, "%s", path);
    char *slash = strrchr(directory, '/');
    *(slash > directory ? slash : slash + 1) = '\0';
}

static int replace(const struct text *text, const char *bytes, char *error)
{
    char new[PATH_MAX + sizeof(NEW)], directory[PATH_MAX];
    bool fresh = text->st.st_nlink == 0;

    snprintf(new, sizeof(new), "%s" NEW, text->path);
    unlink(new);
    int fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : fd_write_all(fd, bytes, strlen(bytes), 0);
    if (result == 0 && ((!fresh && fchown(fd, text->st.st_uid, text->st.st_gid) < 0) ||
                        fchmod(fd, fresh ? 0644 : text->st.st_mode & 07777) < 0 || fsync(fd) < 0))
        result = -errno;
    if (fd >= 0)
        close(fd);
    if (result == 0 && rename(new, text->path) < 0)
        result = -errno;
    parent_of(text->path, directory);
    if (result == 0)
        return fd_sync_directory(directory);
    unlink(new);
    return error_set(error, result, "cannot write %s: %s", text->path, strerrordesc_np(-result));
}

bool inset_is_in(const char *path)
{
    struct text text;
    char error[ERROR_MAX];

    bool is = open_text(&text, path, error) == 0 && text.begin;
    free(text.bytes);
    return is;
}

bool inset_is(const char *path, const char *lines)
{
    struct text text;
    char error[ERROR_MAX];

    bool is = open_text(&text, path, error) == 0 && text.begin;
    const char *from = is ? strchr(text.begin, '\n') + 1 : NULL;
    is = is && (size_t)(text.end - from) == strlen(lines) + strlen(END) && strncmp(from, lines, strlen(lines)) == 0;
    free(text.bytes);
    return is;
}

int inset_put(const char *path, const char *lines, char error[ERROR_MAX])
{
    struct text text;
    char directory[PATH_MAX], *whole = NULL;
    int result = inset_take(path, error);

    if (result < 0)
        return result;
    parent_of(path, directory);
    bool own_directory = mkdir(directory, 0755) == 0;
    result = open_text(&text, path, error);
    size_t length = result == 0 ? strlen(text.bytes) : 0;
    bool unended = length > 0 && text.bytes[length - 1] != '\n', fresh = text.st.st_nlink == 0;
    if (result == 0 && asprintf(&whole, "%s%s" BEGIN "%s%s%s%s\n%s" END, text.bytes, unended ? "\n" : "",
                                unended || fresh || own_directory ? " " : "", unended ? NEWLINE : "",
                                fresh ? FILE_ : "", own_directory ? DIRECTORY : "", lines) < 0)
        result = error_set(error, -ENOMEM, "out of memory");
    if (result == 0)
        result = replace(&text, whole, error);
    if (result < 0 && own_directory)
        rmdir(directory);
    free(whole);
    free(text.bytes);
    return result;
}

/* What is left is nothing but what we have made. */
static int remove_file(const struct text *text, bool directory, char *error)
{
    char parent[PATH_MAX];

    if (unlink(text->path) < 0)
        return error_set(error, -errno, "cannot remove %s: %s", text->path, strerrordesc_np(errno));
    parent_of(text->path, parent);
    if (directory)
        rmdir(parent); /* unless it has more files */
    return 0;
}

int inset_take(const char *path, char error[ERROR_MAX])
{
    struct text text;
    int result = open_text(&text, path, error);

    if (result == 0 && text.begin) {
        bool file = made(&text, FILE_), directory = made(&text, DIRECTORY), last = text.end[0] == '\0';
        char *from = text.begin - (made(&text, NEWLINE) && last && text.begin > text.bytes);
        memmove(from, text.end, strlen(text.end) + 1);
        result =
            file && text.bytes[0] == '\0' ? remove_file(&text, directory, error) : replace(&text, text.bytes, error);
    }
    free(text.bytes);
    return result;
}

/* ---- at the head ---- */

static bool begins(const struct text *text, const char *line)
{
    return text->bytes && strncmp(text->bytes, line, strlen(line)) == 0;
}

bool inset_has_head(const char *path, const char *line)
{
    struct text text;
    char error[ERROR_MAX];

    bool has = open_plain(&text, path, error) == 0 && begins(&text, line);
    free(text.bytes);
    return has;
}

int inset_put_head(const char *path, const char *line, char error[ERROR_MAX])
{
    struct text text;
    char *whole = NULL;
    int result = open_plain(&text, path, error);

    if (result == 0 && !begins(&text, line) && asprintf(&whole, "%s%s", line, text.bytes) < 0)
        result = error_set(error, -ENOMEM, "out of memory");
    if (result == 0 && whole)
        result = replace(&text, whole, error);
    free(whole);
    free(text.bytes);
    return result;
}

int inset_take_head(const char *path, const char *line, char error[ERROR_MAX])
{
    struct text text;
    int result = open_plain(&text, path, error);

    if (result == 0 && begins(&text, line))
        result = text.bytes[strlen(line)] ? replace(&text, text.bytes + strlen(line), error)
                                          : remove_file(&text, false, error);
    free(text.bytes);
    return result;
}

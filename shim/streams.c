/* SPDX-License-Identifier: MIT
 *
 * Streams on spool files.  glibc's streams call its own read and write, past any wrapper.  So a stream on a spool file
 * is a cookie stream (fopencookie(3)) with functions of the store.  All else (buffers, ungetc, fscanf, the flush at
 * exit) is glibc's.
 *
 * Happy path:
 *   - fopen opens as open does, and fdopen takes the descriptor.
 *   - The cookie is the descriptor's number.  So no memory of the library belongs to a stream.
 *   - `_fileno` is set, because a cookie stream has no fileno(3), and Exim locks and syncs by it.
 *
 * Failure modes:
 *   - EINVAL: the descriptor's access forbids the mode, as with fdopen(3).
 *   - glibc flushes streams at exit, after the last destructor.  So nothing here is ever torn down.
 *   - freopen on a cookie stream crashes glibc (measured, 2.36).  This one closes the stream, and is EINVAL.
 *   - freopen of another stream on a spool file reads from a private copy.  For writing it is EINVAL.
 */
#include "attachment.h"
#include "base/fd.h"
#include "copies.h"
#include "descriptors.h"
#include "opening.h"
#include "paths.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/single_threaded.h>

/* glibc's _IO_USER_BUF.  A stream's buffer is as large as on a real file (st_blksize; a cookie stream's has 8 kB),
 * because a dup or a child sees in the offset how far it has read ahead.  Without this flag fclose frees the buffer. */
#define STREAM_KEEPS_BUFFER 1

/* glibc's _IO_FLAGS2_NEED_LOCK: each getc takes a lock (measured: a quarter of `exim -bp`).  A stream gets it when the
 * process has more than one thread, a cookie stream always. */
#define STREAM_LOCKS 0x80

/* ---- the cookie: a descriptor's number ---- */

static int number(void *cookie)
{
    return (int)(intptr_t)cookie;
}

static ssize_t cookie_read(void *cookie, char *buffer, size_t size)
{
    return read(number(cookie), buffer, size);
}

/* fopencookie(3) wants 0 for an error, not -1. */
static ssize_t cookie_write(void *cookie, const char *buffer, size_t size)
{
    ssize_t written = write(number(cookie), buffer, size);
    return written < 0 ? 0 : written;
}

static int cookie_seek(void *cookie, off64_t *offset, int whence)
{
    off_t result = lseek(number(cookie), *offset, whence);

    if (result < 0)
        return -1;
    *offset = result;
    return 0;
}

static int cookie_close(void *cookie)
{
    return close(number(cookie));
}

static const cookie_io_functions_t functions = {cookie_read, cookie_write, cookie_seek, cookie_close};

/* ---- modes ---- */

/* The flags of open(2) for "r+", "wb", "ae"...; -1: no such mode. */
static int flags_of(const char *mode)
{
    int flags = *mode == 'r'   ? O_RDONLY
                : *mode == 'w' ? O_WRONLY | O_CREAT | O_TRUNC
                : *mode == 'a' ? O_WRONLY | O_CREAT | O_APPEND
                               : -1;

    if (flags < 0)
        return -1;
    for (const char *at = mode + 1; *at && *at != ','; at++) {
        if (*at == '+')
            flags = (flags & ~O_ACCMODE) | O_RDWR;
        else if (*at == 'x')
            flags |= O_EXCL;
        else if (*at == 'e')
            flags |= O_CLOEXEC;
    }
    return flags;
}

/* The mode of fopencookie(3). */
static void stream_mode(int flags, char mode[3])
{
    const bool both = (flags & O_ACCMODE) == O_RDWR;

    mode[0] = (flags & O_APPEND) ? 'a' : (flags & O_TRUNC) ? 'w' : 'r';
    mode[1] = both ? '+' : '\0';
    mode[2] = '\0';
}

static FILE *stream_on(int fd, const char *mode)
{
    char plain[3];

    stream_mode(flags_of(mode), plain);
    FILE *stream = fopencookie((void *)(intptr_t)fd, plain, functions);
    if (!stream)
        return NULL;
    stream->_fileno = fd;
    if (__libc_single_threaded && !(stderr->_flags2 & STREAM_LOCKS))
        stream->_flags2 &= ~STREAM_LOCKS; /* glibc sets it in all open streams when a second thread starts */
    char *buffer = malloc(INSIDE_BLOCK);
    if (buffer && setvbuf(stream, buffer, _IOFBF, INSIDE_BLOCK) == 0)
        stream->_flags &= ~STREAM_KEEPS_BUFFER;
    else
        free(buffer);
    return stream;
}

/* ---- the wrappers ---- */

/* Not inlined because of its buffer, a page of the stack. */
static __attribute__((noinline)) FILE *open_asked(const char *path, const char *mode)
{
    struct store_path target;
    bool foreign;

    if (!paths_follow_asked(AT_FDCWD, path, &target))
        return real.fopen(path, mode);
    int flags = flags_of(mode);
    if (flags < 0) {
        errno = EINVAL;
        return NULL;
    }
    int fd = opening_place(&target, flags, 0666, &foreign);
    if (foreign)
        return real.fopen(path, mode);
    if (fd < 0) {
        errno = -fd;
        return NULL;
    }
    if ((flags & O_ACCMODE) == O_WRONLY && (flags & O_APPEND))
        lseek(fd, 0, SEEK_END); /* as glibc does: ftell is the end at once */
    FILE *stream = stream_on(fd, mode);
    if (!stream) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
    return stream;
}

EXPORT FILE *fopen(const char *path, const char *mode)
{
    BOUND();
    return paths_foreign(AT_FDCWD, path) ? real.fopen(path, mode) : open_asked(path, mode);
}
EXPORT_ALIAS(fopen64, fopen);

/* No file of a store.  Its end is libc's close(2), which the library doesn't see: so what the number stands for is
 * forgotten now, that a hints file needs no fsync. */
static FILE *foreign_stream_on(int fd, const char *mode)
{
    FILE *stream = real.fdopen(fd, mode);

    if (stream && descriptors_is_hint(fd))
        descriptors_set(fd, 0);
    return stream;
}

EXPORT FILE *fdopen(int fd, const char *mode)
{
    BOUND();
    uint32_t description = descriptors_find(fd);
    if (!description)
        return descriptors_carried(fd) >= 0 && (flags_of(mode) & O_ACCMODE) == O_WRONLY ? stream_on(fd, mode)
                                                                                        : foreign_stream_on(fd, mode);
    int flags = flags_of(mode), access_mode = inside_flags(OF(description)) & O_ACCMODE;
    if (flags < 0 || (access_mode != O_RDWR && access_mode != (flags & O_ACCMODE))) {
        errno = EINVAL;
        return NULL;
    }
    if ((flags & O_APPEND) && !(inside_change_flags(OF(description), O_APPEND, O_APPEND) & O_APPEND) &&
        (flags & O_ACCMODE) == O_WRONLY)
        lseek(fd, 0, SEEK_END); /* as glibc does */
    return stream_on(fd, mode);
}

/* Is it a stream on a spool file? */
static bool is_ours(FILE *stream)
{
    return stream && stream->_fileno >= 0 && descriptors_find(stream->_fileno);
}

/* Either @path or @stream is the store's. */
static FILE *reopen_copy(const char *path, const char *mode, FILE *stream)
{
    char link[FD_LINK_MAX];
    int flags = flags_of(mode);
    int fd = flags >= 0 && (flags & O_ACCMODE) == O_RDONLY ? open(path, O_RDONLY) : -1;

    if (fd < 0 || is_ours(stream) || copies_replace(fd) < 0) {
        int saved = fd < 0 && flags >= 0 && (flags & O_ACCMODE) == O_RDONLY ? errno : EINVAL;
        if (fd >= 0)
            close(fd);
        fclose(stream);
        errno = saved;
        return NULL;
    }
    fd_link(fd, link);
    FILE *result = real.freopen(link, mode, stream);
    close(fd);
    return result;
}

EXPORT FILE *freopen(const char *path, const char *mode, FILE *stream)
{
    struct store_path target;

    BOUND();
    if (is_ours(stream) || (path && paths_resolve(AT_FDCWD, path, &target)))
        return reopen_copy(path ? path : "", mode, stream);
    return real.freopen(path, mode, stream);
}
EXPORT_ALIAS(freopen64, freopen);

/* ---- printing to a descriptor: libc's own write would not be the wrapper ---- */

EXPORT int vdprintf(int fd, const char *format, va_list arguments)
{
    char *text;

    BOUND();
    if (!descriptors_find(fd) && descriptors_carried(fd) < 0)
        return real.vdprintf(fd, format, arguments);
    int length = vasprintf(&text, format, arguments);
    if (length < 0)
        return -1;
    ssize_t written = write(fd, text, (size_t)length);
    free(text);
    return written == length ? length : -1;
}

#undef dprintf /* clang's fortified one */
EXPORT int dprintf(int fd, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int result = vdprintf(fd, format, arguments);
    va_end(arguments);
    return result;
}

/* The fortified names. */
int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments) __attribute__((format(printf, 3, 0)));
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments)
{
    (void)flag;
    return vdprintf(fd, format, arguments);
}

#undef __dprintf_chk
int __dprintf_chk(int fd, int flag, const char *format, ...) __attribute__((format(printf, 3, 4)));
EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    va_list arguments;

    (void)flag;
    va_start(arguments, format);
    int result = vdprintf(fd, format, arguments);
    va_end(arguments);
    return result;
}

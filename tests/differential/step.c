/* SPDX-License-Identifier: MIT
 *
 * Do a step, and describe its result in a text that is the same on every correct file system.
 *
 * Happy path: step_do() makes the call with the step's arguments.  The answer has the result, the errno, and a text if
 * there is more to compare: content, attributes, a listing, the holder of a lock.  Written content is made from the
 * step's salt. Read content is in the answer as a hash.  Streams stay open across steps.
 *
 * Failure modes: a failed call is an answer like any other.  If real file systems disagree about an error or an offset,
 * the answer hides it, and a comment says so.
 */
#include "step.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define GIVEN 1000000000 /* the time that utimens sets */

static const char *const operation_names[OPERATIONS] = {
    [OPEN] = "open",       [OPENAT] = "openat",       [READ] = "read",         [PREAD] = "pread",
    [READV] = "readv",     [WRITE] = "write",         [PWRITE] = "pwrite",     [WRITEV] = "writev",
    [LSEEK] = "lseek",     [FTRUNCATE] = "ftruncate", [TRUNCATE] = "truncate", [DUP] = "dup",
    [DUP2] = "dup2",       [DUPFD] = "dupfd",         [CLOSE] = "close",       [RENAME] = "rename",
    [LINK] = "link",       [UNLINK] = "unlink",       [UNLINKAT] = "unlinkat", [MKDIR] = "mkdir",
    [RMDIR] = "rmdir",     [STAT] = "stat",           [LSTAT] = "lstat",       [FSTAT] = "fstat",
    [FSTATAT] = "fstatat", [ACCESS] = "access",       [CHMOD] = "chmod",       [FCHMOD] = "fchmod",
    [CHOWN] = "chown",     [FCHOWN] = "fchown",       [UMASK] = "umask",       [GETFD] = "getfd",
    [SETFD] = "setfd",     [GETFL] = "getfl",         [SETFL] = "setfl",       [SETLK] = "setlk",
    [GETLK] = "getlk",     [LIST] = "list",           [LISTAT] = "listat",     [SYNC] = "sync",
    [STATVFS] = "statvfs", [UTIMENS] = "utimens",     [SENDFILE] = "sendfile", [FOPEN] = "fopen",
    [FDOPEN] = "fdopen",   [FPRINTF] = "fprintf",     [FGETS] = "fgets",       [FREAD] = "fread",
    [UNGETC] = "ungetc",   [FSEEK] = "fseek",         [REWIND] = "rewind",     [FTELL] = "ftell",
    [FFLUSH] = "fflush",   [FCLOSE] = "fclose",       [FORK] = "fork",         [EXEC] = "exec",
    [EXIT] = "exit",
};

static char buffer[BUFFER];
static FILE *streams[STREAMS];

const char *step_name(int operation)
{
    return operation_names[operation];
}

uint64_t step_hash(const void *bytes, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static void fill(const struct step *step)
{
    for (long i = 0; i < step->size; i++)
        buffer[i] = (i + step->salt) % 61 == 0 ? '\n' : (char)('a' + (i * 7 + step->salt) % 26);
}

static void tell_content(struct answer *answer, long size)
{
    answer->result = size;
    if (size < 0 && errno == EINVAL)
        errno = EISDIR; /* file systems disagree about a directory whose offset a listing has moved */
    if (size > 0)
        snprintf(answer->text, sizeof(answer->text), "%016llx", (unsigned long long)step_hash(buffer, (size_t)size));
}

static void tell_stat(struct answer *answer, const struct stat *st)
{
    if (answer->result != 0)
        return;
    snprintf(answer->text, sizeof(answer->text), "%o links %u %u:%u size %lld%s%s", st->st_mode, (unsigned)st->st_nlink,
             st->st_uid, st->st_gid, S_ISDIR(st->st_mode) ? -1LL : (long long)st->st_size,
             st->st_mtime == GIVEN  ? " given"
             : st->st_mtime > GIVEN ? ""
                                    : " early",
             st->st_ctime >= st->st_mtime ? "" : " changed before it was modified");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void tell_listing(struct answer *answer, DIR *directory)
{
    char *names[64];
    int count = 0;

    answer->result = directory ? 0 : -1;
    if (!directory)
        return;
    for (const struct dirent *entry; (entry = readdir(directory)) && count < 64;) {
        if (asprintf(&names[count], "%s%s", entry->d_name, entry->d_type == DT_DIR ? "/" : "") < 0)
            abort();
        count++;
    }
    answer->result = closedir(directory);
    qsort(names, (size_t)count, sizeof(names[0]), by_name);
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        if (length < sizeof(answer->text))
            length += (size_t)snprintf(answer->text + length, sizeof(answer->text) - length, "%s ", names[i]);
        free(names[i]);
    }
}

static void lock(const struct step *step, struct answer *answer)
{
    static const short types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
    struct flock range = {
        .l_type = types[step->flags % 3], .l_whence = SEEK_SET, .l_start = step->offset, .l_len = step->size};

    answer->result = fcntl(step->fd, step->operation == SETLK ? F_SETLK : F_GETLK, &range);
    if (answer->result != 0 || step->operation != GETLK)
        return;
    answer->pid = range.l_type == F_UNLCK ? 0 : range.l_pid;
    snprintf(answer->text, sizeof(answer->text), "type %d from %ld for %ld", range.l_type, (long)range.l_start,
             (long)range.l_len);
}

/* Send into a pipe, and read it back. */
static void send_file(const struct step *step, struct answer *answer)
{
    off_t offset = step->offset;
    int line[2];

    if (pipe2(line, O_CLOEXEC) < 0)
        abort();
    answer->result = sendfile(line[1], step->fd, step->flags % 2 ? &offset : NULL, (size_t)step->size);
    int error = errno;
    close(line[1]);
    ssize_t got = read(line[0], buffer, sizeof(buffer));
    close(line[0]);
    errno = error;
    if (answer->result >= 0)
        snprintf(answer->text, sizeof(answer->text), "%016llx %ld", (unsigned long long)step_hash(buffer, (size_t)got),
                 (long)offset);
}

static bool is_directory(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static void do_content(const struct step *step, struct answer *answer)
{
    struct iovec parts[2] = {{buffer, (size_t)step->size / 3},
                             {buffer + step->size / 3, (size_t)(step->size - step->size / 3)}};

    switch (step->operation) {
    case READ:
        tell_content(answer, read(step->fd, buffer, (size_t)step->size));
        break;
    case PREAD:
        tell_content(answer, pread(step->fd, buffer, (size_t)step->size, step->offset));
        break;
    case READV:
        tell_content(answer, readv(step->fd, parts, 2));
        break;
    case WRITE:
        fill(step);
        answer->result = write(step->fd, buffer, (size_t)step->size);
        break;
    case PWRITE:
        fill(step);
        answer->result = pwrite(step->fd, buffer, (size_t)step->size, step->offset);
        break;
    default:
        fill(step);
        answer->result = writev(step->fd, parts, 2);
    }
}

static void do_descriptor(const struct step *step, struct answer *answer)
{
    struct stat st;

    switch (step->operation) {
    case LSEEK:
        /* Real file systems disagree about offsets in a directory. */
        answer->result = is_directory(step->fd) ? 0 : lseek(step->fd, step->offset, (int)step->flags);
        break;
    case FTRUNCATE:
        answer->result = ftruncate(step->fd, step->offset);
        break;
    case DUP:
        answer->result = dup(step->fd);
        break;
    case DUP2:
        answer->result = step->flags % 2 ? dup2(step->fd, step->to) : dup3(step->fd, step->to, O_CLOEXEC);
        break;
    case DUPFD:
        answer->result = fcntl(step->fd, step->flags % 2 ? F_DUPFD : F_DUPFD_CLOEXEC, step->to);
        break;
    case CLOSE:
        answer->result = close(step->fd);
        break;
    case FSTAT:
        answer->result = fstat(step->fd, &st);
        tell_stat(answer, &st);
        break;
    case FCHMOD:
        answer->result = fchmod(step->fd, (mode_t)step->flags);
        break;
    case FCHOWN:
        answer->result = fchown(step->fd, (uid_t)step->offset, (gid_t)step->size);
        break;
    case GETFD:
        answer->result = fcntl(step->fd, F_GETFD);
        break;
    case SETFD:
        answer->result = fcntl(step->fd, F_SETFD, (int)step->flags % 2);
        break;
    case GETFL:
        answer->result = fcntl(step->fd, F_GETFL);
        break;
    case SETFL:
        answer->result = fcntl(step->fd, F_SETFL, step->flags % 2 ? O_APPEND : 0);
        break;
    case SYNC:
        answer->result = step->flags % 2 ? fsync(step->fd) : fdatasync(step->fd);
        break;
    case SENDFILE:
        send_file(step, answer);
        break;
    default:
        lock(step, answer);
    }
}

static void do_attributes(const struct step *step, struct answer *answer)
{
    const struct timespec given[2] = {{.tv_sec = GIVEN}, {.tv_sec = GIVEN}};
    struct statvfs vfs;
    struct stat st;

    switch (step->operation) {
    case STAT:
        answer->result = stat(step->path, &st);
        tell_stat(answer, &st);
        break;
    case LSTAT:
        answer->result = lstat(step->path, &st);
        tell_stat(answer, &st);
        break;
    case FSTATAT:
        answer->result = fstatat(step->fd, step->path, &st, 0);
        tell_stat(answer, &st);
        break;
    case ACCESS:
        answer->result = access(step->path, (int)step->flags % 8);
        break;
    case CHMOD:
        answer->result = chmod(step->path, (mode_t)step->flags);
        break;
    case CHOWN:
        answer->result = chown(step->path, (uid_t)step->offset, (gid_t)step->size);
        break;
    case LIST:
        tell_listing(answer, opendir(step->path));
        break;
    case STATVFS:
        answer->result = statvfs(step->path, &vfs);
        if (answer->result == 0)
            snprintf(answer->text, sizeof(answer->text), "%s", vfs.f_bavail > 0 && vfs.f_bsize > 0 ? "room" : "none");
        break;
    default:
        answer->result = utimensat(AT_FDCWD, step->path, given, 0);
    }
}

/* Truncation to the same size moves the times, says POSIX; so do ext4 and the store.  tmpfs, which has the real files,
 * does not, so it gets help. */
static int truncate_path(const char *path, off_t size)
{
    const struct timespec now[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    struct stat st;
    bool same = stat(path, &st) == 0 && st.st_size == size;
    int result = truncate(path, size);

    return result == 0 && same ? utimensat(AT_FDCWD, path, now, 0) : result;
}

static void do_path(const struct step *step, struct answer *answer)
{
    switch (step->operation) {
    case OPEN:
        answer->result = open(step->path, (int)step->flags, (mode_t)step->size);
        break;
    case OPENAT:
        answer->result = openat(step->fd, step->path, (int)step->flags, (mode_t)step->size);
        break;
    case TRUNCATE:
        answer->result = truncate_path(step->path, step->offset);
        break;
    case RENAME:
        answer->result =
            step->flags % 2 ? rename(step->path, step->other) : renameat(AT_FDCWD, step->path, AT_FDCWD, step->other);
        break;
    case LINK:
        answer->result = link(step->path, step->other);
        break;
    case UNLINK:
        answer->result = unlink(step->path);
        break;
    case UNLINKAT:
        answer->result = unlinkat(step->fd, step->path, step->flags % 3 ? 0 : AT_REMOVEDIR);
        break;
    case MKDIR:
        answer->result = mkdir(step->path, (mode_t)step->size);
        break;
    case RMDIR:
        answer->result = rmdir(step->path);
        break;
    default:
        do_attributes(step, answer);
    }
}

static void list_descriptor(const struct step *step, struct answer *answer)
{
    int fd = fcntl(step->fd, F_DUPFD_CLOEXEC, 0);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    int error = errno;

    if (directory)
        rewinddir(directory); /* earlier listings have moved the offset of the open file description */
    else if (fd >= 0)
        close(fd);
    errno = error;
    tell_listing(answer, directory);
}

/* The descriptor under the stream may have been moved by other means.  POSIX wants the stream to be resynchronised. */
static void take_over(FILE *stream)
{
    if (!is_directory(fileno(stream)) && fflush(stream) == 0)
        fseek(stream, lseek(fileno(stream), 0, SEEK_CUR), SEEK_SET);
}

static void do_stream(const struct step *step, struct answer *answer)
{
    static const char *const modes[] = {"r", "w", "a", "r+", "w+", "a+", "rb", "we"};
    FILE **stream = &streams[step->stream];

    switch (step->operation) {
    case FOPEN:
        *stream = fopen(step->path, modes[step->flags % 8]);
        answer->result = *stream ? fileno(*stream) : -1;
        return;
    case FDOPEN:
        *stream = fdopen(step->fd, modes[step->flags % 6]);
        answer->result = *stream ? fileno(*stream) : -1;
        return;
    case FPRINTF:
        fill(step);
        answer->result = fprintf(*stream, "%.*s %ld\n", (int)step->size, buffer, step->offset);
        break;
    case FGETS:
        answer->result = fgets(buffer, (int)step->size % 200 + 2, *stream) ? (long)strlen(buffer) : -1;
        tell_content(answer, answer->result);
        break;
    case FREAD:
        tell_content(answer, (long)fread(buffer, 1, (size_t)step->size, *stream));
        break;
    case UNGETC: {
        int c = fgetc(*stream);
        if (c == EOF)
            tell_content(answer, -1);
        answer->result = c == EOF ? -2 : ungetc(c, *stream) == c && fgetc(*stream) == c ? c : -3;
        break;
    }
    case FSEEK:
        if (step->flags == SEEK_CUR)
            take_over(*stream);
        answer->result = is_directory(fileno(*stream)) ? 0 : fseek(*stream, step->offset, (int)step->flags);
        break;
    case REWIND:
        rewind(*stream);
        answer->result = 0;
        break;
    case FTELL:
        take_over(*stream);
        answer->result = ftell(*stream);
        break;
    case FFLUSH:
        answer->result = fflush(*stream);
        break;
    default:
        answer->result = fclose(*stream);
        *stream = NULL;
        return;
    }
    size_t length = strlen(answer->text);
    snprintf(answer->text + length, sizeof(answer->text) - length, "%s%s", feof(*stream) ? " end" : "",
             ferror(*stream) ? " error" : "");
}

bool step_takes_path(int operation)
{
    return operation == OPEN || operation == OPENAT || operation == TRUNCATE ||
           (operation >= RENAME && operation <= LSTAT) || operation == FSTATAT || operation == ACCESS ||
           operation == CHMOD || operation == CHOWN || operation == LIST || operation == STATVFS ||
           operation == UTIMENS;
}

bool step_takes_stream(int operation)
{
    return operation >= FOPEN && operation <= FCLOSE;
}

void step_refresh(const struct step *step)
{
    struct stat st;
    FILE *stream = step_takes_stream(step->operation) ? streams[step->stream] : NULL;

    fstat(stream ? fileno(stream) : step->fd, &st);
}

void step_do(const struct step *step, struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    errno = 0;
    if (step->operation == UMASK)
        answer->result = umask((mode_t)step->flags);
    else if (step->operation == LISTAT)
        list_descriptor(step, answer);
    else if (step_takes_stream(step->operation))
        do_stream(step, answer);
    else if (step_takes_path(step->operation))
        do_path(step, answer);
    else if (step->operation >= READ && step->operation <= WRITEV)
        do_content(step, answer);
    else
        do_descriptor(step, answer);
    /* A plain call that succeeds must leave errno alone.  No program relies on that for stdio and listings. */
    bool exact = !step_takes_stream(step->operation) && step->operation != LIST && step->operation != LISTAT;
    answer->error = answer->result < 0 || exact ? errno : 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Seeded random sequences of the calls that a mail server makes on its spool, with a trace of every result.
 *
 *      sequences DIRECTORY [--seed N] [--count N] [--steps N] [--mutate N] [--pause US] [-v]
 *
 * DIRECTORY is laid out like a spool (input/, msglog/).  Run on a real directory without the library, and on a spool
 * with it, the same seeds must give the same trace: compare.py does both and compares.
 *
 * The happy path: the master makes each step up from the seed and from what succeeded before, sends it to one of up to
 * ACTORS processes through a pipe, and waits for the answer before it makes the next, so that several processes act in
 * one order.  Actors fork one another, execute themselves anew with what they have open, and exit, with and without
 * closing.  At the end a sequence's tree is dumped and removed.  A line of output is a sequence's seed and the hash of
 * its trace; -v prints the trace.
 *
 * What isn't compared, because the store does not promise it: inode numbers, times as such (only whether a file has
 * the time that it was given, and that times do not run backwards), the time of last access (the store sets it as
 * `noatime` does), sizes of directories, st_blocks, the order of listings, SEEK_DATA and SEEK_HOLE, and the
 * position of a stream whose descriptor others have moved (POSIX leaves it open until the stream is told).
 *
 * A deliberate deviation: record locks end with an exec, because the descriptor that holds them is closed there (Exim
 * takes none across an exec).  So an actor that holds locks doesn't execute itself.
 *
 * --mutate N spoils the result of step N of each sequence: a comparison that doesn't notice is broken.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <signal.h>

#define ACTORS    4
#define STREAMS   3
#define FDS       24         /* descriptors of an actor that the master remembers */
#define PIPES_AT  500        /* where the pipes lie: far above what a sequence opens, below the library's own */
#define GIVEN     1000000000 /* a time that utimens gives */
#define BUFFER    20000
#define LIFETIME  60 /* s, of an actor: one whose master has died must not stay */
#define PATH_SIZE 600

enum operation {
    OPEN,
    OPENAT,
    READ,
    PREAD,
    READV,
    WRITE,
    PWRITE,
    WRITEV,
    LSEEK,
    FTRUNCATE,
    TRUNCATE,
    DUP,
    DUP2,
    DUPFD,
    CLOSE,
    RENAME,
    LINK,
    UNLINK,
    UNLINKAT,
    MKDIR,
    RMDIR,
    STAT,
    LSTAT,
    FSTAT,
    FSTATAT,
    ACCESS,
    CHMOD,
    FCHMOD,
    CHOWN,
    FCHOWN,
    UMASK,
    GETFD,
    SETFD,
    GETFL,
    SETFL,
    SETLK,
    GETLK,
    LIST,
    LISTAT,
    SYNC,
    STATVFS,
    UTIMENS,
    SENDFILE,
    FOPEN,
    FDOPEN,
    FPRINTF,
    FGETS,
    FREAD,
    UNGETC,
    FSEEK,
    REWIND,
    FTELL,
    FFLUSH,
    FCLOSE,
    FORK,
    EXEC,
    EXIT,
    OPERATIONS
};

/* Name, and how often it is chosen. */
static struct {
    const char *name;
    unsigned weight;
} table[OPERATIONS] = {
    [OPEN] = {"open", 30},      [OPENAT] = {"openat", 5},       [READ] = {"read", 10},        [PREAD] = {"pread", 5},
    [READV] = {"readv", 2},     [WRITE] = {"write", 16},        [PWRITE] = {"pwrite", 5},     [WRITEV] = {"writev", 2},
    [LSEEK] = {"lseek", 8},     [FTRUNCATE] = {"ftruncate", 4}, [TRUNCATE] = {"truncate", 3}, [DUP] = {"dup", 3},
    [DUP2] = {"dup2", 3},       [DUPFD] = {"dupfd", 3},         [CLOSE] = {"close", 12},      [RENAME] = {"rename", 10},
    [LINK] = {"link", 5},       [UNLINK] = {"unlink", 8},       [UNLINKAT] = {"unlinkat", 3}, [MKDIR] = {"mkdir", 4},
    [RMDIR] = {"rmdir", 4},     [STAT] = {"stat", 8},           [LSTAT] = {"lstat", 2},       [FSTAT] = {"fstat", 8},
    [FSTATAT] = {"fstatat", 3}, [ACCESS] = {"access", 3},       [CHMOD] = {"chmod", 3},       [FCHMOD] = {"fchmod", 3},
    [CHOWN] = {"chown", 2},     [FCHOWN] = {"fchown", 2},       [UMASK] = {"umask", 1},       [GETFD] = {"getfd", 3},
    [SETFD] = {"setfd", 3},     [GETFL] = {"getfl", 3},         [SETFL] = {"setfl", 2},       [SETLK] = {"setlk", 8},
    [GETLK] = {"getlk", 4},     [LIST] = {"list", 4},           [LISTAT] = {"listat", 3},     [SYNC] = {"sync", 3},
    [STATVFS] = {"statvfs", 1}, [UTIMENS] = {"utimens", 2},     [SENDFILE] = {"sendfile", 2}, [FOPEN] = {"fopen", 14},
    [FDOPEN] = {"fdopen", 5},   [FPRINTF] = {"fprintf", 24},    [FGETS] = {"fgets", 18},      [FREAD] = {"fread", 9},
    [UNGETC] = {"ungetc", 8},   [FSEEK] = {"fseek", 12},        [REWIND] = {"rewind", 6},     [FTELL] = {"ftell", 6},
    [FFLUSH] = {"fflush", 12},  [FCLOSE] = {"fclose", 14},      [FORK] = {"fork", 6},         [EXEC] = {"exec", 3},
    [EXIT] = {"exit", 3},
};

struct step {
    int operation;
    int fd, to; /* descriptors, or the actor that a fork makes */
    int stream;
    long flags, offset, size;
    unsigned salt; /* of the bytes written */
    char path[PATH_SIZE], other[PATH_SIZE];
};

struct answer {
    long result;
    int error;
    pid_t pid;      /* of a fork's child */
    char text[400]; /* what else is compared */
};

/* ---- an actor: does one step ---- */

static char buffer[BUFFER];
static FILE *streams[STREAMS];
static pid_t actor_pid[ACTORS]; /* the master's, and in each actor what it was at its fork */

static uint64_t hash_of(const void *bytes, size_t size)
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
        errno = EISDIR; /* a directory whose offset a listing has moved: file systems disagree */
    if (size > 0)
        snprintf(answer->text, sizeof(answer->text), "%016llx", (unsigned long long)hash_of(buffer, (size_t)size));
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
    int owner = -1;
    for (int a = 0; range.l_type != F_UNLCK && a < ACTORS; a++)
        owner = actor_pid[a] == range.l_pid ? a : owner;
    snprintf(answer->text, sizeof(answer->text), "type %d from %ld for %ld of %s", range.l_type, (long)range.l_start,
             (long)range.l_len, owner < 0 ? "-" : "an actor");
}

/* What is sent goes through a pipe, and is read back. */
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
        snprintf(answer->text, sizeof(answer->text), "%016llx %ld", (unsigned long long)hash_of(buffer, (size_t)got),
                 (long)offset);
}

static bool is_directory(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static void do_descriptor(const struct step *step, struct answer *answer)
{
    struct iovec parts[2] = {{buffer, (size_t)step->size / 3},
                             {buffer + step->size / 3, (size_t)(step->size - step->size / 3)}};
    struct stat st;

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
        case WRITEV:
            fill(step);
            answer->result = writev(step->fd, parts, 2);
            break;
        case LSEEK:
            /* Where a directory's offset may stand differs between real file systems. */
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

static void do_path(const struct step *step, struct answer *answer)
{
    const struct timespec given[2] = {{.tv_sec = GIVEN}, {.tv_sec = GIVEN}};
    struct statvfs vfs;
    struct stat st;

    switch (step->operation) {
        case OPEN:
            answer->result = open(step->path, (int)step->flags, (mode_t)step->size);
            break;
        case OPENAT:
            answer->result = openat(step->fd, step->path, (int)step->flags, (mode_t)step->size);
            break;
        case TRUNCATE:
            answer->result = truncate(step->path, step->offset);
            break;
        case RENAME:
            answer->result = step->flags % 2 ? rename(step->path, step->other)
                                             : renameat(AT_FDCWD, step->path, AT_FDCWD, step->other);
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
                snprintf(answer->text, sizeof(answer->text), "%s",
                         vfs.f_bavail > 0 && vfs.f_bsize > 0 ? "room" : "none");
            break;
        default:
            answer->result = utimensat(AT_FDCWD, step->path, given, 0);
    }
}

static void list_descriptor(const struct step *step, struct answer *answer)
{
    int fd = fcntl(step->fd, F_DUPFD_CLOEXEC, 0);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    int error = errno;

    if (directory)
        rewinddir(directory); /* the description's offset is shared with earlier listings */
    else if (fd >= 0)
        close(fd);
    errno = error;
    tell_listing(answer, directory);
}

/* Others may have moved the descriptor under the stream, and POSIX wants a stream told of that. */
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

static bool takes_path(int operation)
{
    return operation == OPEN || operation == OPENAT || operation == TRUNCATE ||
           (operation >= RENAME && operation <= LSTAT) || operation == FSTATAT || operation == ACCESS ||
           operation == CHMOD || operation == CHOWN || operation == LIST || operation == STATVFS ||
           operation == UTIMENS;
}

static bool takes_stream(int operation)
{
    return operation >= FOPEN && operation <= FCLOSE;
}

static void act(const struct step *step, struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    errno = 0;
    if (step->operation == UMASK)
        answer->result = umask((mode_t)step->flags);
    else if (step->operation == LISTAT)
        list_descriptor(step, answer);
    else if (takes_stream(step->operation))
        do_stream(step, answer);
    else if (takes_path(step->operation))
        do_path(step, answer);
    else
        do_descriptor(step, answer);
    /* A plain call that succeeds leaves errno alone; what stdio and listings do to it nobody relies on. */
    bool exact = !takes_stream(step->operation) && step->operation != LIST && step->operation != LISTAT;
    answer->error = answer->result < 0 || exact ? errno : 0;
}

/* ---- an actor's life ---- */

static int command_end(int actor, int end)
{
    return PIPES_AT + 4 * actor + end;
}
static int answer_end(int actor, int end)
{
    return PIPES_AT + 4 * actor + 2 + end;
}

static char *program;

static void send_all(int fd, const void *bytes, size_t size)
{
    if (write(fd, bytes, size) != (ssize_t)size)
        _exit(9);
}

static void live(int self) __attribute__((noreturn));

static void exec_again(int self)
{
    char number[4];

    snprintf(number, sizeof(number), "%d", self);
    execl(program, program, "--actor", number, (char *)NULL);
    _exit(8);
}

static pid_t fork_actor(int actor)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        live(actor);
    }
    return pid;
}

static void live(int self)
{
    struct step step;
    struct answer answer;

    signal(SIGCHLD, SIG_IGN);
    alarm(LIFETIME);
    while (read(command_end(self, 0), &step, sizeof(step)) == sizeof(step)) {
        if (step.operation == EXEC)
            exec_again(self);
        if (step.operation == EXIT && step.flags % 2)
            exit(0);
        if (step.operation == EXIT)
            _exit(0);
        if (step.operation == FORK) {
            memset(&answer, 0, sizeof(answer));
            answer.pid = fork_actor(step.to);
        } else {
            act(&step, &answer);
        }
        send_all(answer_end(self, 1), &answer, sizeof(answer));
    }
    _exit(0);
}

/* ---- the master: makes the steps up ---- */

struct actor {
    bool alive;
    int pidfd;
    int fds[FDS];
    int count;
    int directory; /* a descriptor of one, 0: none */
    bool locks;    /* it has taken record locks */
    bool stream[STREAMS];
};

static struct actor actors[ACTORS];
static uint64_t state;
static bool verbose;
static long mutated_step = -1;
static useconds_t pause_us; /* between two steps: time for others to work on the files */
static const char *root; /* the spool */
static uint64_t trace;   /* hash of the sequence's lines */

static uint32_t some(uint32_t below)
{
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = (state ^ state >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) % below);
}

static bool once_in(uint32_t n)
{
    return some(n) == 0;
}

static void line(const char *text)
{
    trace = trace * 31 + hash_of(text, strlen(text));
    if (verbose)
        puts(text);
}

/* Names in a sequence's own directory: messages, directories, and what is in them. */
static const char *const names[] = {"1abcde-000001-AB-D",
                                    "1abcde-000001-AB-H",
                                    "hdr.1abcde-000001-AB",
                                    "1abcde-000001-AB-J",
                                    "f",
                                    "g",
                                    "d",
                                    "d/f",
                                    "d/g",
                                    "d/e",
                                    "d/e/f",
                                    "e",
                                    "e/f"};
#define NAMES (sizeof(names) / sizeof(names[0]))

static void some_path(char *path, uint64_t seed, bool one_of_two)
{
    static const char *const before[] = {"", "/", "./", "d/../", "e/./../", "./////", "../@/", "nothere/../"};
    char number[24];
    const char *name = names[some(once_in(3) ? NAMES : 6)];
    const char *prefix = once_in(4) ? before[some(8)] : "";
    const char *tail = once_in(20) ? "/" : once_in(30) ? "/." : once_in(60) ? "/.." : "";
    char with[64];

    snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
    if (strcmp(prefix, "../@/") == 0) {
        snprintf(with, sizeof(with), "../%s/", number);
        prefix = with;
    }
    if (!one_of_two && once_in(60)) { /* which of two bad paths is found out first is nobody's business */
        static char too_long[257];
        memset(too_long, 'n', 255 + some(2));
        name = too_long;
        prefix = "";
        tail = "";
        too_long[255 + some(2)] = '\0';
    }
    const char *tree = once_in(12) ? "msglog" : "input";
    if (once_in(5)) /* relative to the spool */
        snprintf(path, PATH_SIZE, "%s/%s/%s%s%s", tree, number, prefix, name, tail);
    else
        snprintf(path, PATH_SIZE, "%s%s%s/%s/%s%s%s", root, once_in(5) ? "//" : "/", tree, number, prefix, name, tail);
}

static long some_flags(void)
{
    static const int ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
    static const int more[] = {O_CREAT,     O_CREAT,   O_CREAT | O_EXCL, O_TRUNC,   O_APPEND,
                               O_DIRECTORY, O_CLOEXEC, O_NOFOLLOW,       O_NONBLOCK};
    int flags = ways[some(4)];

    for (uint32_t i = some(4); i > 0; i--)
        flags |= more[some(9)];
    if ((flags & O_CREAT) && (flags & O_DIRECTORY))
        flags &= ~O_DIRECTORY; /* means different things to different kernels */
    if (once_in(8))
        flags = O_RDONLY | O_DIRECTORY;
    return flags;
}

static int some_fd(const struct actor *actor)
{
    return actor->count == 0 || once_in(40) ? (int)some(12) + 3 : actor->fds[some((uint32_t)actor->count)];
}

static long some_offset(void)
{
    static const long offsets[] = {0, 0, 1, 19, 100, 4095, 4096, 4097, 8192, 10000, 16384, 70000, -1, -20, 1000000};
    return once_in(2) ? (long)some(9000) : offsets[some(15)];
}

static int choose_operation(void)
{
    unsigned total = 0, pick;

    for (int i = 0; i < OPERATIONS; i++)
        total += table[i].weight;
    pick = some(total);
    for (int i = 0; i < OPERATIONS; i++) {
        if (pick < table[i].weight)
            return i;
        pick -= table[i].weight;
    }
    return OPEN;
}

/* Streams only where there is (or isn't yet) one, forks only where there is room. */
static bool possible(const struct step *step, const struct actor *actor, int alive)
{
    switch (step->operation) {
        case FOPEN:
        case FDOPEN:
            return !actor->stream[step->stream];
        case FORK:
            return alive < ACTORS;
        case EXIT:
            return alive > 1;
        case EXEC:
            return !actor->locks;
        default:
            if (takes_stream(step->operation))
                return actor->stream[step->stream];
            return takes_path(step->operation) || actor->count > 0 || once_in(10);
    }
}

static bool takes_directory(int operation)
{
    return operation == OPENAT || operation == UNLINKAT || operation == FSTATAT || operation == LISTAT;
}

/* Every sequence begins with something to work on. */
static const int prologue[] = {MKDIR, OPEN, WRITE, OPEN, WRITE, OPEN, WRITE, FORK};
#define PROLOGUE (long)(sizeof(prologue) / sizeof(prologue[0]))

static void make_up(struct step *step, const struct actor *actor, int alive, uint64_t seed, long number)
{
    static const mode_t file_modes[] = {0640, 0600, 0400, 0777, 0};

    memset(step, 0, sizeof(*step));
    do {
        step->operation = number <= PROLOGUE ? prologue[number - 1] : choose_operation();
        step->stream = (int)some(STREAMS);
    } while (!possible(step, actor, alive));
    step->fd = some_fd(actor);
    step->to = 3 + (int)some(12);
    step->salt = some(1000);
    step->offset = some_offset();
    step->size = once_in(3) ? (long)some(BUFFER - 1) : (long)some(700);
    step->flags = (long)some(24);
    if (takes_path(step->operation) || step->operation == FOPEN)
        some_path(step->path, seed, step->operation == RENAME || step->operation == LINK);
    if (step->operation == RENAME || step->operation == LINK)
        some_path(step->other, seed, true);
    if (step->operation == OPENAT || step->operation == UNLINKAT || step->operation == FSTATAT)
        snprintf(step->path, sizeof(step->path), "%s", names[some(once_in(3) ? NAMES : 6)]);
    if (takes_directory(step->operation) && actor->directory && !once_in(5))
        step->fd = actor->directory;
    if (step->operation == OPEN || step->operation == OPENAT || step->operation == MKDIR) {
        step->flags = some_flags();
        step->size = step->operation == MKDIR ? 0750 : file_modes[some(5)];
        if (step->operation == OPEN && (step->flags & O_DIRECTORY))
            snprintf(step->path, sizeof(step->path), "%s/input/%llu%s", root, (unsigned long long)seed,
                     once_in(3)   ? "/d"
                     : once_in(3) ? "/."
                                  : "");
        if (number <= PROLOGUE) {
            bool directory = step->operation == MKDIR;
            snprintf(step->path, sizeof(step->path), "%s/input/%llu/%s", root, (unsigned long long)seed,
                     names[directory ? NAMES - 7 : some(6)]);
            step->flags = O_RDWR | O_CREAT | (once_in(4) ? O_APPEND : 0) | (once_in(3) ? O_CLOEXEC : 0);
        }
    } else if (step->operation == CHMOD || step->operation == FCHMOD) {
        step->flags = file_modes[some(5)] | (once_in(5) ? 0700 : 0);
    } else if (step->operation == CHOWN || step->operation == FCHOWN) {
        step->offset = once_in(4) ? -1 : (long)some(3);
        step->size = once_in(4) ? -1 : (long)some(3);
    } else if (step->operation == UMASK) {
        step->flags = once_in(2) ? 0 : 027;
    } else if (step->operation == LSEEK || step->operation == FSEEK) {
        step->flags = (long)some(once_in(20) ? 7 : 3);
        step->flags = step->flags == SEEK_DATA || step->flags == SEEK_HOLE ? 9 : step->flags;
    } else if (step->operation == SETLK || step->operation == GETLK) {
        step->offset = (long)some(3) * 10;
        step->size = once_in(4) ? 0 : 19;
    } else if (step->operation == FPRINTF || step->operation == FGETS || step->operation == FREAD) {
        step->size %= 900;
    }
}

/* ---- what a step changes in what the master knows ---- */

static void remember(struct actor *actor, int fd)
{
    for (int i = 0; i < actor->count; i++) {
        if (actor->fds[i] == fd)
            return;
    }
    if (actor->count < FDS)
        actor->fds[actor->count++] = fd;
}

static void forget(struct actor *actor, int fd)
{
    for (int i = 0; i < actor->count; i++) {
        if (actor->fds[i] == fd)
            actor->fds[i--] = actor->fds[--actor->count];
    }
}

static void learn(struct actor *actor, const struct step *step, const struct answer *answer)
{
    switch (step->operation) {
        case OPEN:
        case OPENAT:
        case DUP:
        case DUP2:
        case DUPFD:
            if (answer->result < 0)
                break;
            remember(actor, (int)answer->result);
            if (step->operation == OPEN && (step->flags & O_DIRECTORY))
                actor->directory = (int)answer->result;
            break;
        case CLOSE:
            forget(actor, step->fd);
            actor->directory = actor->directory == step->fd ? 0 : actor->directory;
            break;
        case FOPEN:
        case FDOPEN:
            if (answer->result < 0)
                break;
            actor->stream[step->stream] = true;
            remember(actor, (int)answer->result);
            break;
        case FCLOSE:
            actor->stream[step->stream] = false;
            break;
        case SETLK:
            actor->locks = actor->locks || answer->result == 0;
            break;
        default:
            break;
    }
}

/* A descriptor that a stream stands on is the stream's: closing it under the stream is the program's error, and what
 * follows differs by what opens next.  So a sequence closes it only by fclose. */
static bool is_improper(const struct step *step, const int owned[ACTORS][STREAMS], int actor)
{
    int fd = step->operation == CLOSE ? step->fd : step->operation == DUP2 ? step->to : -1;

    for (int s = 0; s < STREAMS; s++) {
        if (actors[actor].stream[s] &&
            (owned[actor][s] == fd || (step->operation == FDOPEN && owned[actor][s] == step->fd)))
            return true;
    }
    return step->operation == DUP2 && step->fd == step->to && !(step->flags % 2);
}

/* ---- a sequence ---- */

static void wait_for_end(struct actor *actor)
{
    struct pollfd end = {.fd = actor->pidfd, .events = POLLIN};

    while (poll(&end, 1, 60000) < 0 && errno == EINTR)
        ;
    close(actor->pidfd);
    actor->alive = false;
}

static int open_pid(pid_t pid)
{
    int low = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = fcntl(low, F_DUPFD_CLOEXEC, PIPES_AT + 100);
    close(low);
    return fd;
}

static void receive(int actor, struct answer *answer)
{
    if (read(answer_end(actor, 0), answer, sizeof(*answer)) != sizeof(*answer)) {
        fprintf(stderr, "sequences: an actor does not answer\n");
        exit(2);
    }
}

static void dismiss(int a, bool flush)
{
    struct step step = {.operation = EXIT, .flags = flush};

    send_all(command_end(a, 1), &step, sizeof(step));
    wait_for_end(&actors[a]);
}

static void play(int a, const struct step *step, struct answer *answer)
{
    struct step question = {.operation = GETFD, .fd = 0};

    if (step->operation == EXIT) {
        memset(answer, 0, sizeof(*answer));
        dismiss(a, step->flags % 2);
        return;
    }
    send_all(command_end(a, 1), step, sizeof(*step));
    if (step->operation == EXEC) {
        send_all(command_end(a, 1), &question, sizeof(question)); /* answered by the new image */
        memset(actors[a].stream, 0, sizeof(actors[a].stream));
    }
    receive(a, answer);
    if (step->operation == FORK) {
        struct actor *child = &actors[step->to];
        int pidfd = open_pid(answer->pid);
        *child = actors[a];
        child->pidfd = pidfd;
        child->locks = false;
        actor_pid[step->to] = answer->pid;
    }
}

static void describe(char *text, size_t size, long number, int a, const struct step *step, const struct answer *answer)
{
    const char *path = strncmp(step->path, root, strlen(root)) == 0 ? step->path + strlen(root) : step->path;
    const char *other = strncmp(step->other, root, strlen(root)) == 0 ? step->other + strlen(root) : step->other;
    const char *error = answer->error ? strerrorname_np(answer->error) : "";

    snprintf(text, size, "%3ld actor %d %s fd %d to %d stream %d flags %lo offset %ld size %ld %s %s = %ld %s %s",
             number, a, table[step->operation].name, step->fd, step->to, step->stream, step->flags, step->offset,
             step->size, path, other, answer->result, error ? error : "?", answer->text);
}

static void dump(const char *path)
{
    struct step step = {.operation = LIST};
    struct answer answer;
    char text[1200], listing[400], *rest = listing;

    snprintf(step.path, sizeof(step.path), "%s", path);
    act(&step, &answer);
    snprintf(text, sizeof(text), "tree %s: %ld %s", path + strlen(root), answer.result, answer.text);
    line(text);
    memcpy(listing, answer.text, sizeof(listing));
    for (const char *name; (name = strsep(&rest, " "));) {
        char below[PATH_SIZE];
        struct stat st;
        if (*name == '\0' || name[0] == '.')
            continue;
        snprintf(below, sizeof(below), "%.200s/%s", path, name);
        bool directory = below[strlen(below) - 1] == '/';
        memset(&answer, 0, sizeof(answer));
        answer.result = stat(below, &st);
        tell_stat(&answer, &st);
        int fd = directory ? -1 : open(below, O_RDONLY);
        ssize_t got = fd < 0 ? 0 : read(fd, buffer, sizeof(buffer));
        if (fd >= 0)
            close(fd);
        snprintf(text, sizeof(text), "file %s: %s %016llx", below + strlen(root), answer.text,
                 (unsigned long long)hash_of(buffer, got > 0 ? (size_t)got : 0));
        line(text);
        if (directory) {
            below[strlen(below) - 1] = '\0';
            dump(below);
        }
        int gone = directory ? rmdir(below) : unlink(below);
        if (gone != 0) {
            snprintf(text, sizeof(text), "file %s can't be removed: %s", below + strlen(root), strerrorname_np(errno));
            line(text);
        }
    }
}

static void directories_of(uint64_t seed, char paths[2][200])
{
    snprintf(paths[0], 200, "%.150s/input/%llu", root, (unsigned long long)seed);
    snprintf(paths[1], 200, "%.150s/msglog/%llu", root, (unsigned long long)seed);
}

static void begin(void)
{
    memset(actors, 0, sizeof(actors));
    memset(actor_pid, 0, sizeof(actor_pid));
    fflush(stdout);
    actor_pid[0] = fork_actor(0);
    actors[0].pidfd = open_pid(actor_pid[0]);
    actors[0].alive = true;
}

static void run_sequence(uint64_t seed, long steps)
{
    static char text[3000];
    int owned[ACTORS][STREAMS] = {{0}};
    char paths[2][200];

    state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    trace = 0;
    directories_of(seed, paths);
    for (int p = 0; p < 2; p++) {
        snprintf(text, sizeof(text), "mkdir %d", mkdir(paths[p], 0750));
        line(text);
    }
    begin();
    for (long number = 1; number <= steps; number++) {
        struct step step;
        struct answer answer;
        int alive = 0, a, free_slot = 0;
        for (a = 0; a < ACTORS; a++)
            alive += actors[a].alive;
        do
            a = (int)some(ACTORS);
        while (!actors[a].alive);
        make_up(&step, &actors[a], alive, seed, number);
        while (free_slot < ACTORS - 1 && actors[free_slot].alive)
            free_slot++;
        if (step.operation == FORK)
            step.to = free_slot;
        if (is_improper(&step, (const int(*)[STREAMS])owned, a))
            continue;
        if (pause_us)
            usleep(pause_us);
        play(a, &step, &answer);
        learn(&actors[a], &step, &answer);
        if (step.operation == FORK)
            memcpy(owned[step.to], owned[a], sizeof(owned[a]));
        if ((step.operation == FOPEN || step.operation == FDOPEN) && answer.result >= 0)
            owned[a][step.stream] = (int)answer.result;
        if (step.operation == FCLOSE)
            forget(&actors[a], owned[a][step.stream]);
        if (number == mutated_step)
            answer.result++;
        describe(text, sizeof(text), number, a, &step, &answer);
        line(text);
    }
    for (int a = 0; a < ACTORS; a++) {
        if (actors[a].alive)
            dismiss(a, true);
    }
    for (int p = 0; p < 2; p++) {
        dump(paths[p]);
        snprintf(text, sizeof(text), "rmdir %d", rmdir(paths[p]));
        line(text);
    }
}

/* ---- the program ---- */

static void make_pipes(void)
{
    for (int i = 0; i < 2 * ACTORS; i++) {
        int line_ends[2];
        if (pipe(line_ends) < 0 || dup2(line_ends[0], PIPES_AT + 2 * i) < 0 ||
            dup2(line_ends[1], PIPES_AT + 2 * i + 1) < 0) {
            perror("sequences: pipe");
            exit(2);
        }
        close(line_ends[0]);
        close(line_ends[1]);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    long count = 1, steps = 45;

    program = realpath("/proc/self/exe", NULL);
    if (argc == 3 && strcmp(argv[1], "--actor") == 0)
        live(atoi(argv[2]));
    if (argc < 2 || !program) {
        fprintf(stderr, "usage: sequences DIRECTORY [--seed N] [--count N] [--steps N] [--mutate N] [--pause US] [-v]\n");
        return 2;
    }
    root = argv[1];
    for (int i = 2; i < argc; i++) {
        verbose = verbose || strcmp(argv[i], "-v") == 0;
        if (i + 1 == argc)
            break;
        seed = strcmp(argv[i], "--seed") == 0 ? strtoull(argv[i + 1], NULL, 10) : seed;
        count = strcmp(argv[i], "--count") == 0 ? atol(argv[i + 1]) : count;
        steps = strcmp(argv[i], "--steps") == 0 ? atol(argv[i + 1]) : steps;
        pause_us = strcmp(argv[i], "--pause") == 0 ? (useconds_t)atol(argv[i + 1]) : pause_us;
        mutated_step = strcmp(argv[i], "--mutate") == 0 ? atol(argv[i + 1]) : mutated_step;
    }
    if (pause_us) { /* what the others work on are files that nobody has open */
        table[CLOSE].weight *= 8;
        table[FCLOSE].weight *= 4;
    }
    if (chdir(root) < 0) {
        perror(root);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(0);
    close_range(3, PIPES_AT + 4 * ACTORS, 0);
    make_pipes();
    for (; count > 0; count--, seed++) {
        run_sequence(seed, steps);
        printf("%llu %016llx\n", (unsigned long long)seed, (unsigned long long)trace);
    }
    return 0;
}

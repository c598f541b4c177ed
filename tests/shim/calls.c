/* SPDX-License-Identifier: MIT
 *
 * Every call that takes a path or a descriptor, on a file of the spool and on an ordinary one:
 *
 *      calls TABLE PLAIN SPOOL [view|later]
 *
 * Run it as root with the library, in a private namespace.  TABLE is docs/calls.md: what it says of a call must be
 * true, and each row that a program can reach by libc must have an act here.  PLAIN is a directory of a file system
 * with all calls.  "view": it waits for the view.  "later": it does, and each act is the first of a process that has
 * become an ordinary user with the descriptors open, in both places.
 *
 * An act is made on a new file in each place.  `served` means: the same result, and afterwards the same content, size,
 * mode and offset.  An errno means that one, and that nothing has changed.  After each act every placeholder is as
 * it was made, and the descriptor still works.
 */
#include "view.h"

#include <aio.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <linux/fs.h>
#include <poll.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>
#include <utime.h>

#define TEXT "0123456789"
#define USER 23001

static int failures;
static bool with_view, later;

/* ---- the place of an act ---- */

static char directory[200];                /* where it is made */
static char file[250], new[250], sub[250]; /* a file, a name that is free, an empty directory */
static int fd, reading, naming, dirfd_;    /* of the file: O_RDWR, O_RDONLY, O_PATH; of `directory` */
static char name[32], short_name[32];      /* other names of fd: /proc/self/fd/N, /dev/fd/N */
static void *bad;                          /* memory that can't be used */
static char bytes[64];
static int number, visited;
static volatile int minus_one = -1; /* the compiler knows better than to let one pass it */
static struct stat st;
static struct statx stx;
static const struct flock constant = {.l_type = F_WRLCK, .l_len = 1}; /* in memory that is not to be written */

static long closed(int opened)
{
    if (opened >= 0)
        close(opened);
    return opened < 0 ? -1 : 0;
}

static void set_up(const char *where)
{
    snprintf(directory, sizeof(directory), "%s", where);
    snprintf(file, sizeof(file), "%s/file", directory);
    snprintf(new, sizeof(new), "%s/new", directory);
    snprintf(sub, sizeof(sub), "%s/sub", directory);
    int made = open(file, O_RDWR | O_CREAT | O_EXCL, 0640);
    close(open("/srv/outside", O_WRONLY | O_CREAT, 0600));
    if (made < 0 || write(made, TEXT, 10) != 10 || mkdir(sub, 0755) < 0) {
        perror(file);
        exit(1);
    }
    close(made);
    fd = open(file, O_RDWR);
    reading = open(file, O_RDONLY);
    naming = open(file, O_PATH);
    dirfd_ = open(directory, O_RDONLY | O_DIRECTORY);
    lseek(fd, 3, SEEK_SET);
    lseek(reading, 3, SEEK_SET);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    snprintf(short_name, sizeof(short_name), "/dev/fd/%d", fd);
    memset(bytes, 0, sizeof(bytes));
    visited = number = 0;
}

/* What an act leaves behind, in words. */
static void describe(char *text, size_t size)
{
    char content[65] = "";
    struct stat now, at_name;
    ssize_t length = pread(fd, content, sizeof(content) - 1, 0);
    bool open_still = fstat(fd, &now) == 0;

    if (!open_still)
        memset(&now, 0, sizeof(now));
    DIR *stream = opendir(directory);
    int names = 0;
    while (stream && readdir(stream))
        names++;
    if (stream)
        closedir(stream);
    snprintf(text, size, "%d names, %s size %ld mode %o owner %u:%u links %u offset %ld,%ld content \"%.*s\"%s%s%s",
             names, open_still ? "open" : "closed", (long)now.st_size, now.st_mode, now.st_uid, now.st_gid,
             (unsigned)now.st_nlink, (long)lseek(fd, 0, SEEK_CUR), (long)lseek(reading, 0, SEEK_CUR),
             length > 0 ? (int)length : 0, content, stat(file, &at_name) == 0 ? "" : ", no file",
             stat(new, &at_name) == 0 ? ", new" : "", stat(sub, &at_name) == 0 ? "" : ", no sub");
}

static void tear_down(void)
{
    char path[500];

    close(fd);
    close(reading);
    close(naming);
    close(dirfd_);
    close(900);
    DIR *stream = opendir(directory);
    for (struct dirent *entry; (entry = readdir(stream));) {
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        remove(path);
    }
    closedir(stream);
}

/* ---- what an act needs ---- */

static struct statfs sfs;
static struct statvfs vfs;
static struct dirent **entries;

static const char *directory_name(void)
{
    static char path[32];
    snprintf(path, sizeof(path), "/dev/fd/%d", dirfd_);
    return path;
}

static char *pattern(const char *end)
{
    static char path[260];
    snprintf(path, sizeof(path), "%s/%s", directory, end);
    return path;
}

/* A chain of directories, longer than a path may be, and a file at its end by a relative path.  Gone afterwards. */
static long deep(void)
{
    enum { LEVELS = 20 };
    char part[251];
    int at[LEVELS + 1] = {openat(dirfd_, ".", O_RDONLY | O_DIRECTORY)};
    long result = 0, made = 0;

    memset(part, 'd', sizeof(part) - 1);
    part[sizeof(part) - 1] = '\0';
    for (; made < LEVELS; made++) {
        if (mkdirat(at[made], part, 0700) < 0)
            break;
        at[made + 1] = openat(at[made], part, O_RDONLY | O_DIRECTORY);
    }
    int last = openat(at[made], "last", O_RDWR | O_CREAT, 0600);
    if (last < 0 || write(last, "abc", 3) != 3 || fstatat(at[made], "last", &st, 0) < 0)
        result = -1;
    struct stat top;
    if (result == 0 && fstat(dirfd_, &top) == 0 && top.st_dev != st.st_dev)
        result = -1; /* it is not in the store, but on the disk or in a placeholder */
    close(last);
    result = result < 0 || unlinkat(at[made], "last", 0) < 0 ? -1 : made * 1000 + st.st_size;
    for (; made > 0; made--) {
        close(at[made]);
        if (unlinkat(at[made - 1], part, AT_REMOVEDIR) < 0)
            result = -1;
    }
    close(at[0]);
    return result;
}

/* A relative path that is too long as an absolute one: "./././.../file". */
static const char *dots(void)
{
    static char path[4096];

    path[0] = '\0';
    while (strlen(path) < 4085)
        strcat(path, "./");
    return strcat(path, "file");
}

/* A call from @directory as the working directory. */
static long inside(long (*call)(void))
{
    if (chdir(directory) < 0)
        return -1;
    long result = call();
    int saved = errno;
    chdir("/");
    errno = saved;
    return result;
}

static long open_dots(void)
{
    return closed(open(dots(), O_RDONLY));
}

static long chmod_dots(void)
{
    return chmod(dots(), 0600);
}

static long ends(long length, const char *end)
{
    size_t size = strlen(end);
    return length < 0 ? -1 : strncmp(bytes + length - (long)size, end, size) == 0;
}

static long real(char *path)
{
    long same = path ? strcmp(path, file) == 0 : -1;
    free(path);
    return same;
}

static long selected(int which)
{
    fd_set set;

    FD_ZERO(&set);
    FD_SET(which, &set);
    return select(which + 1, &set, NULL, NULL, &(struct timeval){0, 0});
}

/* The error of the last call stays. */
static long and_close(long result, int which)
{
    int saved = errno;
    close(which);
    errno = saved;
    return result;
}

static long polled(int which)
{
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    return and_close(epoll_ctl(poller, EPOLL_CTL_ADD, which, &event), poller);
}

static long mapped(int which, int protection, int flags)
{
    char *memory = mmap(NULL, 4096, protection, flags, which, 0);
    if (memory == MAP_FAILED)
        return -1;
    long first = memory[0];
    munmap(memory, 4096);
    return first;
}

static long spliced(int which)
{
    int ends_[2];
    pipe(ends_);
    long result = and_close(splice(which, NULL, ends_[1], NULL, 2, 0), ends_[0]);
    return and_close(result, ends_[1]);
}

static long spliced_into(int which)
{
    int ends_[2];
    pipe(ends_);
    write(ends_[1], "ab", 2);
    long result = and_close(splice(ends_[0], NULL, which, NULL, 2, 0), ends_[0]);
    return and_close(result, ends_[1]);
}

static long watched(const char *path)
{
    int watcher = inotify_init1(0);
    return and_close(inotify_add_watch(watcher, path, IN_MODIFY) < 0 ? -1 : 0, watcher);
}

static long marked(const char *path)
{
    int watcher = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
    return and_close(fanotify_mark(watcher, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, path), watcher);
}

static long handled(int where, const char *path, int flags)
{
    struct {
        struct file_handle handle;
        char room[MAX_HANDLE_SZ];
    } found = {.handle.handle_bytes = MAX_HANDLE_SZ};
    return name_to_handle_at(where, path, &found.handle, &number, flags);
}

static long use_address(const char *path, int (*use)(int, const struct sockaddr *, socklen_t))
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    return and_close(use(made, (struct sockaddr *)&address, sizeof(address)), made);
}

static int use_bind(int made, const struct sockaddr *address, socklen_t size)
{
    return bind(made, address, size);
}

static int use_connect(int made, const struct sockaddr *address, socklen_t size)
{
    return connect(made, address, size);
}

static long bound(const char *path)
{
    return use_address(path, use_bind);
}

static long connected(const char *path)
{
    return use_address(path, use_connect);
}

static long opened2_at(int where, const char *path)
{
    uint64_t how[3] = {O_RDONLY};
    return closed((int)syscall(SYS_openat2, where, path, how, sizeof(how)));
}

static long opened2(const char *path)
{
    return opened2_at(AT_FDCWD, path);
}

/* aio_read(3) in libc is a thread that calls pread by itself. */
static long read_later(int which)
{
    struct aiocb control = {.aio_fildes = which, .aio_buf = bytes, .aio_nbytes = 4}, *list[] = {&control};

    if (lio_listio(LIO_WAIT, list, 1, NULL) < 0 && errno != EIO)
        return -1;
    errno = aio_error(&control);
    return errno ? -1 : aio_return(&control);
}

static long sync_later(int which)
{
    struct aiocb control = {.aio_fildes = which};

    if (aio_fsync(O_SYNC, &control) < 0)
        return -1;
    while (aio_error(&control) == EINPROGRESS)
        usleep(1000);
    errno = aio_error(&control);
    return errno ? -1 : 0;
}

static long listed(DIR *stream)
{
    long count = 0;

    if (!stream)
        return -1;
    while (readdir(stream))
        count++;
    closedir(stream);
    return count;
}

static long globbed(const char *names)
{
    glob_t found;
    int result = glob(pattern(names), GLOB_BRACE, NULL, &found);
    long count = result ? -result : (long)found.gl_pathc;
    globfree(&found);
    return count;
}

static int visit(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)path, (void)status, (void)kind, (void)place;
    visited++;
    return 0;
}

static int visit_old(const char *path, const struct stat *status, int kind)
{
    (void)path, (void)status, (void)kind;
    visited++;
    return 0;
}

static long walked(char *path)
{
    char *paths[] = {path, NULL};
    long count = 0;
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);

    if (!walk)
        return -1;
    while (fts_read(walk))
        count++;
    fts_close(walk);
    return count;
}

static long set_time_by(int which)
{
    const struct timespec times[] = {{1, 0}, {2, 0}};
    return utimensat(which, "", times, AT_EMPTY_PATH) < 0 ? -1 : fstat(fd, &st) < 0 ? -1 : st.st_mtime;
}

static long stream_read(FILE *stream)
{
    if (!stream)
        return -1;
    long got = (long)fread(bytes, 1, 4, stream);
    fclose(stream);
    return got * 1000 + bytes[0];
}

/* A child with the file as its descriptor 0, by a path: libc opens it in the child. */
static long spawned(void)
{
    posix_spawn_file_actions_t actions;
    int status = -1;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, file, O_RDONLY, 0);
    errno = posix_spawn(&pid, "/bin/true", &actions, NULL, (char *[]){"true", NULL}, (char *[]){NULL});
    posix_spawn_file_actions_destroy(&actions);
    if (errno)
        return -1;
    waitpid(pid, &status, 0);
    return status;
}

/* A child with the file as its descriptor 0. */
static long spawned_with(int which)
{
    posix_spawn_file_actions_t actions;
    int status = -1;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, which, 0);
    errno = posix_spawn(&pid, "/bin/sh", &actions, NULL, (char *[]){"sh", "-c", "[ -f /dev/stdin ]", NULL},
                        (char *[]){NULL});
    posix_spawn_file_actions_destroy(&actions);
    if (errno)
        return -1;
    waitpid(pid, &status, 0);
    return status;
}

/* A message with a descriptor. */
static char control[CMSG_SPACE(sizeof(int))];
static struct iovec one_byte = {bytes, 1};

static struct msghdr message_with(int which)
{
    struct msghdr message = {
        .msg_iov = &one_byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &which, sizeof(int));
    return message;
}

static int descriptor_in(struct msghdr *message)
{
    int got = -1;

    if (CMSG_FIRSTHDR(message))
        memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(message)), sizeof(int));
    return got;
}

/* Over a socket, to this process: what comes is the same file. */
static long passed(int which)
{
    int pair[2], got = -1;
    struct msghdr message = message_with(which);

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    sendmsg(pair[0], &message, 0);
    if (recvmsg(pair[1], &message, 0) == 1)
        got = descriptor_in(&message);
    close(pair[0]);
    close(pair[1]);
    return and_close(read(got, bytes, 4), got);
}

/* By the calls for many messages; and nobody else has the file when it comes. */
static long passed_before_the_close(const char *path)
{
    int pair[2], got = -1, sent = open(path, O_RDONLY);
    struct mmsghdr message = {.msg_hdr = message_with(sent)};

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    sendmmsg(pair[0], &message, 1, 0);
    close(sent);
    if (recvmmsg(pair[1], &message, 1, MSG_DONTWAIT, NULL) == 1)
        got = descriptor_in(&message.msg_hdr);
    close(pair[0]);
    close(pair[1]);
    return and_close(read(got, bytes, 4), got);
}

/* ---- the acts ---- */

static const struct act {
    const char *row, *text;
} acts[] = {
#define ACT(row, ...) {row, #__VA_ARGS__},
#include "calls.def"
#undef ACT
};
#define ACTS (sizeof(acts) / sizeof(*acts))

static long make(size_t which)
{
    size_t at = 0;

#define ACT(row, ...)  \
    if (which == at++) \
        return (long)(__VA_ARGS__);
#include "calls.def"
#undef ACT
    return -1;
}

/* ---- the table ---- */

/* A row: "| `read`, `pread` | 0, 17 | served | remark |".  The answer is "served" or errnos. */
static struct row {
    char calls[200], answer[40];
    bool viewed;      /* with a view the real call is made, on the view */
    bool seen, shown; /* has an act; one of its acts gave the errno */
} rows[400];
static int row_count;

static void read_table(const char *path)
{
    char line[1000];
    FILE *table = fopen(path, "r");

    while (table && fgets(line, sizeof(line), table)) {
        struct row *row = &rows[row_count];
        row->viewed = strstr(line, "with a view the view's");
        if (sscanf(line, "| %199[^|] |%*[^|]| %39[^ |] |", row->calls, row->answer) == 2 && row->calls[0] == '`')
            row_count++;
    }
    if (table)
        fclose(table);
}

static struct row *find_row(const char *call)
{
    char quoted[60];

    snprintf(quoted, sizeof(quoted), "`%s`", call);
    for (int i = 0; i < row_count; i++) {
        if (strstr(rows[i].calls, quoted))
            return &rows[i];
    }
    return NULL;
}

/* ---- an act in both places ---- */

struct outcome {
    long result;
    int error;
    char state[400];
};

static void act(size_t which, struct outcome *outcome)
{
    errno = 0;
    outcome->result = make(which);
    outcome->error = outcome->result == -1 ? errno : 0;
    describe(outcome->state, sizeof(outcome->state));
}

/* In a child that has become an ordinary user, whose descriptors wait for their files. */
static void act_as_user(size_t which, struct outcome *outcome)
{
    int ends_[2];

    pipe(ends_);
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(0, NULL) == 0 && setgid(USER) == 0 && setuid(USER) == 0) {
            act(which, outcome);
            write(ends_[1], outcome, sizeof(*outcome));
        }
        _exit(0);
    }
    close(ends_[1]);
    *outcome = (struct outcome){.state = "the process ended"};
    read(ends_[0], outcome, sizeof(*outcome));
    close(ends_[0]);
    waitpid(child, NULL, 0);
}

/* Does a number of such a child wait for its file?  It does soon after the view is mounted. */
static bool files_wait(const char *spool)
{
    int ends_[2];
    bool wait = false;

    pipe(ends_);
    for (int i = 0; i < 6000 && !wait; i++, usleep(10000)) {
        set_up(spool);
        pid_t child = fork();
        if (child == 0) {
            if (setgroups(0, NULL) == 0 && setgid(USER) == 0 && setuid(USER) == 0)
                write(ends_[1], "x", 1);
            pause();
        }
        wait = read(ends_[0], bytes, 1) == 1 && view_awaits(child, fd) && view_awaits(child, reading);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        tear_down();
    }
    return wait;
}

static void try(const char *where, size_t which, struct outcome *outcome)
{
    set_up(where);
    if (later)
        act_as_user(which, outcome);
    else
        act(which, outcome);
    tear_down();
}

/* Is every placeholder as it was made? */
static const char *placeholder_harm(void)
{
    static char harm[360];
    char path[300];
    glob_t found;

    if (glob("/run/fastspool/memory/*/fastspool.*/p??", 0, NULL, &found) != 0 || found.gl_pathc < 64)
        return "some are missing";
    harm[0] = '\0';
    for (size_t i = 0; i < found.gl_pathc; i++) {
        snprintf(path, sizeof(path), "%s", found.gl_pathv[i]);
        if (stat(path, &st) < 0 || (st.st_mode & 07777) != 0700 || st.st_uid != 0 || listxattr(path, NULL, 0) > 0)
            snprintf(harm, sizeof(harm), "%s has mode %o, owner %u", path, st.st_mode & 07777, st.st_uid);
    }
    globfree(&found);
    return harm[0] ? harm : NULL;
}

static const char *error_name(int error)
{
    return error ? strerrorname_np(error) : "success";
}

/* What a process that has left the store sees otherwise: the view has no extended attributes; a file of it has a name
 * of its own, and its flags say how it was opened; and of two errors in two names the library finds the other one. */
static const struct {
    const char *text;
    long result;
    int error;
} by_view[] = {
    {"flistxattr(fd, bytes, 40)", -1, EOPNOTSUPP},
    {"ends(readlink(name, bytes, sizeof(bytes)), \"/file\")", 0, 0},
    {"fcntl(fd, F_GETFL)", O_RDWR | O_NOFOLLOW | 0100000, 0}, /* the kernel's O_LARGEFILE */
    {"fcntl(naming, F_GETFL)", O_PATH | O_NOFOLLOW, 0},
    {"rename(file, bad)", -1, EFAULT},
    {"link(file, \"\")", -1, ENOENT},
    {"linkat(AT_FDCWD, name, AT_FDCWD, new, AT_SYMLINK_FOLLOW)", -1, EXDEV},
    {"walked(directory)", -1, EACCES},
};

/* Make @want what it is by the view. */
static void see_by_view(size_t which, struct outcome *want)
{
    for (size_t i = 0; i < sizeof(by_view) / sizeof(*by_view); i++) {
        if (strcmp(by_view[i].text, acts[which].text) != 0)
            continue;
        want->result = by_view[i].result;
        want->error = by_view[i].error;
    }
}

static void compare(size_t which, const char *plain, const char *spool)
{
    struct row *row = find_row(acts[which].row);
    struct outcome want, got;

    try(plain, which, &want);
    try(spool, which, &got);
    if (later)
        see_by_view(which, &want);
    const char *harm = placeholder_harm();
    bool same = want.result == got.result && want.error == got.error && strcmp(want.state, got.state) == 0;
    bool refused = row && strcmp(row->answer, error_name(got.error)) == 0;
    if (row) {
        row->seen = true;
        row->shown = row->shown || refused || (row->viewed && with_view) || strcmp(row->answer, "served") == 0;
    }
    if (row && (same || refused) && !harm)
        return;
    failures++;
    printf("not ok - %s: %s\n    ordinary: %ld %s, %s\n    spool:    %ld %s, %s\n", acts[which].row, acts[which].text,
           want.result, error_name(want.error), want.state, got.result, error_name(got.error), got.state);
    if (!row)
        printf("    the table has no row of it\n");
    if (harm)
        printf("    placeholder: %s\n", harm);
}

int main(int argc, char **argv)
{
    char spool[220];

    if (argc < 4)
        return 2;
    umask(0);
    read_table(argv[1]);
    snprintf(spool, sizeof(spool), "%s/input", argv[3]);
    mkdir(spool, 0755);
    with_view = argc > 4;
    later = with_view && strcmp(argv[4], "later") == 0;
    if (with_view && !view_comes(spool))
        return 77;
    if (later && !files_wait(spool)) {
        printf("not ok - no file is opened at its first use\n");
        return 1;
    }
    bad = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bad = (char *)bad + 4096;
    mprotect((char *)bad - 4096, 4096, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < ACTS; i++)
        compare(i, argv[2], spool);
    for (int i = 0; i < row_count && !later; i++) {
        if (rows[i].shown)
            continue;
        failures++;
        printf("not ok - the table's row %s: %s\n", rows[i].calls,
               rows[i].seen ? "no act gives this errno" : "has no act in calls.def");
    }
    printf("%zu acts, %d rows, %d failures\n", ACTS, row_count, failures);
    return failures != 0 || row_count < 10;
}

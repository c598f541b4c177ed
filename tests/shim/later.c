/* SPDX-License-Identifier: MIT
 *
 * Files of a process that has become an ordinary user, which it opens at their first use.  Every call must find the
 * file, whether it is open yet or not:
 *
 *      later SPOOL         the tests
 *      later SPOOL used    a child leaves the store with three files, and reads one, as Exim's does
 *
 * Run it as root with the library, in a private namespace; it waits for the view.  The exit status is 0 if all tests
 * pass, 77 if there is no view.
 */
#include "tests.h"
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER 23001

enum { DATA, JOURNAL, LOG, FILES };

static char directory[250], paths[FILES][300];
static int fds[FILES];

/* As a delivery of Exim's has them, with 4 bytes read. */
static void open_all(void)
{
    char bytes[4];

    for (int i = 0; i < FILES; i++) {
        int fd = open(paths[i], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        CHECK(fd >= 0 && write(fd, "0123456789", 10) == 10 && close(fd) == 0);
        fds[i] = open(paths[i], (i == DATA ? O_RDWR : O_WRONLY) | O_APPEND | O_CLOEXEC);
        CHECK(fds[i] >= 0);
    }
    CHECK(read(fds[DATA], bytes, 4) == 4);
}

static void close_all(void)
{
    for (int i = 0; i < FILES; i++)
        close(fds[i]);
}

static rlim_t most; /* numbers that a child may have; 0: as many as its parent */

/* Run @body in a child that has become an ordinary user. */
static pid_t start(void (*body)(void))
{
    const struct rlimit few = {most, most};
    pid_t child = fork();

    if (child == 0) {
        failures = 0;
        CHECK(most == 0 || setrlimit(RLIMIT_NOFILE, &few) == 0);
        CHECK(setgroups(0, NULL) == 0 && setgid(USER) == 0 && setuid(USER) == 0);
        body();
        _exit(failures);
    }
    return child;
}

static void run(void (*body)(void))
{
    int status = -1;

    open_all();
    pid_t child = start(body);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    close_all();
}

static bool holds(int file, const char *text)
{
    char bytes[100];
    int fd = open(paths[file], O_RDONLY);
    ssize_t size = read(fd, bytes, sizeof(bytes));

    close(fd);
    return size == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)size) == 0;
}

/* ---- what is opened, and when ---- */

static int told[2], back[2];

static void tell_and_wait(void)
{
    char byte;
    CHECK(write(told[1], "x", 1) == 1 && read(back[0], &byte, 1) == 1);
}

static void read_one(void)
{
    char bytes[10];

    tell_and_wait();
    CHECK(read(fds[DATA], bytes, 10) == 6 && memcmp(bytes, "456789", 6) == 0);
    tell_and_wait();
}

/* What is not used is never opened. */
static void only_what_is_used(void)
{
    char byte;
    int status;

    open_all();
    pid_t child = start(read_one);
    CHECK(read(told[0], &byte, 1) == 1 && view_awaits(child, fds[DATA]) && view_awaits(child, fds[JOURNAL]) &&
          view_awaits(child, fds[LOG]));
    CHECK(write(back[1], "x", 1) == 1 && read(told[0], &byte, 1) == 1);
    CHECK(!view_awaits(child, fds[DATA]) && view_awaits(child, fds[JOURNAL]) && view_awaits(child, fds[LOG]));
    CHECK(write(back[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && status == 0);
    close_all();
}

static void use_after_all_others(void)
{
    char bytes[10];

    tell_and_wait();
    CHECK(read(fds[DATA], bytes, 10) == 6 && memcmp(bytes, "456789", 6) == 0);
    CHECK(write(fds[LOG], "more", 4) == 4 && lseek(fds[LOG], 0, SEEK_END) == 14);
}

/* The store's files, with those that have no name; -1: the command fails. */
static int files_of_store(void)
{
    char command[400];
    int files = -1;

    snprintf(command, sizeof(command), "fastspool status --spool %.*s | sed -n 's/^ *files *\\([0-9]*\\),.*/\\1/p'",
             (int)(strrchr(directory, '/') - directory), directory);
    FILE *output = popen(command, "r");
    if (output && fscanf(output, "%d", &files) != 1)
        files = -1;
    if (output)
        pclose(output);
    return files;
}

/* A file is there as long as its descriptor, though nobody else has it open, and it has no name; and no longer. */
static void as_long_as_the_descriptor(void)
{
    char byte;
    int status;

    open_all();
    int before = files_of_store();
    pid_t child = start(use_after_all_others);
    CHECK(before >= FILES && read(told[0], &byte, 1) == 1);
    close_all();
    for (int i = 0; i < FILES; i++)
        CHECK(unlink(paths[i]) == 0);
    CHECK(files_of_store() == before);
    CHECK(write(back[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && status == 0);
    for (int i = 0; i < 1000 && files_of_store() > before - FILES; i++)
        usleep(10000);
    CHECK(files_of_store() == before - FILES);
}

/* ---- every way to use one ---- */

static void duplicate(void)
{
    char bytes[10];
    int copies[] = {dup(fds[DATA]), dup2(fds[JOURNAL], 100), fcntl(fds[LOG], F_DUPFD, 200)};

    CHECK(copies[0] > 2 && copies[1] == 100 && copies[2] == 200);
    CHECK(read(copies[0], bytes, 2) == 2 && read(fds[DATA], bytes + 2, 8) == 4 && memcmp(bytes, "456789", 6) == 0);
    CHECK(write(copies[1], "+", 1) == 1 && write(fds[JOURNAL], "-", 1) == 1);
    CHECK(write(copies[2], "+", 1) == 1 && write(fds[LOG], "-", 1) == 1);
}

static void duplicates(void)
{
    run(duplicate);
    CHECK(holds(JOURNAL, "0123456789+-") && holds(LOG, "0123456789+-"));
}

/* A forked child has the same descriptions. */
static void fork_and_share(void)
{
    char bytes[10];
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(read(fds[DATA], bytes, 3) != 3 || write(fds[LOG], "+", 1) != 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(read(fds[DATA], bytes, 10) == 3 && memcmp(bytes, "789", 3) == 0 && lseek(fds[LOG], 0, SEEK_CUR) == 11);
}

static void forks(void)
{
    run(fork_and_share);
}

static void execute(void)
{
    char command[64];

    snprintf(command, sizeof(command), "cat <&%d >&%d", fds[DATA], fds[LOG]);
    execl("/bin/sh", "sh", "-c", command, NULL);
    _exit(1);
}

/* A program has the files, at their offsets. */
static void programs(void)
{
    int status;

    open_all();
    CHECK(fcntl(fds[DATA], F_SETFD, 0) == 0 && fcntl(fds[LOG], F_SETFD, 0) == 0);
    pid_t child = start(execute);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && holds(LOG, "0123456789456789"));
    close_all();
}

static void send_one(void)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, bytes[10];
    struct iovec vector = {bytes, 1};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    int ends[2], received;

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &fds[DATA], sizeof(int));
    CHECK(sendmsg(ends[0], &message, 0) == 1 && recvmsg(ends[1], &message, 0) == 1);
    memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    CHECK(read(received, bytes, 2) == 2 && read(fds[DATA], bytes + 2, 8) == 4 && memcmp(bytes, "456789", 6) == 0);
}

static void sent(void)
{
    run(send_one);
}

static void ask_everything(void)
{
    struct pollfd polled = {.fd = fds[JOURNAL], .events = POLLIN | POLLOUT};
    struct stat st;
    fd_set set;

    FD_ZERO(&set);
    FD_SET(fds[JOURNAL], &set);
    CHECK(poll(&polled, 1, 0) == 1 && polled.revents == (POLLIN | POLLOUT));
    CHECK(select(fds[JOURNAL] + 1, NULL, &set, NULL, NULL) == 1);
    CHECK(fstat(fds[JOURNAL], &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 10 && (st.st_mode & 07777) == 0600);
    CHECK(fcntl(fds[LOG], F_GETFD) == FD_CLOEXEC &&
          (fcntl(fds[LOG], F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_WRONLY | O_APPEND));
    CHECK(lseek(fds[DATA], 0, SEEK_CUR) == 4);
    CHECK(close(fds[JOURNAL]) == 0 && fcntl(fds[JOURNAL], F_GETFD) < 0 && errno == EBADF);
}

/* The attributes, flags and numbers are the file's. */
static void questions(void)
{
    run(ask_everything);
}

static void mark_as_closed(void)
{
    CHECK(close_range((unsigned)fds[DATA], (unsigned)fds[LOG], CLOSE_RANGE_CLOEXEC) == 0);
    for (int i = 0; i < FILES; i++)
        CHECK(fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
}

static void ask_what_stays(void)
{
    CHECK(fcntl(fds[DATA], F_GETFD) == FD_CLOEXEC && fcntl(fds[LOG], F_GETFD) == 0);
    CHECK(fcntl(fds[JOURNAL], F_SETFD, FD_CLOEXEC) == 0 && fcntl(fds[JOURNAL], F_GETFD) == FD_CLOEXEC);
}

/* Whether an exec closes a number is as it was, or as the process says last. */
static void closed_by_exec(void)
{
    void (*const bodies[])(void) = {ask_what_stays, mark_as_closed};
    int status;

    for (int i = 0; i < 2; i++) {
        open_all();
        CHECK(fcntl(fds[JOURNAL], F_SETFD, 0) == 0 && fcntl(fds[LOG], F_SETFD, 0) == 0);
        pid_t child = start(bodies[i]);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        close_all();
    }
}

static void replace(void)
{
    int ends[2], status;
    char byte;

    CHECK(pipe(ends) == 0 && dup2(ends[0], fds[DATA]) == fds[DATA]);
    close(fds[LOG]);
    CHECK(open("/dev/null", O_RDONLY) == fds[LOG] && read(fds[LOG], &byte, 1) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(write(fds[JOURNAL], "+", 1) != 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && lseek(fds[JOURNAL], 0, SEEK_CUR) == 11);
    CHECK(write(ends[1], "x", 1) == 1 && read(fds[DATA], &byte, 1) == 1 && byte == 'x');
}

/* A number that stands for something else now is left alone. */
static void replaced(void)
{
    run(replace);
    CHECK(holds(JOURNAL, "0123456789+") && holds(LOG, "0123456789"));
}

static void fail_to_replace(void)
{
    const volatile int none = 900;

    CHECK(dup3(2, fds[LOG], O_APPEND) < 0 && errno == EINVAL && dup3(fds[LOG], fds[LOG], 0) < 0 && errno == EINVAL);
    CHECK(dup2(none, fds[JOURNAL]) < 0 && errno == EBADF && dup3(none, fds[JOURNAL], 0) < 0 && errno == EBADF);
    CHECK(write(fds[LOG], "+", 1) == 1 && write(fds[JOURNAL], "-", 1) == 1);
}

/* One that could not be replaced is its file still. */
static void not_replaced(void)
{
    run(fail_to_replace);
    CHECK(holds(LOG, "0123456789+") && holds(JOURNAL, "0123456789-"));
}

/* ---- no number is free ---- */

static void take_numbers(void)
{
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    CHECK(errno == EMFILE);
}

static void read_the_only_one(void)
{
    char bytes[10];

    take_numbers();
    CHECK(close(fds[JOURNAL]) == 0 && close(fds[LOG]) == 0);
    take_numbers();
    CHECK(read(fds[DATA], bytes, 10) == 6 && memcmp(bytes, "456789", 6) == 0);
    CHECK(dup(fds[DATA]) >= 0 && dup(fds[DATA]) < 0); /* and what the library had is the program's again */
}

static void write_all(void)
{
    take_numbers();
    CHECK(write(fds[LOG], "+", 1) == 1 && write(fds[JOURNAL], "-", 1) == 1);
}

static void *write_beside(void *unused)
{
    write_all();
    return unused;
}

static void write_in_thread(void)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, write_beside, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

/* A number that is open needs no other one for its use. */
static void no_number(void)
{
    most = 64;
    run(read_the_only_one);
    run(write_all);
    CHECK(holds(LOG, "0123456789+") && holds(JOURNAL, "0123456789-"));
    run(write_in_thread);
    CHECK(holds(LOG, "0123456789+") && holds(JOURNAL, "0123456789-"));
    most = 0;
}

static void close_the_rest(void)
{
    closefrom(fds[LOG] + 1);
    for (int fd = fds[LOG] + 1; fd < 1024; fd++) {
        CHECK(close(fd) < 0 && errno == EBADF);
        CHECK(dup2(2, fd) == fd || errno == EBUSY);
    }
    write_all();
}

/* The library's number is not the program's. */
static void own_number(void)
{
    run(close_the_rest);
    CHECK(holds(LOG, "0123456789+") && holds(JOURNAL, "0123456789-"));
}

/* ---- threads ---- */

/* The number waits, as none is free, and the one that the library keeps is above the limit. */
static void *try_again(void *unused)
{
    char byte;

    while (read(fds[DATA], &byte, 1) < 0)
        ;
    return unused;
}

static void fork_beside_thread(void)
{
    const struct rlimit few = {64, 64};
    pthread_t thread;
    char byte;
    int status;

    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    take_numbers();
    CHECK(pthread_create(&thread, NULL, try_again, NULL) == 0);
    for (int i = 0; i < 100 && failures == 0; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(read(fds[DATA], &byte, 1) >= 0);
        bool ended = false;
        for (int waited = 0; waited < 60000 && !(ended = waitpid(child, &status, WNOHANG) == child); waited++)
            usleep(1000);
        CHECK(ended && status == 0);
        if (!ended)
            kill(child, SIGKILL); /* signals are held off in one that hangs */
    }
}

/* A forked child waits for no thread of its parent's. */
static void threads(void)
{
    run(fork_beside_thread);
}

static void *read_cancelled(void *byte)
{
    pthread_cancel(pthread_self());
    CHECK(read(fds[DATA], byte, 1) < 0);
    return NULL;
}

static void cancel_thread(void)
{
    pthread_t thread;
    char byte = '-';
    void *result;

    CHECK(pthread_create(&thread, NULL, read_cancelled, &byte) == 0 && pthread_join(thread, &result) == 0 &&
          result == PTHREAD_CANCELED);
    CHECK(byte == '-' && read(fds[DATA], &byte, 1) == 1 && byte == '4');
    CHECK(write(fds[LOG], "+", 1) == 1);
}

/* A thread that is cancelled in the first use of a number has nothing that others wait for. */
static void cancelled(void)
{
    run(cancel_thread);
    CHECK(holds(LOG, "0123456789+"));
}

/* ---- what nobody else gets ---- */

#ifdef __x86_64__
/* The kernel's openat(2), past the library. */
static long past_library(int at, const char *name, int flags)
{
    register long mode __asm__("r10") = 0600;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)SYS_openat), "D"((long)at), "S"(name), "d"((long)flags), "r"(mode)
                     : "rcx", "r11", "memory");
    return result;
}

static void look_around(void)
{
    CHECK(past_library(fds[LOG], "1", O_RDONLY | O_CREAT) == -ENOENT); /* it was open for writing */
    CHECK(past_library(fds[LOG], "1", O_RDWR | O_CREAT) == -ENOENT);
    CHECK(past_library(fds[LOG], "1", O_WRONLY | O_CREAT | O_TRUNC) == -ENOENT); /* and not emptied */
    CHECK(past_library(fds[LOG], "3", O_WRONLY | O_CREAT) == -ENOENT);
    CHECK(past_library(fds[LOG], "file", O_WRONLY | O_CREAT) == -ENOENT);
    CHECK(past_library(fds[LOG], "1", O_WRONLY) == -ENOENT);
    CHECK(past_library(fds[LOG], "..", O_RDONLY | O_DIRECTORY) == -EACCES);
    CHECK(past_library(fds[LOG], "1", O_WRONLY | O_CREAT) >= 0);
}

/* More files than a user may have open by the view. */
static void take_all(void)
{
    const struct rlimit many = {3000, 3000};
    long result;

    CHECK(setrlimit(RLIMIT_NOFILE, &many) == 0);
    do
        result = past_library(fds[DATA], "0", O_RDWR | O_CREAT);
    while (result >= 0);
    CHECK(result == -ENFILE && write(fds[LOG], "+", 1) == 1);
}
#else
static void look_around(void)
{
}

static void take_all(void)
{
    CHECK(write(fds[LOG], "+", 1) == 1);
}
#endif

/* The directory gives nothing that the process had not. */
static void rights(void)
{
    run(look_around);
    CHECK(holds(JOURNAL, "0123456789"));
}

/* Where users have taken all of their share, a delivery still has its files. */
static void shares(void)
{
    run(take_all);
    CHECK(holds(LOG, "0123456789+"));
}

static void ask_for_others(void)
{
    struct stat st;
    char path[400];

    snprintf(path, sizeof(path), "%s/.fastspool:1:0.1000001:", directory);
    CHECK(stat(path, &st) < 0 && (errno == EACCES || errno == ENOENT));
}

/* An ordinary user finds no such directory. */
static void nobody_else(void)
{
    CHECK(chmod(directory, 0755) == 0);
    run(ask_for_others);
    CHECK(chmod(directory, 0750) == 0);
}

/* The view serves all of the spool soon after its first directory is mounted. */
static bool view_serves(void)
{
    bool serves = false;

    CHECK(pipe(told) == 0 && pipe(back) == 0);
    for (int i = 0; i < 6000 && !serves; i++, usleep(10000)) {
        char byte;
        open_all();
        pid_t child = start(tell_and_wait);
        CHECK(read(told[0], &byte, 1) == 1);
        serves = view_awaits(child, fds[DATA]);
        CHECK(write(back[1], "x", 1) == 1 && waitpid(child, NULL, 0) == child);
        close_all();
    }
    return serves;
}

static void read_data(void)
{
    char bytes[10];
    CHECK(read(fds[DATA], bytes, 10) == 6 && read(fds[DATA], bytes, 10) == 0);
}

static const struct test tests[] = {
    {"only what is used", only_what_is_used},
    {"as long as the descriptor", as_long_as_the_descriptor},
    {"duplicates", duplicates},
    {"forks", forks},
    {"programs", programs},
    {"sent", sent},
    {"questions", questions},
    {"closed by exec", closed_by_exec},
    {"replaced", replaced},
    {"not replaced", not_replaced},
    {"no number", no_number},
    {"own number", own_number},
    {"threads", threads},
    {"cancelled", cancelled},
    {"rights", rights},
    {"shares", shares},
    {"nobody else", nobody_else},
};

int main(int argc, char **argv)
{
    static const char *const names[] = {"data", "journal", "log"};

    if (argc < 2)
        return 2;
    umask(0);
    closefrom(3);
    snprintf(directory, sizeof(directory), "%s/input", argv[1]);
    mkdir(directory, 0750);
    for (int i = 0; i < FILES; i++)
        snprintf(paths[i], sizeof(paths[i]), "%s/%s", directory, names[i]);
    if (!view_comes(directory))
        return 77;
    CHECK(argc > 2 || view_serves());
    if (argc > 2) { /* counted */
        for (int i = 0; i < FILES; i++)
            unlink(paths[i]);
        run(read_data);
        return failures != 0;
    }
    return run_tests(tests, sizeof(tests) / sizeof(*tests), open_descriptors, "open descriptors");
}

/* SPDX-License-Identifier: MIT
 *
 * What an ordinary user's process, or a program without the library, writes to a spool file that was open:
 *
 *      carriers SPOOL [view]
 *
 * Run it as root with the library, in a private namespace.  "view": it waits for the view; then there are no carriers.
 * The exit status is 0 if all tests pass.
 */
#include "../asleep.h"
#include "tests.h"
#include "view.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define USER  23001
#define LARGE (1 << 20)

/* A literal for an interface without const. */
#define TEXT(text) ((void *)(uintptr_t)(text))

static char file[300];
static bool with_view;

/* ---- helpers ---- */

static int make(int flags)
{
    unlink(file);
    return open(file, O_WRONLY | O_CREAT | O_APPEND | flags, 0400);
}

static bool holds(const char *text)
{
    static char bytes[2 * LARGE];
    int fd = open(file, O_RDONLY);
    ssize_t size = read(fd, bytes, sizeof(bytes));

    close(fd);
    return size == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)size) == 0;
}

/* A carrier may be a little behind a program without the library; the view is not. */
static bool comes_to_hold(const char *text)
{
    if (with_view)
        return holds(text);
    for (int i = 0; i < 6000; i++, usleep(10000)) {
        if (holds(text))
            return true;
    }
    return false;
}

/* The process of a carrier, 0: none lives. */
static pid_t carrier(void)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    pid_t found = 0;

    while (processes && (entry = readdir(processes)) != NULL) {
        char path[300], name[32] = "";
        snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
        FILE *comm = isdigit(entry->d_name[0]) ? fopen(path, "r") : NULL;
        if (comm && fgets(name, sizeof(name), comm) && strcmp(name, "fastspool write\n") == 0)
            found = atoi(entry->d_name);
        if (comm)
            fclose(comm);
    }
    closedir(processes);
    return found;
}

static bool carriers_end(void)
{
    for (int i = 0; i < 6000; i++, usleep(10000)) {
        if (!carrier())
            return true;
    }
    return false;
}

static int carriers_left(void)
{
    return !carriers_end();
}

/* Run @body in a child, which has become an ordinary user. */
static int as_user(void (*body)(int fd), int fd)
{
    pid_t child = fork();
    int status = -1;

    if (child == 0) {
        failures = 0;
        CHECK(setuid(USER) == 0);
        body(fd);
        _exit(failures);
    }
    waitpid(child, &status, 0);
    return status;
}

/* ---- the library's calls ---- */

static int told[2];

/* When write() has returned, another process sees the bytes. */
static void arrives_at_once(void)
{
    int fd = make(O_CLOEXEC), back[2];
    char byte;

    CHECK(pipe(told) == 0 && pipe(back) == 0);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        CHECK(setuid(USER) == 0);
        for (int i = 0; i < 200 && failures == 0; i++) {
            CHECK(write(fd, "line....\n", 9) == 9 && write(told[1], "x", 1) == 1 && read(back[0], &byte, 1) == 1);
        }
        _exit(failures);
    }
    for (int i = 1, before = failures; i <= 200 && failures == before; i++) {
        struct stat st;
        CHECK(read(told[0], &byte, 1) == 1 && fstat(fd, &st) == 0 && st.st_size == 9 * i);
        CHECK(write(back[1], "x", 1) == 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    close(fd);
    for (int i = 0; i < 2; i++) {
        close(told[i]);
        close(back[i]);
    }
}

static void call_everything(int fd)
{
    const void *volatile nowhere = TEXT(8);
    struct iovec vector[2] = {{TEXT("56"), 2}, {TEXT("78"), 2}};
    struct stat st;

    CHECK(write(fd, "", 0) == 0 && write(fd, "1234", 4) == 4 && writev(fd, vector, 2) == 4);
    CHECK(fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 8 && (st.st_mode & 07777) == 0400);
    CHECK(lseek(fd, 0, SEEK_CUR) == 8 && fsync(fd) == 0 && fdatasync(fd) == 0);
    CHECK(ftruncate(fd, 6) == 0 && lseek(fd, 0, SEEK_END) == 6 && lseek(fd, -1, SEEK_SET) < 0 && errno == EINVAL);
    CHECK(write(fd, nowhere, 10) < 0 && errno == EFAULT);
    CHECK(read(fd, &st, 1) < 0 && errno == EBADF);
    FILE *stream = fdopen(dup(fd), "a");
    CHECK(stream && fprintf(stream, "%d", 90) == 2 && fclose(stream) == 0);
    CHECK(lseek(fd, 0, SEEK_END) == 8);
}

static void calls(void)
{
    int fd = make(0);

    CHECK(as_user(call_everything, fd) == 0 && holds("12345690"));
    close(fd);
}

static char *large;

static void write_large(int fd)
{
    CHECK(write(fd, large, LARGE) == LARGE);
}

static void large_writes(void)
{
    int fd = make(0);

    large = malloc(LARGE + 1);
    for (int i = 0; i < LARGE; i++)
        large[i] = (char)('a' + i / 7 % 26);
    large[LARGE] = '\0';
    CHECK(as_user(write_large, fd) == 0 && holds(large));
    free(large);
    close(fd);
}

static int other;

static void dup_and_fork(int fd)
{
    int status, more = dup(fd);

    CHECK(write(fd, "a", 1) == 1 && write(more, "b", 1) == 1 && dup2(more, 50) == 50 && write(50, "c", 1) == 1);
    CHECK(fcntl(fd, F_DUPFD, 60) == 60 && write(60, "d", 1) == 1 && write(other, "e", 1) == 1);
    pid_t child = fork();
    if (child == 0)
        _exit(write(60, "f", 1) != 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && write(fd, "g", 1) == 1);
    CHECK(close(fd) == 0 && write(fd, "x", 1) < 0 && errno == EBADF && write(more, "h", 1) == 1);
    CHECK(lseek(other, 0, SEEK_CUR) == 8);
}

/* Duplicates, from before and after, are one description, and forked children write, too. */
static void duplicates(void)
{
    int fd = make(0);

    other = dup(fd);
    CHECK(as_user(dup_and_fork, fd) == 0 && holds("abcdefgh"));
    close(other);
    close(fd);
}

static void write_lines(int fd)
{
    for (int i = 0; i < 300 && failures == 0; i++)
        CHECK(write(fd, "the user's line\n", 16) == 16);
}

/* O_APPEND: writers inside and outside the store never overwrite each other. */
static void two_writers(void)
{
    int fd = make(0), status, own = 0, theirs = 0;
    char line[64];

    pid_t child = fork();
    if (child == 0) {
        int again = open(file, O_WRONLY | O_APPEND);
        _exit(as_user(write_lines, again));
    }
    for (int i = 0; i < 300; i++)
        CHECK(write(fd, "root's own line\n", 16) == 16);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    FILE *lines = fopen(file, "r");
    while (fgets(line, sizeof(line), lines)) {
        own += strcmp(line, "root's own line\n") == 0;
        theirs += strcmp(line, "the user's line\n") == 0;
    }
    CHECK(own == 300 && theirs == 300);
    fclose(lines);
    close(fd);
}

static void write_unlinked(int fd)
{
    CHECK(write(fd, "unseen", 6) == 6);
}

static void unlinked(void)
{
    int fd = make(0);
    int reader = open(file, O_RDONLY);
    char bytes[8];

    CHECK(unlink(file) == 0 && as_user(write_unlinked, fd) == 0);
    CHECK(read(reader, bytes, sizeof(bytes)) == 6 && memcmp(bytes, "unseen", 6) == 0);
    close(reader);
    close(fd);
}

/* ---- what nobody notices ---- */

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

static void look_for_children(int fd)
{
    int ends[2];
    char byte;

    CHECK(write(fd, "x", 1) == 1 && with_view != (carrier() > 0) && carrier() != getpid());
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
    /* A pipe from before the change of user is in told. */
    CHECK(close(told[1]) == 0 && read(told[0], &byte, 1) == 0);
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    kill(0, SIGUSR2);
    CHECK(write(fd, "y", 1) == 1 && signals == 1);
}

/* The carrier is no child, sends no signal, holds no descriptor of the program's, and is not in its process group. */
static void unseen(void)
{
    int fd = make(0);

    signals = 0;
    signal(SIGCHLD, count_signal);
    signal(SIGUSR2, count_signal);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        setpgid(0, 0);
        CHECK(pipe(told) == 0 && setuid(USER) == 0);
        look_for_children(fd);
        _exit(failures);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0 && holds("xy"));
    signal(SIGCHLD, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    close(fd);
}

/* ---- death ---- */

static void lose_carrier(int fd)
{
    CHECK(write(fd, "before", 6) == 6);
    CHECK(write(told[1], "x", 1) == 1 && read(other, told, 1) == 1);
    CHECK(write(fd, "after", 5) < 0 && errno == EIO && lseek(fd, 0, SEEK_CUR) < 0 && errno == EIO);
}

static void carrier_is_killed(void)
{
    if (with_view)
        return;
    int fd = make(0), back[2];
    char byte;

    CHECK(pipe(told) == 0 && pipe(back) == 0);
    other = back[0];
    pid_t child = fork();
    if (child == 0)
        _exit(as_user(lose_carrier, fd) != 0);
    CHECK(read(told[0], &byte, 1) == 1 && kill(carrier(), SIGKILL) == 0 && carriers_end());
    CHECK(write(back[1], "x", 1) == 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0 && holds("before"));
    for (int i = 0; i < 2; i++) {
        close(told[i]);
        close(back[i]);
    }
    close(fd);
}

/* All signals are held off in a process that waits for its carrier. */
static bool waits(pid_t process)
{
    unsigned long long mask = 0;
    char path[64], line[256];

    snprintf(path, sizeof(path), "/proc/%d/status", process);
    FILE *status = fopen(path, "r");
    while (status && fgets(line, sizeof(line), status) && sscanf(line, "SigBlk: %llx", &mask) != 1)
        ;
    if (status)
        fclose(status);
    return mask >> (SIGTERM - 1) & 1;
}

static void ask_for_ever(int fd)
{
    CHECK(write(fd, "before", 6) == 6);
    CHECK(write(told[1], "x", 1) == 1 && read(other, told, 1) == 1);
    for (;;)
        CHECK(fsync(fd) == 0);
}

/* The carrier stands still: who waits for it is ended by SIGTERM. */
static void carrier_is_stopped(void)
{
    if (with_view)
        return;
    int fd = make(0), back[2], status = 0;
    char byte;

    CHECK(pipe(told) == 0 && pipe(back) == 0);
    other = back[0];
    pid_t child = fork();
    if (child == 0) {
        CHECK(setuid(USER) == 0);
        ask_for_ever(fd);
    }
    CHECK(read(told[0], &byte, 1) == 1 && kill(carrier(), SIGSTOP) == 0 && write(back[1], "x", 1) == 1);
    for (int i = 0; i < 6000 && !waits(child); i++)
        usleep(10000);
    CHECK(waits(child) && kill(child, SIGTERM) == 0);
    for (int i = 0; i < 2000 && waitpid(child, &status, WNOHANG) == 0; i++)
        usleep(10000);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    kill(child, SIGKILL);
    CHECK(kill(carrier(), SIGCONT) == 0);
    for (int i = 0; i < 2; i++) {
        close(told[i]);
        close(back[i]);
    }
    close(fd);
}

static void die(int fd)
{
    CHECK(write(fd, "last words", 10) == 10);
    kill(getpid(), SIGKILL);
}

static void writer_is_killed(void)
{
    int fd = make(0);

    CHECK(as_user(die, fd) == SIGKILL && holds("last words"));
    close(fd);
}

/* ---- programs without the library ---- */

static char *const nothing[] = {NULL};

static int run(const char *script)
{
    char *const arguments[] = {TEXT("sh"), TEXT("-c"), TEXT(script), NULL};
    pid_t child;
    int status = -1;

    CHECK(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, nothing) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void programs(void)
{
    int fd = make(0);

    CHECK(dup2(fd, 7) == 7);
    CHECK(run("echo one >&7; (echo two; echo three) >&7") == 0 && comes_to_hold("one\ntwo\nthree\n"));
    CHECK(write(fd, "four\n", 5) == 5 && write(7, "five\n", 5) == 5);
    CHECK(comes_to_hold("one\ntwo\nthree\nfour\nfive\n") && carriers_end());
    close(7);
    close(fd);
}

static void execute(int fd)
{
    char *const arguments[] = {TEXT("sh"), TEXT("-c"), TEXT("echo from a program"), NULL};

    CHECK(write(fd, "first\n", 6) == 6 && dup2(fd, 1) == 1);
    execve("/bin/sh", arguments, nothing);
}

static void users_programs(void)
{
    int fd = make(O_CLOEXEC);

    CHECK(as_user(execute, fd) == 0 && comes_to_hold("first\nfrom a program\n") && carriers_end());
    close(fd);
}

/* A program has the descriptors that it has without the library, and no more; nor has a user's process. */
static void no_descriptor_more(void)
{
    int fd = make(0), closing = open(file, O_WRONLY | O_CLOEXEC);
    char script[200];

    snprintf(script, sizeof(script),
             "for fd in /proc/$$/fd/*; do"
             " case ${fd##*/} in 0 | 1 | 2 | %d) ;; *) if [ -e $fd ]; then ls -l $fd >&2; exit 1; fi ;; esac; done",
             fd);
    CHECK(run(script) == 0);
    close(closing);
    close(fd);
}

static int go_on[2];

static void wait_for_parent(void)
{
    char byte;

    CHECK(write(told[1], "x", 1) == 1 && read(go_on[0], &byte, 1) == 1);
}

/* Two pipes come with each request, which is none, where there is to be one. */
static void send_pairs(int fd)
{
    char control[CMSG_SPACE(2 * sizeof(int))] = "", request[8] = "";
    struct iovec vector = {request, sizeof(request)};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int pair[2], sent = 0;

    CHECK(pipe(pair) == 0 && write(fd, "a", 1) == 1);
    wait_for_parent();
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(pair)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), pair, sizeof(pair));
    for (int n = 3; n < 4096; n++) {
        for (int i = 0; i < 50 && syscall(SYS_sendmsg, n, &message, MSG_NOSIGNAL) > 0; i++)
            sent++;
    }
    CHECK(sent == 50 && write(fd, "b", 1) == 1);
    wait_for_parent();
}

#ifdef SYS_poll
#define WAITS_IN SYS_poll
#else
#define WAITS_IN SYS_ppoll
#endif

/* How many descriptors a carrier has while it waits for a request: that of an answer it closes after the answer. */
static int descriptors_of(pid_t pid)
{
    char path[64];
    int count = 0;

    for (int i = 0; i < 60000 && !asleep_in(pid, WAITS_IN); i++)
        usleep(1000);
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count;
}

/* What a user sends to a carrier does not fill its table of descriptors. */
static void descriptors_that_are_sent(void)
{
    int status = -1;
    char byte;

    if (with_view)
        return;
    int fd = make(O_CLOEXEC);
    CHECK(pipe(told) == 0 && pipe(go_on) == 0);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        CHECK(setuid(USER) == 0);
        send_pairs(fd);
        _exit(failures);
    }
    CHECK(read(told[0], &byte, 1) == 1);
    int before = descriptors_of(carrier());
    CHECK(before > 0 && write(go_on[1], "x", 1) == 1 && read(told[0], &byte, 1) == 1);
    CHECK(descriptors_of(carrier()) == before);
    CHECK(write(go_on[1], "x", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && holds("ab"));
    for (int i = 0; i < 2; i++) {
        close(told[i]);
        close(go_on[i]);
    }
    close(fd);
    CHECK(carriers_end());
}

/* A failed exec leaves everything as it was. */
static void failed_exec(void)
{
    char *const arguments[] = {TEXT("nothing"), NULL};
    int fd = make(0);

    CHECK(execve("/nowhere", arguments, nothing) < 0 && errno == ENOENT);
    CHECK(write(fd, "still", 5) == 5 && holds("still") && carriers_end());
    close(fd);
}

/* What is written to a private copy would be lost: it is refused.  With a view there is no copy. */
static void try_copy(int fd)
{
    char bytes[8];

    CHECK(lseek(fd, 0, SEEK_SET) == 0 && read(fd, bytes, 8) == 5);
    CHECK(with_view ? pwrite(fd, "B", 1, 0) == 1 : write(fd, "x", 1) < 0 && errno == EBADF);
    CHECK(lseek(other, 0, SEEK_CUR) == 5 && lseek(other, 2, SEEK_SET) == 2 && lseek(fd, 0, SEEK_CUR) == 2);
}

static void copies(void)
{
    unlink(file);
    int fd = open(file, O_RDWR | O_CREAT, 0600);

    other = dup(fd);
    CHECK(write(fd, "bytes", 5) == 5 && as_user(try_copy, fd) == 0);
    CHECK(holds(with_view ? "Bytes" : "bytes"));
    close(other);
    close(fd);
}

/* A file that says that it is large, and has nothing in it, takes no memory. */
static void try_large_copy(int fd)
{
    struct stat st;

    CHECK(fstat(fd, &st) == 0 && st.st_size == 1 << 30 && st.st_blocks < 1000);
}

static void large_copies(void)
{
    unlink(file);
    int fd = open(file, O_RDWR | O_CREAT, 0600);

    CHECK(pwrite(fd, "bytes", 5, 5000000) == 5 && ftruncate(fd, 1 << 30) == 0);
    if (!with_view)
        CHECK(as_user(try_large_copy, fd) == 0);
    close(fd);
}

/* A program reads every descriptor that it inherits, also of a file that is gone, and of a directory. */
static void programs_read(void)
{
    char directory[300];

    if (!with_view)
        return;
    snprintf(directory, sizeof(directory), "%.*s", (int)(strrchr(file, '/') - file), file);
    int fd = make(0), reader = open(file, O_RDONLY), listed = open(directory, O_RDONLY | O_DIRECTORY);
    CHECK(write(fd, "first second", 12) == 12 && lseek(reader, 6, SEEK_SET) == 6 && unlink(file) == 0);
    CHECK(dup2(reader, 8) == 8 && dup2(listed, 9) == 9);
    CHECK(run("test \"$(cat <&8)\" = second && test -z \"$(cat <&8)\"") == 0 && lseek(reader, 0, SEEK_CUR) == 6);
    close(make(0));
    CHECK(run("test \"$(ls /proc/self/fd/9/)\" = output") == 0);
    close(8);
    close(9);
    close(listed);
    close(reader);
    close(fd);
}

/* ---- numbers ---- */

static int fds[3];

static void look_at_numbers(int lower)
{
    CHECK(fcntl(lower, F_GETFD) < 0 && errno == EBADF);
    CHECK(fcntl(fds[0], F_GETFD) == FD_CLOEXEC && fcntl(fds[1], F_GETFD) == 0 && fcntl(fds[2], F_GETFD) == 0);
    CHECK(write(fds[1], "a", 1) == 1 && write(fds[2], "b", 1) == 1 && write(fds[0], "c", 1) == 1);
    CHECK(lseek(fds[2], 0, SEEK_CUR) == 2);
}

/* Each descriptor keeps its number and its flag, whether lower numbers are free or not. */
static void numbers(void)
{
    int lower = dup(0), highest = dup(0);

    for (int is_free = 0; is_free < 2; is_free++) {
        unlink(file);
        fds[1] = open(file, O_WRONLY | O_CREAT | O_APPEND, 0600);
        fds[0] = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
        fds[2] = dup(fds[1]);
        if (!is_free) {
            CHECK(dup2(fds[2], highest) == highest && close(fds[2]) == 0);
            fds[2] = highest;
        }
        close(lower);
        CHECK(as_user(look_at_numbers, lower) == 0 && holds("abc"));
        CHECK(dup(0) == lower);
        for (int i = 0; i < 3; i++)
            close(fds[i]);
    }
    close(lower);
}

static void write_without_view(int fd)
{
    char bytes[4];

    CHECK(write(fd, "there", 5) == 5 && read(other, bytes, 4) == 3 && memcmp(bytes, "the", 3) == 0);
    CHECK(fcntl(fd, F_GETFD) == 0 && fcntl(other, F_GETFD) == FD_CLOEXEC);
}

/* The view is not where the process is: its files become what they are without a view, with their numbers. */
static void elsewhere(void)
{
    char *directory = strndup(file, (size_t)(strrchr(file, '/') - file));

    if (with_view) {
        int lower[2] = {dup(0), dup(0)}, status;
        close(make(0));
        other = open(file, O_RDONLY | O_CLOEXEC);
        int fd = open(file, O_WRONLY | O_APPEND);
        CHECK(write(fd, "the", 3) == 3 && close(lower[0]) == 0 && close(lower[1]) == 0);
        pid_t child = fork();
        if (child == 0) {
            CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
            CHECK(umount2(directory, MNT_DETACH) == 0);
            _exit(failures || as_user(write_without_view, fd));
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0 && holds("thethere"));
        close(other);
        close(fd);
    }
    free(directory);
}

/* ---- what it costs ---- */

/* The traced child goes on until it stops itself.  Returns how many system calls it has made, that of the stop, too. */
static int calls_until_stop(pid_t child)
{
    int entries_and_exits = 0, status;

    while (ptrace(PTRACE_SYSCALL, child, 0, 0) == 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
           WSTOPSIG(status) != SIGSTOP)
        entries_and_exits++;
    return entries_and_exits / 2;
}

/* With a view a child leaves the store, with three open files, by 18 system calls: each of the files 2; the view's
 * directory 3, which it keeps; what the store had of the files 1, its memory 5, its descriptors 1; the user 2.  Its
 * first write is 3: the file is opened in place of the directory. */
static void calls_of_leaving(void)
{
    int first = make(O_CLOEXEC), second = open(file, O_RDWR), third = open(file, O_WRONLY | O_APPEND), status;

    CHECK(lockf(first, F_TLOCK, 0) == 0); /* which is no child's */
    if (with_view) {
        pid_t child = fork();
        if (child == 0) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            raise(SIGSTOP);
            int result = setuid(USER) < 0 || write(first, "x", 1) != 1;
            raise(SIGSTOP);
            _exit(result != 0);
        }
        CHECK(waitpid(child, &status, 0) == child && ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD) == 0);
        int of_a_stop = calls_until_stop(child), all = calls_until_stop(child) - of_a_stop;
        if (all > 21)
            fprintf(stderr, "%d system calls\n", all);
        CHECK(all <= 21);
        ptrace(PTRACE_DETACH, child, 0, 0);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    close(first);
    close(second);
    close(third);
}

static const struct test tests[] = {
    {"it arrives at once", arrives_at_once},
    {"every call", calls},
    {"large writes", large_writes},
    {"duplicates and forks", duplicates},
    {"two writers append", two_writers},
    {"an unlinked file", unlinked},
    {"nobody sees the carrier", unseen},
    {"the carrier is killed", carrier_is_killed},
    {"the carrier is stopped", carrier_is_stopped},
    {"the writer is killed", writer_is_killed},
    {"programs write", programs},
    {"a user's program writes", users_programs},
    {"no descriptor more", no_descriptor_more},
    {"descriptors that are sent", descriptors_that_are_sent},
    {"a failed exec", failed_exec},
    {"private copies", copies},
    {"private copies of large files", large_copies},
    {"programs read", programs_read},
    {"numbers", numbers},
    {"the view is elsewhere", elsewhere},
    {"calls of leaving", calls_of_leaving},
};

int main(int argc, char **argv)
{
    char directory[250];

    if (argc < 2)
        return 2;
    umask(0);
    closefrom(3);
    snprintf(directory, sizeof(directory), "%s/input", argv[1]);
    mkdir(directory, 0750);
    snprintf(file, sizeof(file), "%s/output", directory);
    with_view = argc > 2;
    if (with_view && !view_comes(directory))
        return 77;
    return run_tests(tests, sizeof(tests) / sizeof(*tests), carriers_left, "a carrier");
}

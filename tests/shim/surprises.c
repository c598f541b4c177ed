/* SPDX-License-Identifier: MIT
 *
 * The surprising ways in which Exim uses its spool, one small test each:
 *
 *      surprises SPOOL [threads | many]
 *
 * Run it with the library, in a private namespace.  The numbers are those of docs/exim-calls.md.  The exit status is 0
 * if all tests pass.  No test must leave a descriptor open.
 */
#include "../filter.h"
#include "tests.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ID "1abcde-000001-AB"

static char spool[200];

/* "/spool//input//NAME", with the double slashes of Exim's paths.  Up to four results can be in use at once. */
static const char *at(const char *directory, const char *name)
{
    static char paths[4][600];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s//%s//%s", spool, directory, name);
    return path;
}

static int make(const char *name)
{
    return open(at("input", name), O_RDWR | O_CREAT | O_EXCL, 0640);
}

static int child_status(pid_t pid)
{
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

/* 2: streams on spool files work, although stdio calls its own read and write, past any wrapper.  Exim doesn't check
 * fdopen's result, and locks by fileno. */
static void stdio_bypasses(void)
{
    int fd = make(ID "-D");
    FILE *stream = fdopen(fd, "w+");
    struct stat st;
    char line[64];

    CHECK(stream && fileno(stream) == fd);
    CHECK(fprintf(stream, "%s-D\n", ID) > 0 && fputc('x', stream) == 'x' && fwrite("yz\n", 1, 3, stream) == 3);
    CHECK(fflush(stream) == 0 && fsync(fileno(stream)) == 0 && fstat(fileno(stream), &st) == 0 && st.st_size == 23);
    CHECK(fseek(stream, -1, SEEK_CUR) == 0 && fgetc(stream) == '\n' && fseek(stream, 0, SEEK_END) == 0);
    rewind(stream);
    CHECK(fgets(line, sizeof(line), stream) && strcmp(line, ID "-D\n") == 0);
    CHECK(ungetc('q', stream) == 'q' && fgetc(stream) == 'q' && fscanf(stream, "%63s", line) == 1 &&
          !strcmp(line, "xyz"));
    CHECK(fclose(stream) == 0 && close(fd) < 0 && errno == EBADF);
    CHECK(unlink(at("input", ID "-D")) == 0);
}

/* The fsync of a hints file is free, and that of what has its number next is not. */
static void hints_streams_end(void)
{
    CHECK(mkdir(at("db", ""), 0750) == 0);
    int fd = open(at("db", "retry"), O_RDWR | O_CREAT, 0640);
    FILE *stream = fdopen(fd, "w");
    CHECK(stream && fclose(stream) == 0);
    int next = eventfd(0, 0);
    CHECK(next == fd && fsync(next) < 0 && errno == EINVAL);
    CHECK(close(next) == 0 && unlink(at("db", "retry")) == 0 && rmdir(at("db", "")) == 0);
}

/* A dup2() or dup3() that fails leaves the file at the number that it did not take. */
static void failed_dup_leaves_the_file(void)
{
    int fd = make("dup");
    struct rlimit limit, low;

    CHECK(dup3(STDIN_FILENO, fd, O_APPEND) < 0 && errno == EINVAL);
    CHECK(write(fd, "one", 3) == 3);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    low = limit;
    low.rlim_cur = (rlim_t)fd;
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    CHECK(dup2(STDIN_FILENO, fd) < 0 && errno == EBADF);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(write(fd, "two", 3) == 3 && lseek(fd, 0, SEEK_END) == 6);
    CHECK(close(fd) == 0 && unlink(at("input", "dup")) == 0);
}

/* 4: the library's own descriptors are high, and closing them is harmless.  Exim closes and writes to numbers that it
 * no longer owns, so none of ours must be where a program's next open would land. */
static void own_descriptors_are_high(void)
{
    int fd = make("f"), next = open("/dev/null", O_RDONLY);

    CHECK(next == fd + 1);
    close(next);
    for (int number = next; number < 1024; number++)
        close(number);
    CHECK(write(fd, "x", 1) == 1);
    int again = open(at("input", "f"), O_RDONLY);
    CHECK(again == fd + 1);
    closefrom(again);
    CHECK(pread(fd, (char[1]){0}, 1, 0) == 1 && unlink(at("input", "f")) == 0);
    close(fd);
}

/* A program has so many descriptors when it first touches the spool that the library's own lie above them, and still it
 * can close neither these nor those of a carrier. */
static void own_descriptors_are_higher(void)
{
    const struct rlimit limit = {4096, 4096};
    char echo[] = "echo", text[] = "text", *arguments[] = {echo, text, NULL}, *none[] = {NULL}, bytes[8] = "";
    posix_spawn_file_actions_t actions;
    pid_t child;

    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int number = 3; number < 1100; number++)
        CHECK(dup2(STDIN_FILENO, number) == number);
    mkdir(at("input", ""), 0750);
    close(make("first"));
    closefrom(3);
    int fd = make("f"), output = open(at("input", "first"), O_WRONLY);
    CHECK(fd == 3 && write(fd, "x", 1) == 1 && fsync(fd) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    CHECK(posix_spawn(&child, "/bin/echo", &actions, NULL, arguments, none) == 0 && child_status(child) == 0);
    for (int i = 0; i < 1000 && pread(fd, bytes, sizeof(bytes), 0) < 5; i++) { /* the carrier writes it */
        close(fd);
        fd = open(at("input", "first"), O_RDONLY);
        usleep(10000);
    }
    CHECK(strcmp(bytes, "text\n") == 0);
    CHECK(unlink(at("input", "f")) == 0 && unlink(at("input", "first")) == 0);
}

/* How many files of @directory can be open at a time?  All work, also in a child, and are closed again. */
static int open_until_full(const char *directory, bool *work)
{
    int fds[1100], count = 0;

    *work = true;
    mkdir(directory, 0750);
    for (int fd; count < 1100; fds[count++] = fd) {
        char path[700];
        snprintf(path, sizeof(path), "%s/%d", directory, count);
        fd = open(path, O_RDWR | O_CREAT, 0640);
        if (fd < 0) {
            CHECK(errno == EMFILE);
            unlink(path);
            break;
        }
        unlink(path);
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < count; i++)
            *work = write(fds[i], &i, sizeof(i)) == sizeof(i) && *work;
        _exit(!*work);
    }
    *work = child_status(pid) == 0;
    for (int i = 0, found; i < count; i++) {
        *work = pread(fds[i], &found, sizeof(found), 0) == sizeof(found) && found == i && *work;
        *work = fcntl(fds[i], F_GETFD) == 0 && close(fds[i]) == 0 && *work;
    }
    return count;
}

/* A spool file costs one descriptor, whatever the limit.  The library has a few of its own. */
static void one_descriptor_a_file(void)
{
    struct rlimit before, less;
    bool work;

    getrlimit(RLIMIT_NOFILE, &before);
    less = before;
    for (rlim_t limit = 1024; limit >= 64; limit /= 4) {
        less.rlim_cur = limit;
        setrlimit(RLIMIT_NOFILE, &less);
        int disk = open_until_full("/srv/ordinary", &work), store = open_until_full(at("input", ""), &work);
        CHECK(work && store >= disk - 24);
        if (store < disk - 24)
            fprintf(stderr, "limit %d: %d files on the disk, %d in the spool\n", (int)limit, disk, store);
    }
    setrlimit(RLIMIT_NOFILE, &before);
}

static int try_lock(const char *path, off_t length)
{
    int fd = open(path, O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = length};
    int result = fcntl(fd, F_SETLK, &lock);

    close(fd);
    return result;
}

/* 5: when a child closes an inherited -D, the parent's lock stays.  20: locks of 19 and 26 bytes conflict. */
static void locks_are_the_parents(void)
{
    int fd = make(ID "-D"), other = make("hdr");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};

    CHECK(fcntl(fd, F_SETLK, &lock) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(fd);
        _exit(try_lock(at("input", ID "-D"), 26) == 0);
    }
    CHECK(child_status(pid) == 0);
    close(other); /* closing another file drops no lock */
    pid = fork();
    if (pid == 0)
        _exit(try_lock(at("input", ID "-D"), 26) == 0);
    CHECK(child_status(pid) == 0);
    CHECK(link(at("input", ID "-D"), at("input", "second")) == 0 && unlink(at("input", ID "-D")) == 0);
    pid = fork();
    if (pid == 0)
        _exit(try_lock(at("input", "second"), 19) == 0); /* the lock is on the file, not on its name */
    CHECK(child_status(pid) == 0);
    close(fd);
    pid = fork();
    if (pid == 0)
        _exit(try_lock(at("input", "second"), 26) != 0);
    CHECK(child_status(pid) == 0);
    CHECK(unlink(at("input", "second")) == 0 && unlink(at("input", "hdr")) == 0);
}

/* Of another process's lock lockf(3) tells what libc does: for reading it is in nobody's way. */
static void lockf_tests_for_reading(void)
{
    const char *const paths[] = {"/srv/locked", at("input", "locked")};

    close(make("locked"));
    for (int i = 0; i < 2; i++) {
        for (short type = F_RDLCK; type <= F_WRLCK; type++) {
            int fd = open(paths[i], O_RDWR | O_CREAT, 0644);
            CHECK(fcntl(fd, F_SETLK, &(struct flock){.l_type = type, .l_whence = SEEK_SET}) == 0);
            CHECK(lockf(fd, F_TEST, 0) == 0);
            pid_t pid = fork();
            if (pid == 0)
                _exit(lockf(fd, F_TEST, 0) == 0 ? 0 : errno);
            CHECK(child_status(pid) == W_EXITCODE(type == F_RDLCK ? 0 : EACCES, 0));
            close(fd);
        }
        unlink(paths[i]);
    }
}

/* 9: a directory opens as ".../.", fstat calls it a directory, and it can be synced.  A missing one gives ENOENT. */
static void directory_sync(void)
{
    struct stat st;
    int fd = open(at("input", "."), O_RDONLY | O_DIRECTORY);

    CHECK(fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && fsync(fd) == 0 && close(fd) == 0);
    CHECK(open(at("input/9", ID "-D"), O_RDWR | O_CREAT | O_EXCL, 0640) < 0 && errno == ENOENT);
    CHECK(mkdir(at("input", "9"), 0750) == 0 && mkdir(at("input", "9"), 0750) < 0 && errno == EEXIST);
    CHECK(rmdir(at("input", "9")) == 0);
}

/* 10: a successful call leaves errno alone. */
static void errno_is_left_alone(void)
{
    struct stat st;
    char byte;

    errno = ENOTRECOVERABLE;
    int fd = make("f");
    FILE *stream = fopen(at("input", "f"), "rb");
    write(fd, "x", 1);
    lseek(fd, 0, SEEK_SET);
    read(fd, &byte, 1);
    read(fd, &byte, 1);
    fsync(fd);
    fstat(fd, &st);
    stat(at("input", "f"), &st);
    int copy = dup(fd);
    close(copy);
    fgetc(stream);
    fgetc(stream);
    fclose(stream);
    rename(at("input", "f"), at("input", "g"));
    unlink(at("input", "g"));
    close(fd);
    CHECK(errno == ENOTRECOVERABLE);
}

static sigjmp_buf escape;
static volatile sig_atomic_t alarms;

static void on_alarm(int signal_number)
{
    int fd = open(at("input", "from-handler"), O_WRONLY | O_CREAT | O_APPEND, 0640);

    (void)signal_number;
    if (fd >= 0) {
        (void)!write(fd, "x", 1);
        close(fd);
    }
    if (++alarms % 2)
        siglongjmp(escape, 1);
}

/* 11: signal handlers can open and write spool files at any instruction, and leave by longjmp.  Nothing hangs, and no
 * operation is half done. */
static void signals_anywhere(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    struct stat st;
    volatile int rounds = 0;

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    sigsetjmp(escape, 1);
    while (alarms < 2000 && rounds < 2000000) {
        rounds++;
        int fd = open(at("input", "f"), O_RDWR | O_CREAT, 0640);
        if (fd >= 0) {
            (void)!write(fd, "abcdefgh", 8);
            close(fd);
        }
        rename(at("input", "f"), at("input", "g"));
        unlink(at("input", "g"));
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(alarms >= 2000);
    CHECK(stat(at("input", "from-handler"), &st) == 0 && st.st_size == alarms);
    unlink(at("input", "f"));
    unlink(at("input", "g"));
    CHECK(unlink(at("input", "from-handler")) == 0);
    closefrom(3); /* the jumps leave descriptors open */
}

/* 12: relative paths, ".." and a symbolic link to the spool lead to the same file. */
static void every_path(void)
{
    char link_path[300], path[600];
    struct stat one, other;
    int fd = make("f");

    close(fd);
    CHECK(stat(at("input", "f"), &one) == 0);
    snprintf(link_path, sizeof(link_path), "%s-link", spool);
    CHECK(symlink(spool, link_path) == 0 && chdir(spool) == 0);
    const char *forms[] = {"input/f", "./input//f", "input/./f", "input/../input/f"};
    for (int i = 0; i < 4; i++)
        CHECK(stat(forms[i], &other) == 0 && other.st_ino == one.st_ino);
    snprintf(path, sizeof(path), "%s/input/f", link_path);
    CHECK(stat(path, &other) == 0 && other.st_ino == one.st_ino);
    snprintf(path, sizeof(path), "%s/../%s/input/f", spool, strrchr(spool, '/') + 1);
    CHECK(stat(path, &other) == 0 && other.st_ino == one.st_ino);
    int directory = open(at("input", "."), O_RDONLY | O_DIRECTORY);
    CHECK(fstatat(directory, "f", &other, 0) == 0 && other.st_ino == one.st_ino);
    int real = open(spool, O_RDONLY | O_DIRECTORY);
    CHECK(fstatat(real, "input/f", &other, 0) == 0 && other.st_ino == one.st_ino);
    close(real);
    close(directory);
    CHECK(chdir("/") == 0 && unlink(link_path) == 0 && unlink(at("input", "f")) == 0);
}

/* A path of which PATH_MAX bytes can be read, and no NUL is among them: the kernel looks no further. */
static void a_path_without_an_end(void)
{
    const size_t page = 4096;
    char *text = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct stat st;

    close(make("f"));
    CHECK(text != MAP_FAILED && mprotect(text + page, page, PROT_NONE) == 0);
    memset(text, '/', page);
    CHECK(stat(text, &st) < 0 && errno == ENAMETOOLONG);
    memcpy(text, spool, strlen(spool));
    CHECK(stat(text, &st) < 0 && errno == ENAMETOOLONG);
    CHECK(rename(at("input", "f"), text) < 0 && errno == ENAMETOOLONG);
    CHECK(rename(at("input", "f"), text + 1) < 0 && errno == EFAULT);
    CHECK(unlink(at("input", "f")) == 0 && munmap(text, 2 * page) == 0);
}

/* A relative path is the store's below a served directory, however the process came there. */
static void working_directories(void)
{
    struct stat st;
    const char *input = at("input", ".");

    close(make("f"));
    int quiet = open("/", O_RDONLY | O_DIRECTORY), directory = open(spool, O_RDONLY | O_DIRECTORY);
    CHECK(chdir(spool) == 0 && stat("f", &st) < 0 && chdir("input") == 0 && stat("f", &st) == 0);
    CHECK(fchdir(quiet) == 0 && stat("f", &st) < 0 && fchdir(directory) == 0 && stat("f", &st) < 0);
    CHECK(chdir(at("input", "")) == 0 && stat("./f", &st) == 0 && stat("f", &st) == 0);
    CHECK(syscall(SYS_fchdir, quiet) == 0 && stat("f", &st) < 0);
    CHECK(syscall(SYS_chdir, input) == 0 && stat("f", &st) == 0);
    CHECK(chdir("../input/..") == 0 && stat("f", &st) < 0 && stat("input/f", &st) == 0);
    pid_t pid = fork();
    if (pid == 0)
        exit(chdir("input") == 0 && stat("f", &st) == 0 ? 0 : 1);
    CHECK(child_status(pid) == 0 && stat("f", &st) < 0 && chdir("/") == 0 && stat("f", &st) < 0);
    close(quiet);
    close(directory);
    unlink(at("input", "f"));
}

/* @name in directory @fd, which is closed. */
static int below(int fd, const char *name, int flags)
{
    int found = openat(fd, name, O_PATH | flags);

    close(fd);
    return found;
}

/* Likewise by descriptors of directories, each opened in the one above it. */
static void name_by_name(void)
{
    char path[300], link_path[300];
    struct stat st;

    close(make("f"));
    snprintf(link_path, sizeof(link_path), "%s-link", spool);
    CHECK(symlink(strcat(strcpy(path, spool), "/input"), link_path) == 0);
    int root = open("/", O_PATH), fd = below(dup(root), "srv", O_NOFOLLOW);
    int by_link = below(dup(fd), strrchr(link_path, '/') + 1, 0);
    CHECK(fstatat(by_link, "f", &st, 0) == 0 && close(by_link) == 0);
    by_link = below(dup(fd), strcat(strcpy(path, strrchr(link_path, '/') + 1), "/"), O_NOFOLLOW);
    CHECK(fstatat(by_link, "f", &st, 0) == 0);
    CHECK(fstatat(fd, strcat(strcpy(path, strrchr(spool, '/') + 1), "/input/f"), &st, 0) == 0);
    fd = below(fd, strrchr(spool, '/') + 1, O_NOFOLLOW);
    CHECK(fstatat(fd, "f", &st, 0) < 0 && fstatat(fd, "./input/f", &st, 0) == 0);
    fd = below(fd, "input", O_NOFOLLOW);
    CHECK(fstatat(fd, "f", &st, 0) == 0 && dup2(fd, root) == root && fstatat(root, "f", &st, 0) == 0);
    CHECK(unlink(link_path) == 0 && unlink(at("input", "f")) == 0);
    close(root);
    close(fd);
    close(by_link);
}

static int has_f(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    struct stat found;

    (void)path, (void)st, (void)kind, (void)where;
    return stat("f", &found) == 0;
}

/* The same while libc walks, and changes the directory by itself.  (The walk sees the disk's directories.) */
static void walks(void)
{
    char command[300];

    close(make("f"));
    snprintf(command, sizeof(command), "LD_PRELOAD= mkdir %s/input/real", spool);
    CHECK(system(command) == 0 && chdir("/") == 0);
    CHECK(nftw(spool, has_f, 8, FTW_PHYS) == 0 && nftw(spool, has_f, 8, FTW_PHYS | FTW_CHDIR) == 1);
    snprintf(command, sizeof(command), "LD_PRELOAD= rmdir %s/input/real", spool);
    CHECK(system(command) == 0 && chdir("/") == 0);
    unlink(at("input", "f"));
}

/* The kernel is asked where the process is once for each working directory, and not for each relative path. */
static void relative_paths_are_cheap(void)
{
    struct stat st;

    pid_t pid = fork();
    if (pid == 0) {
        bool right = chdir("/srv") == 0 && stat("new/none", &st) < 0 && filter_forbid(SYS_getcwd) == 0;
        int fd = open("cheap", O_WRONLY | O_CREAT, 0600);
        right = right && fd >= 0 && chmod("cheap", 0640) == 0 && rename("cheap", "cheaper") == 0 &&
                stat("./cheaper", &st) == 0 && unlink("cheaper") == 0;
        exit(right ? 0 : 1);
    }
    CHECK(child_status(pid) == 0);
}

/* 13: an unlinked file can be read while it is open.  14: ENOENT is exact. */
static void unlinked_but_open(void)
{
    char bytes[8];
    int fd = make("f");

    CHECK(write(fd, "content", 7) == 7 && unlink(at("input", "f")) == 0);
    CHECK(unlink(at("input", "f")) < 0 && errno == ENOENT);
    CHECK(pread(fd, bytes, 8, 0) == 7 && memcmp(bytes, "content", 7) == 0);
    close(fd);
}

/* 16: the child of a fork can open files by name at once, and shares the offset of inherited descriptors.  (6, the same
 * after the child becomes another user, is in the system tests.) */
static void forks(void)
{
    char bytes[8];
    int fd = make("f");

    CHECK(write(fd, "0123456789", 10) == 10 && lseek(fd, 2, SEEK_SET) == 2);
    pid_t pid = fork();
    if (pid == 0) {
        int own = open(at("input", "f"), O_RDWR | O_APPEND);
        bool right = own >= 0 && read(fd, bytes, 3) == 3 && memcmp(bytes, "234", 3) == 0 && write(own, "x", 1) == 1;
        exit(right ? 0 : 1);
    }
    CHECK(child_status(pid) == 0 && read(fd, bytes, 3) == 3 && memcmp(bytes, "567", 3) == 0);
    CHECK(lseek(fd, 0, SEEK_END) == 11 && unlink(at("input", "f")) == 0 && close(fd) == 0);
}

enum { MANY = 600 };

static int closing_at_exec(const int fds[MANY])
{
    int count = 0;

    for (int i = 0; i < MANY; i++)
        count += fcntl(fds[i], F_GETFD) != 0;
    return count;
}

/* Whatever runs another program, or fails to, leaves descriptors as they were, however many they are. */
static void exec_leaves_descriptors(void)
{
    char program[] = "true";
    char *const arguments[] = {program, NULL};
    int fds[MANY];
    pid_t child;

    CHECK(setenv("LD_PRELOAD", "", 1) == 0); /* so that the shell, too, won't have the library */
    for (int i = 0; i < MANY; i++)
        fds[i] = i ? open(at("input", "f"), O_RDWR) : make("f");
    CHECK(closing_at_exec(fds) == 0);
    CHECK(system("exit 3") == 3 << 8 && closing_at_exec(fds) == 0);
    CHECK(execv("/nowhere", arguments) < 0 && errno == ENOENT && closing_at_exec(fds) == 0);
    CHECK(execvp("no-such-program", arguments) < 0 && errno == ENOENT && closing_at_exec(fds) == 0);
    CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, NULL) == 0 && child_status(child) == 0);
    CHECK(closing_at_exec(fds) == 0);
    FILE *pipe_end = popen("exit 3", "r");
    CHECK(pipe_end && closing_at_exec(fds) == 0 && pclose(pipe_end) == 3 << 8);
    for (int i = 0; i < MANY; i++)
        CHECK(close(fds[i]) == 0);
    CHECK(unlink(at("input", "f")) == 0 && setenv("LD_PRELOAD", "libfastspool.so", 1) == 0);
}

/* 15: the owner can open a file that root made for it.  The effective user changes back and forth, and each call goes
 * by the current one. */
static void effective_users(void)
{
    struct stat st;

    if (geteuid() != 0)
        return;
    CHECK(stat(spool, &st) == 0 && chown(at("input", ""), st.st_uid, st.st_gid) == 0);
    int fd = make("hdr");
    CHECK(fchown(fd, st.st_uid, st.st_gid) == 0 && fchmod(fd, 0640) == 0 && close(fd) == 0);
    CHECK(setegid(st.st_gid) == 0 && seteuid(st.st_uid) == 0);
    fd = open(at("input", "hdr"), O_RDWR);
    CHECK(fd >= 0 && fchown(fd, st.st_uid, st.st_gid) == 0 && fchown(fd, 0, 0) < 0 && errno == EPERM);
    close(fd);
    fd = make("own");
    CHECK(seteuid(0) == 0 && setegid(0) == 0 && fstat(fd, &st) == 0 && st.st_uid != 0);
    close(fd);
    CHECK(unlink(at("input", "own")) == 0 && unlink(at("input", "hdr")) == 0);
}

/* A process whose real or saved uid is an ordinary user's has no store: the user could stop it while it holds the lock.
 */
static void users_have_no_store(void)
{
    const uid_t user = 12345;

    if (geteuid() != 0)
        return;
    for (int saved = 0; saved < 2; saved++) {
        pid_t child = fork();
        if (child == 0) {
            bool before = mkdir(at("input", "mine"), 0700) == 0 && rmdir(at("input", "mine")) == 0;
            CHECK(setresuid(saved ? 0 : user, 0, saved ? user : 0) == 0);
            bool after = open(at("input", "mine"), O_RDWR | O_CREAT, 0640) < 0 && errno == EACCES;
            _exit(before && after ? 0 : 1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

/* 19: statvfs of the spool reports the room in the store. */
static void room(void)
{
    struct statvfs st;

    CHECK(statvfs(spool, &st) == 0 && st.f_frsize == 4096 && st.f_bavail > 0 && st.f_files > 0);
    /* This test runs with FASTSPOOL_MEMORY=64M: room for the names of so many files, and for a block of each on the
     * disk. */
    CHECK(st.f_favail > 200000 && st.f_favail < (64 << 20) / 200 && st.f_bavail <= st.f_favail + 1);
}

/* 7, 8: sendfile works from a spool file, and a dup shares the offset. */
static void kernel_copies(void)
{
    char bytes[16];
    int ends[2], fd = make("f");
    off_t offset = 3;

    CHECK(write(fd, "0123456789", 10) == 10 && pipe(ends) == 0);
    CHECK(sendfile(ends[1], fd, &offset, 100) == 7 && offset == 10 && lseek(fd, 0, SEEK_CUR) == 10);
    CHECK(read(ends[0], bytes, 16) == 7 && memcmp(bytes, "3456789", 7) == 0);
    int copy = dup(fd);
    CHECK(lseek(copy, 1, SEEK_SET) == 1 && lseek(fd, 0, SEEK_CUR) == 1);
    close(fd);
    CHECK(read(copy, bytes, 2) == 2 && unlink(at("input", "f")) == 0);
    close(copy);
    close(ends[0]);
    close(ends[1]);
}

/* §7: a listing has ".", ".." and each name once, but not the state directory. */
static void listings(void)
{
    int names = 0, dots = 0;
    struct dirent *entry;

    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        close(make(name));
    }
    DIR *directory = opendir(at("input", ""));
    CHECK(directory != NULL);
    while (directory && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            dots++;
        else if (unlink(at("input", entry->d_name)) == 0)
            names++;
    }
    CHECK(names == 100 && dots == 2 && closedir(directory) == 0);
    directory = opendir(spool);
    while (directory && (entry = readdir(directory)) != NULL)
        CHECK(strcmp(entry->d_name, ".fastspool") != 0);
    CHECK(directory && closedir(directory) == 0);
}

/* A filter of scandir: the listing breaks off. */
static int close_directories(const struct dirent *entry)
{
    struct stat st;

    (void)entry;
    for (int fd = 3; fd < 1024; fd++) {
        if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
            close(fd);
    }
    return 1;
}

static int fail_quietly(const struct dirent *entry)
{
    (void)entry;
    errno = EIO;
    return 1;
}

static void scans(void)
{
    struct dirent **entries = NULL;

    close(make("f"));
    errno = ENOTRECOVERABLE;
    int count = scandir(at("input", ""), &entries, fail_quietly, alphasort);
    CHECK(count == 3 && errno == ENOTRECOVERABLE && strcmp(entries[2]->d_name, "f") == 0);
    while (count > 0)
        free(entries[--count]);
    free(entries);
    errno = 0;
    CHECK(scandir(at("input", ""), &entries, close_directories, alphasort) == -1 && errno == EBADF);
    int top = open(spool, O_RDONLY | O_DIRECTORY);
    errno = 0;
    CHECK(scandirat(top, "input", &entries, close_directories, NULL) == -1 && errno == EBADF);
    close(top);
    unlink(at("input", "f"));
}

static void *in_thread(void *argument)
{
    char name[32];

    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "%s%d", (const char *)argument, i);
        char path[300];
        snprintf(path, sizeof(path), "%s/input/%s", spool, name);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || write(fd, name, 8) != 8 || close(fd) < 0 || unlink(path) < 0)
            return (void *)1;
    }
    return NULL;
}

/* Threads can work in parallel. */
static void threads(void)
{
    char names[4][8] = {"threadA", "threadB", "threadC", "threadD"};
    pthread_t thread[4];
    void *result;

    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, in_thread, names[i]);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(thread[i], &result) == 0 && result == NULL);
}

/* The library works before main, in a constructor, because it binds itself on first use. */
static int from_constructor;
static void *nothing(void *argument)
{
    return argument;
}

/* Streams lock themselves like glibc's own, as soon as there has been a second thread.  This includes streams opened
 * before. */
static void streams_lock_among_threads(void)
{
    const int locks = 0x80; /* glibc's _IO_FLAGS2_NEED_LOCK */
    pthread_t thread;
    FILE *stream = fopen(at("input", "f"), "w");

    CHECK(stream && !(stream->_flags2 & locks));
    pthread_create(&thread, NULL, nothing, NULL);
    pthread_join(thread, NULL);
    CHECK(stream && (stream->_flags2 & locks));
    fclose(stream);
    stream = fopen(at("input", "f"), "r");
    CHECK(stream && (stream->_flags2 & locks));
    fclose(stream);
    unlink(at("input", "f"));
}

__attribute__((constructor)) static void early(int argc, char **argv)
{
    struct stat st;
    char path[300];

    if (argc != 2)
        return;
    snprintf(path, sizeof(path), "%s/input", argv[1]);
    mkdir(path, 0750);
    from_constructor = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 1 : -1;
}

static void constructor(void)
{
    CHECK(from_constructor == 1);
}

static const struct test tests[] = {
    {"constructor", constructor},
    {"2 stdio bypasses", stdio_bypasses},
    {"streams lock among threads", streams_lock_among_threads},
    {"hints' streams end", hints_streams_end},
    {"a failed dup leaves the file", failed_dup_leaves_the_file},
    {"4 own descriptors are high", own_descriptors_are_high},
    {"one descriptor a file", one_descriptor_a_file},
    {"5, 20 locks are the parent's", locks_are_the_parents},
    {"lockf tests for reading", lockf_tests_for_reading},
    {"7, 8 kernel copies", kernel_copies},
    {"9 directory sync", directory_sync},
    {"10 errno is left alone", errno_is_left_alone},
    {"12 every path", every_path},
    {"a path without an end", a_path_without_an_end},
    {"working directories", working_directories},
    {"name by name", name_by_name},
    {"relative paths are cheap", relative_paths_are_cheap},
    {"walks", walks},
    {"13, 14 unlinked but open", unlinked_but_open},
    {"15 effective users", effective_users},
    {"a user's process can't be stopped with the lock", users_have_no_store},
    {"16 forks", forks},
    {"exec leaves descriptors", exec_leaves_descriptors},
    {"19 room", room},
    {"listings", listings},
    {"scans", scans},
    {"threads", threads},
    {"11 signals anywhere", signals_anywhere},
};

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    snprintf(spool, sizeof(spool), "%s", argv[1]);
    umask(0);
    if (argc > 2) { /* the first to touch the spool are several threads at once, or who has many descriptors */
        strcmp(argv[2], "many") == 0 ? own_descriptors_are_higher() : threads();
        return failures != 0;
    }
    return run_tests(tests, sizeof(tests) / sizeof(*tests), open_descriptors, "open descriptors");
}

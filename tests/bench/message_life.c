/* SPDX-License-Identifier: MIT
 *
 * Time the life of one message, in the calls that Exim makes:
 *
 *      message_life DIRECTORY [--rounds N] [--messages N] [--kinds] [--forks]   libc calls, with or without the library
 *      message_life DIRECTORY --api [--rounds N] [--messages N] [--kinds]       the store's C API
 *
 * Prints nanoseconds per message, the median of the rounds.  --kinds adds a line for each kind of call with its share.
 * message_life.py alternates all variants and prints ratios.
 *
 * A message:
 * - Reception: create -D, set its owner and mode, write 4 kB, lock and sync it.  Write the header to a temporary file,
 * sync and rename it, and sync the directory.  Write the msglog.  Close -D.
 * - Delivery: open -D again and lock it.  Open and read -H.  Read -D, stat -H.  Remove the msglog, -D and -H.
 *
 * --forks runs each step that a child can do in a child of its own, much as Exim does, so page faults count.  Each
 * other step gets a child that does nothing.
 *
 * Failure modes: a failed call is printed and ends the program.
 */
#include "fastspool.h"

#include "argument.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 101
#define BODY       4096
#define HEADER     600

enum kind { OPEN, OWNER, WRITE, LOCK, SYNC, STAT, CLOSE, RENAME, READ, SEEK, UNLINK, KINDS };
static const char *const kind_name[KINDS] = {"open",  "fchown, fchmod", "write", "fcntl lock", "fsync", "stat, fstat",
                                             "close", "rename",         "read",  "lseek",      "unlink"};

static char bytes[BODY], buffer[2 * BODY];
static char data[300], header[300], temporary[300], directory[300], log_file[300];
static uint64_t spent[KINDS];
static bool timed;
static struct fastspool *store; /* NULL: use libc */

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void failed(const char *what, int error)
{
    fprintf(stderr, "message_life: %s: %s\n", what, strerror(error));
    exit(1);
}

/* Make a call.  With --kinds its time is added to its kind. */
#define CALL(kind, expression)                                  \
    __extension__({                                             \
        uint64_t began_ = timed ? now() : 0;                    \
        long result_ = (long)(expression);                      \
        if (timed)                                              \
            spent[kind] += now() - began_;                      \
        if (result_ < 0)                                        \
            failed(#expression, store ? (int)-result_ : errno); \
        result_;                                                \
    })

/* ---- the steps, in libc calls ---- */

static int data_fd; /* open across steps */

static void make_data(void)
{
    data_fd = (int)CALL(OPEN, open(data, O_RDWR | O_CREAT | O_EXCL, 0640));
    CALL(OWNER, fchown(data_fd, 0, 0));
    CALL(OWNER, fchmod(data_fd, 0640));
}

static void fill_data(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};
    struct stat st;

    CALL(WRITE, write(data_fd, bytes, BODY));
    CALL(LOCK, fcntl(data_fd, F_SETLK, &lock));
    CALL(SYNC, fsync(data_fd));
    CALL(STAT, fstat(data_fd, &st));
}

static void write_header(void)
{
    int fd = (int)CALL(OPEN, open(temporary, O_RDWR | O_CREAT | O_EXCL, 0640));

    CALL(WRITE, write(fd, bytes, HEADER));
    CALL(SYNC, fsync(fd));
    CALL(CLOSE, close(fd));
}

static void publish_header(void)
{
    CALL(RENAME, rename(temporary, header));
    int fd = (int)CALL(OPEN, open(directory, O_RDONLY | O_DIRECTORY));
    CALL(SYNC, fsync(fd));
    CALL(CLOSE, close(fd));
}

static void write_log(void)
{
    int fd = (int)CALL(OPEN, open(log_file, O_WRONLY | O_APPEND | O_CREAT, 0640));

    CALL(WRITE, write(fd, bytes, 60));
    CALL(CLOSE, close(fd));
}

static void end_reception(void)
{
    CALL(CLOSE, close(data_fd));
}

static void open_again(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};

    data_fd = (int)CALL(OPEN, open(data, O_RDWR | O_APPEND));
    CALL(LOCK, fcntl(data_fd, F_SETLK, &lock));
}

static void read_header(void)
{
    int fd = (int)CALL(OPEN, open(header, O_RDONLY));

    CALL(READ, read(fd, buffer, sizeof(buffer)));
    CALL(CLOSE, close(fd));
}

static void read_data(void)
{
    struct stat st;

    CALL(SEEK, lseek(data_fd, 19, SEEK_SET));
    CALL(READ, read(data_fd, buffer, sizeof(buffer)));
    CALL(STAT, stat(header, &st));
}

static void remove_all(void)
{
    CALL(UNLINK, unlink(log_file));
    CALL(UNLINK, unlink(data));
    CALL(UNLINK, unlink(header));
    CALL(CLOSE, close(data_fd));
}

static void (*const libc_steps[])(void) = {make_data,     fill_data,  write_header, publish_header, write_log,
                                           end_reception, open_again, read_header,  read_data,      remove_all};
#define STEPS (sizeof(libc_steps) / sizeof(libc_steps[0]))

/* As in Exim the child uses the parent's descriptors, and the parent waits. */
static void fork_at(size_t step)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        failed("fork", errno);
    if (pid == 0) {
        libc_steps[step]();
        _exit(0);
    }
    if (waitpid(pid, &status, 0) < 0 || status != 0)
        failed("a step in a child", ECHILD);
}

/* A step that opens a descriptor for later steps, or holds the lock, must run in the parent. */
static bool forks_well(size_t step)
{
    return libc_steps[step] != make_data && libc_steps[step] != fill_data && libc_steps[step] != end_reception &&
           libc_steps[step] != open_again && libc_steps[step] != remove_all;
}

static void fork_nothing(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
}

static void live_in_libc(bool forks)
{
    for (size_t step = 0; step < STEPS; step++) {
        if (forks && forks_well(step)) {
            fork_at(step);
        } else {
            if (forks)
                fork_nothing();
            libc_steps[step]();
        }
    }
}

/* ---- the same through the C API ---- */

static void live_in_api(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};
    struct stat st;

    int d = (int)CALL(OPEN, fastspool_open(store, data, O_RDWR | O_CREAT | O_EXCL, 0640));
    CALL(OWNER, fastspool_fchown(store, d, 0, 0));
    CALL(OWNER, fastspool_fchmod(store, d, 0640));
    CALL(WRITE, fastspool_write(store, d, bytes, BODY));
    CALL(LOCK, fastspool_lock(store, d, F_SETLK, &lock));
    CALL(SYNC, fastspool_fsync(store, d));
    CALL(STAT, fastspool_fstat(store, d, &st));
    int h = (int)CALL(OPEN, fastspool_open(store, temporary, O_RDWR | O_CREAT | O_EXCL, 0640));
    CALL(WRITE, fastspool_write(store, h, bytes, HEADER));
    CALL(SYNC, fastspool_fsync(store, h));
    CALL(CLOSE, fastspool_close(store, h));
    CALL(RENAME, fastspool_rename(store, temporary, header, 0));
    h = (int)CALL(OPEN, fastspool_open(store, directory, O_RDONLY | O_DIRECTORY, 0));
    CALL(SYNC, fastspool_fsync(store, h));
    CALL(CLOSE, fastspool_close(store, h));
    h = (int)CALL(OPEN, fastspool_open(store, log_file, O_WRONLY | O_APPEND | O_CREAT, 0640));
    CALL(WRITE, fastspool_write(store, h, bytes, 60));
    CALL(CLOSE, fastspool_close(store, h));
    CALL(CLOSE, fastspool_close(store, d));
    d = (int)CALL(OPEN, fastspool_open(store, data, O_RDWR | O_APPEND, 0));
    lock.l_type = F_WRLCK;
    CALL(LOCK, fastspool_lock(store, d, F_SETLK, &lock));
    h = (int)CALL(OPEN, fastspool_open(store, header, O_RDONLY, 0));
    CALL(READ, fastspool_read(store, h, buffer, sizeof(buffer)));
    CALL(CLOSE, fastspool_close(store, h));
    CALL(SEEK, fastspool_lseek(store, d, 19, SEEK_SET));
    CALL(READ, fastspool_read(store, d, buffer, sizeof(buffer)));
    CALL(STAT, fastspool_stat(store, header, &st));
    CALL(UNLINK, fastspool_unlink(store, log_file));
    CALL(UNLINK, fastspool_unlink(store, data));
    CALL(UNLINK, fastspool_unlink(store, header));
    CALL(CLOSE, fastspool_close(store, d));
}

/* ---- rounds ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void set_paths(const char *spool)
{
    const char *slash = *spool ? "/" : "";

    snprintf(data, sizeof(data), "%s%s/input/8/1abcde-000001-AB-D", spool, slash);
    snprintf(header, sizeof(header), "%s%s/input/8/1abcde-000001-AB-H", spool, slash);
    snprintf(temporary, sizeof(temporary), "%s%s/input/8/hdr.1abcde-000001-AB", spool, slash);
    snprintf(directory, sizeof(directory), "%s%s/input/8/.", spool, slash);
    snprintf(log_file, sizeof(log_file), "%s%s/msglog/8/1abcde-000001-AB", spool, slash);
}

static void make_directories(const char *spool)
{
    static const char *const needed[] = {"input", "input/8", "msglog", "msglog/8"};

    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        char path[400];
        snprintf(path, sizeof(path), "%s/%s", spool, needed[i]);
        int result = store ? fastspool_mkdir(store, needed[i], 0750) : mkdir(path, 0750) < 0 ? -errno : 0;
        if (result < 0 && result != -EEXIST)
            failed(path, -result);
    }
}

static void attach(const char *spool)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];

    if (fastspool_config_load(&config, NULL, true, error) < 0 || fastspool_attach(spool, &config, &store, error) < 0) {
        fprintf(stderr, "message_life: %s\n", error);
        exit(1);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: message_life DIRECTORY [--api] [--forks] [--kinds] [--rounds N] [--messages N]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t rounds[ROUNDS_MAX];
    unsigned long count = 11, messages = 2000;
    bool forks = false, through_api = false, kinds = false;

    if (argc < 2 || argv[1][0] == '-')
        usage();
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--forks") == 0)
            forks = true;
        else if (strcmp(argv[i], "--kinds") == 0)
            kinds = true;
        else if (strcmp(argv[i], "--api") == 0)
            through_api = true;
        else if (strcmp(argv[i], "--rounds") == 0)
            count = argument_number("--rounds", argv[++i], 1, ROUNDS_MAX);
        else if (strcmp(argv[i], "--messages") == 0)
            messages = argument_number("--messages", argv[++i], 1, 100000000);
        else
            usage();
    }
    memset(bytes, 'x', sizeof(bytes));
    if (through_api)
        attach(argv[1]);
    set_paths(through_api ? "" : argv[1]);
    make_directories(argv[1]);
    for (unsigned long round = 0; round < count; round++) {
        uint64_t began = now();
        for (unsigned long m = 0; m < messages; m++) {
            if (through_api)
                live_in_api();
            else
                live_in_libc(forks);
        }
        rounds[round] = (now() - began) / messages;
    }
    qsort(rounds, count, sizeof(rounds[0]), by_value);
    printf("%llu\n", (unsigned long long)rounds[count / 2]);
    timed = kinds;
    for (unsigned long m = 0; kinds && m < messages; m++) {
        if (through_api)
            live_in_api();
        else
            live_in_libc(false);
    }
    for (int kind = 0; kinds && kind < KINDS; kind++)
        printf("%-15s %7llu\n", kind_name[kind], (unsigned long long)(spent[kind] / messages));
    return 0;
}

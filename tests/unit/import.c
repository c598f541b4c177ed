/* SPDX-License-Identifier: MIT
 *
 * The import of what lies on the disk.  A process is killed before each call that changes or asks disk or store, an
 * Exim delivers what it finds then, on the disk or in the store, and the import runs again: every message is delivered
 * once. The same with a power cut there, which takes all or nothing of what the disk has not synced.
 */
#include "durable.h"
#include "fastspool.h"
#include "spool/exim.h"
#include "view/disk.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>

/* ---- the calls of the import, counted ---- */

static unsigned steps, deadly;        /* the step before which the process dies; 0: none */
static unsigned flushes, flush_fails; /* the flush that fails; 0: none */
static int write_error, rename_error; /* of all writes, of the next rename */
static int rename_failed;
static unsigned lines; /* in syslog */
static char last_line[4096];
static bool commits; /* a flush is a commit */
static void (*meddle)(void), (*synced)(void);
static int meddle_in; /* writes */
static jmp_buf power;
static bool power_fails; /* at the deadly step; the process lives */

static void step(void)
{
    if (++steps == deadly && power_fails)
        longjmp(power, 1);
    if (steps == deadly)
        kill(getpid(), SIGKILL);
}

static int play_flush(void)
{
    step();
    if (++flushes == flush_fails)
        return -EIO;
    if (commits)
        commit(0); /* the tests without power cuts have no mirror */
    return 0;
}

static int play_write(void)
{
    step();
    if (meddle && --meddle_in == 0)
        meddle();
    return write_error;
}

static int play_rename(void)
{
    int error_now = rename_error;

    step();
    rename_error = 0;
    return error_now;
}

static int play_sync(int result)
{
    if (synced)
        synced();
    return result;
}

static void __attribute__((format(printf, 2, 3))) play_syslog(int priority, const char *line, ...)
{
    va_list arguments;

    (void)priority;
    va_start(arguments, line);
    vsnprintf(last_line, sizeof(last_line), line, arguments);
    va_end(arguments);
    lines++;
}

#define commit                  import_commit /* durable.h has another one */
#define fastspool_mkdir(...)    (step(), fastspool_mkdir(__VA_ARGS__))
#define fastspool_rmdir(...)    (step(), fastspool_rmdir(__VA_ARGS__))
#define fastspool_open(...)     (step(), fastspool_open(__VA_ARGS__))
#define fastspool_write(...)    (play_write() < 0 ? write_error : fastspool_write(__VA_ARGS__))
#define fastspool_futimens(...) (step(), fastspool_futimens(__VA_ARGS__))
#define fastspool_rename(...) \
    (rename_failed = play_rename(), rename_failed ? rename_failed : fastspool_rename(__VA_ARGS__))
#define fastspool_unlink(...)     (step(), fastspool_unlink(__VA_ARGS__))
#define fastspool_flush(fs, time) ((void)(fs), (void)(time), play_flush())
#define disk_lock(...)            (step(), disk_lock(__VA_ARGS__))
#define disk_take(...)            (step(), disk_take(__VA_ARGS__))
#define disk_give_back(...)       (step(), disk_give_back(__VA_ARGS__))
#define disk_remove_taken(...)    (step(), disk_remove_taken(__VA_ARGS__))
#define disk_unlink(...)          (step(), disk_unlink(__VA_ARGS__))
#define disk_sync_around(...)     (step(), play_sync(disk_sync_around(__VA_ARGS__)))
#define syslog(...)               play_syslog(__VA_ARGS__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* fs */
#include "../../lib/view/copy.c"
#include "../../lib/view/import.c"
#include "../../lib/view/scan.c"
#include "../../lib/view/staged.c"
#pragma GCC diagnostic pop
#undef commit
#undef fastspool_mkdir
#undef fastspool_open
#undef fastspool_write
#undef fastspool_unlink
#undef fastspool_rename

TestSuite(import, .init = fixture_setup, .fini = fixture_teardown, .timeout = 120);

/* ---- the disk ---- */

#define A "1abcde-000001-AB"
#define B "1abcde-00000000002-ABCD"
#define C "1abcde-000003-AB"

static struct import_result result_of;

static const char *on_disk(const char *path)
{
    static char whole[2][2 * PATH_MAX];
    static int turn;

    turn = !turn;
    snprintf(whole[turn], sizeof(whole[turn]), "%s/%s", fs->spool, path);
    return whole[turn];
}

static void disk_directory(const char *path)
{
    cr_assert(mkdir(on_disk(path), 0750) == 0 || errno == EEXIST);
}

static void disk_file(const char *path, const char *content)
{
    struct timespec times[2] = {{1000, 1}, {2000 + (time_t)strlen(path), 2}};
    unlink(on_disk(path));
    int fd = open(on_disk(path), O_WRONLY | O_CREAT | O_EXCL, 0600);

    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    cr_assert_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    cr_assert_eq(fchmod(fd, strstr(path, "msglog") ? 0400 : 0640), 0);
    if (geteuid() == 0)
        cr_assert_eq(fchown(fd, 107, 113), 0);
    cr_assert_eq(futimens(fd, times), 0);
    close(fd);
}

static bool disk_has(const char *path)
{
    struct stat st;

    return lstat(on_disk(path), &st) == 0;
}

static void message(const char *directory, const char *split, const char *id)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%sinput", directory);
    disk_directory(path);
    snprintf(path, sizeof(path), "%sinput/%s", directory, split);
    disk_directory(path);
    snprintf(path, sizeof(path), "%smsglog", directory);
    disk_directory(path);
    snprintf(path, sizeof(path), "%smsglog/%s", directory, split);
    disk_directory(path);
    snprintf(path, sizeof(path), "%sinput/%s%s-D", directory, split, id);
    disk_file(path, path);
    snprintf(path, sizeof(path), "%sinput/%s%s-H", directory, split, id);
    disk_file(path, path);
    snprintf(path, sizeof(path), "%smsglog/%s%s", directory, split, id);
    disk_file(path, path);
}

/* ---- the store ---- */

static bool store_has(const char *path)
{
    struct stat st;

    return fastspool_stat(fs, path, &st) == 0;
}

/* The store has @path as disk_file() made it with its path as the content, and the disk has it no more. */
static void moved_as(const char *path, const char *content)
{
    char got[PATH_MAX];
    struct stat st;

    cr_assert_not(disk_has(path), "%s is on the disk", path);
    cr_assert_eq(fastspool_stat(fs, path, &st), 0, "%s is not in the store", path);
    int d = fastspool_open(fs, path, O_RDONLY, 0);
    cr_assert_eq(fastspool_read(fs, d, got, sizeof(got)), (ssize_t)strlen(content), "%s", path);
    cr_assert_eq(memcmp(got, content, strlen(content)), 0);
    fastspool_close(fs, d);
    cr_assert_eq(st.st_mode, S_IFREG | (strstr(path, "msglog") ? 0400 : 0640), "%s: %o", path, st.st_mode);
    cr_assert_eq(st.st_mtim.tv_sec, 2000 + (time_t)strlen(path));
    cr_assert_eq(st.st_mtim.tv_nsec, 2);
    if (geteuid() == 0)
        cr_assert(st.st_uid == 107 && st.st_gid == 113);
}

static void moved_whole(const char *path)
{
    moved_as(path, path);
}

static void run(void)
{
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &result_of), 0, "%s", result_of.error);
    cr_assert_not(store_has(PLACES_IMPORT));
}

static void counts(unsigned messages, unsigned files, unsigned locked, unsigned conflicts, unsigned left)
{
    cr_assert_eq(result_of.messages, messages, "%u messages", (unsigned)result_of.messages);
    cr_assert_eq(result_of.files, files, "%u files", (unsigned)result_of.files);
    cr_assert_eq(result_of.locked, locked, "%u locked", result_of.locked);
    cr_assert_eq(result_of.conflicts, conflicts, "%u conflicts", result_of.conflicts);
    cr_assert_eq(result_of.left, left, "%u left", result_of.left);
}

/* ---- what lies there ---- */

Test(import, everything)
{
    struct stat st;

    message("", "", A);
    message("", "8/", B);
    disk_directory("q");
    message("q/", "8/", C);
    disk_directory("q/Finput");
    disk_directory("db");
    disk_directory("msglog.OLD");
    disk_directory("input/empty");
    cr_assert_eq(chmod(on_disk("input/8"), 02770), 0);
    disk_file("input/8/" B "-J", "input/8/" B "-J");
    disk_file("input/8/hdr." B, "input/8/hdr." B);
    disk_file("input/8/" B "-1234-K", "input/8/" B "-1234-K");
    disk_file("msglog.OLD/" A, "msglog.OLD/" A);
    disk_file("input/README", "input/README");
    disk_file("db/retry", "hints");
    run();
    counts(3, 9 + 3 + 2, 0, 0, 0);
    const char *all[] = {"input/" A "-D",   "input/" A "-H",   "msglog/" A,         "input/8/" B "-D",
                         "input/8/" B "-H", "msglog/8/" B,     "q/input/8/" C "-D", "q/input/8/" C "-H",
                         "q/msglog/8/" C,   "input/8/" B "-J", "input/8/hdr." B,    "input/8/" B "-1234-K",
                         "msglog.OLD/" A,   "input/README"};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        moved_whole(all[i]);
    cr_assert(disk_has("db/retry") && disk_has("input/8") && !store_has("db"));
    cr_assert_eq(fastspool_stat(fs, "input/8", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 02770);
    cr_assert(store_has("q/Finput") && store_has("input/empty"));
    run();
    counts(3, 14, 0, 0, 0);
}

/* A pass comes between a program's mkdir(2) and its chown(2) and chmod(2).  What the store has changed itself stays. */
Test(import, directory_being_made)
{
    struct stat st;

    disk_directory("input");
    disk_directory("input/8");
    cr_assert_eq(chmod(on_disk("input"), 0700), 0);
    cr_assert_eq(fastspool_mkdir(fs, "msglog", 0700), 0);
    disk_directory("msglog");
    run();
    cr_assert_eq(chmod(on_disk("input"), 02750), 0);
    if (geteuid() == 0)
        cr_assert_eq(chown(on_disk("input"), 107, 113), 0);
    cr_assert_eq(fastspool_chmod(fs, "input/8", 0710), 0);
    run();
    cr_assert_eq(fastspool_stat(fs, "input", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 02750);
    cr_assert(geteuid() != 0 || (st.st_uid == 107 && st.st_gid == 113));
    cr_assert_eq(fastspool_chmod(fs, "input", 0770), 0);
    run();
    cr_assert_eq(fastspool_stat(fs, "input", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0770);
    cr_assert_eq(fastspool_stat(fs, "input/8", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0710);
    cr_assert_eq(fastspool_stat(fs, "msglog", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0700, "the store's own was there first");
}

Test(import, large_and_empty)
{
    static char large[3 * (64 << 10) + 1];

    memset(large, 'x', sizeof(large) - 1);
    message("", "", A);
    disk_file("input/" A "-D", large);
    disk_file("input/none", "");
    disk_file("input/piece", large + 2 * (64 << 10));
    run();
    counts(1, 5, 0, 0, 0);
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "input/" A "-D", &st), 0);
    cr_assert_eq(st.st_size, (off_t)sizeof(large) - 1);
}

Test(import, batches)
{
    char id[32], path[64];

    for (int i = 0; i < 2 * BATCH + 1; i++) {
        snprintf(id, sizeof(id), "1abcde-%06d-AB", i);
        message("", "", id);
    }
    run();
    counts(2 * BATCH + 1, 3 * (2 * BATCH + 1), 0, 0, 0);
    cr_assert_eq(flushes, 6);
    for (int i = 0; i < 2 * BATCH + 1; i++) {
        snprintf(path, sizeof(path), "input/1abcde-%06d-AB-H", i);
        moved_whole(path);
    }
}

/* As Exim leaves a message that it moves to another queue, and dies. */
Test(import, hard_links)
{
    struct stat one, other;

    message("", "", A);
    disk_directory("q");
    message("q/", "", B);
    cr_assert_eq(link(on_disk("input/" A "-D"), on_disk("q/input/" A "-D")), 0);
    cr_assert_eq(link(on_disk("input/" A "-H"), on_disk("q/input/" A "-H")), 0);
    run();
    counts(2, 6, 1, 0, 0); /* both names of the -D file have one lock */
    run();
    counts(3, 8, 0, 0, 0);
    cr_assert_eq(fastspool_stat(fs, "input/" A "-D", &one), 0);
    cr_assert_eq(fastspool_stat(fs, "q/input/" A "-D", &other), 0);
    cr_assert(one.st_ino != other.st_ino && one.st_nlink == 1 && other.st_nlink == 1);
    moved_as("input/" A "-D", "input/" A "-D");
    moved_whole("input/" A "-H");
    cr_assert(store_has("q/input/" A "-H") && !disk_has("q/input/" A "-H") && !disk_has("q/input/" A "-D"));
}

/* Files of a message without a -D file are looked at last. */
Test(import, without_body)
{
    struct timespec before, after;

    message("", "", A);
    cr_assert_eq(unlink(on_disk("input/" A "-D")), 0);
    clock_gettime(CLOCK_MONOTONIC, &before);
    run();
    clock_gettime(CLOCK_MONOTONIC, &after);
    counts(1, 2, 0, 0, 0);
    cr_assert_geq(after.tv_sec * 1000 + after.tv_nsec / 1000000 - before.tv_sec * 1000 - before.tv_nsec / 1000000, 990);
    moved_whole("input/" A "-H");
    moved_whole("msglog/" A);
}

/* ---- what stays ---- */

static pid_t hold_lock(const char *path, off_t length)
{
    int line[2];
    char byte;

    cr_assert_eq(pipe(line), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = length};
        int fd = open(on_disk(path), O_RDWR);
        if (fcntl(fd, F_SETLK, &lock) < 0 || write(line[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    close(line[1]);
    cr_assert_eq(read(line[0], &byte, 1), 1);
    close(line[0]);
    return pid;
}

Test(import, locked)
{
    message("", "", A);
    message("", "", B);
    pid_t pid = hold_lock("input/" A "-D", 19);
    run();
    counts(1, 3, 1, 0, 0);
    cr_assert(disk_has("input/" A "-D") && disk_has("input/" A "-H") && disk_has("msglog/" A));
    cr_assert_not(store_has("input/" A "-D"));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    run();
    counts(2, 6, 0, 0, 0);
    moved_whole("input/" A "-H");
}

static void run_whole(void)
{
    cr_assert_eq(import_run(fs, fs->spool_fd, true, &result_of), 0, "%s", result_of.error);
    cr_assert_not(store_has(PLACES_IMPORT));
}

static pid_t late_locker;

static void lock_late(void)
{
    late_locker = hold_lock("input/" A "-D", 19); /* the second one */
}

/* All or nothing.  A large queue is looked at again when the message that was locked is not. */
Test(import, whole)
{
    message("", "", A);
    message("", "", B);
    message("", "", C);
    disk_file("input/stray", "stray");
    pid_t pid = hold_lock("input/" B "-D", 19);
    run_whole();
    counts(0, 0, 1, 0, 0);
    cr_assert_str_eq(result_of.in_work, "input/" B "-D");
    cr_assert(disk_has("input/" A "-H") && disk_has("input/" C "-H") && disk_has("input/stray"));
    steps = 0;
    run_whole();
    counts(0, 0, 1, 0, 0);
    cr_assert_eq(steps, 0, "looks at all of the queue again");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    run_whole();
    counts(3, 10, 0, 0, 0);
    cr_assert_str_eq(result_of.in_work, "");
}

/* A lock that comes after the look: what has not been moved yet stays with its message. */
Test(import, whole_until_a_lock)
{
    message("", "", A);
    message("", "", B);
    message("", "", C);
    meddle = lock_late;
    meddle_in = 1;
    run_whole();
    cr_assert(result_of.messages == 1 && result_of.locked == 1);
    cr_assert(!disk_has("input/" B "-H") && disk_has("input/" A "-H") && disk_has("input/" C "-H"));
    kill(late_locker, SIGKILL);
    waitpid(late_locker, NULL, 0);
    run_whole();
    counts(3, 9, 0, 0, 0);
}

/* An empty -D file is one that Exim makes now, and locks next; or an old one. */
Test(import, being_made)
{
    struct timespec old[2] = {{1000, 0}, {1000, 0}};

    disk_directory("input");
    disk_file("input/" A "-D", "");
    cr_assert_eq(utimensat(AT_FDCWD, on_disk("input/" A "-D"), NULL, 0), 0);
    run();
    counts(0, 0, 1, 0, 0);
    cr_assert_eq(utimensat(AT_FDCWD, on_disk("input/" A "-D"), old, 0), 0);
    run();
    counts(1, 1, 0, 0, 0);
}

/* Who has opened a -D file before it was removed never gets its lock. */
Test(import, opened_before)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};

    message("", "", A);
    int fd = open(on_disk("input/" A "-D"), O_RDWR);
    run();
    counts(1, 3, 0, 0, 0);
    cr_assert_eq(fcntl(fd, F_SETLK, &lock), -1, "locked");
    close(fd);
}

static void store_file(const char *path, const char *content)
{
    fastspool_mkdir(fs, "input", 0750);
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);
    cr_assert_geq(d, 0);
    cr_assert_eq(fastspool_write(fs, d, content, strlen(content)), (ssize_t)strlen(content));
    fastspool_close(fs, d);
}

Test(import, conflict)
{
    char same_size[] = "input/" A "-d";

    message("", "", A);
    message("", "", B);
    disk_file("input/README", "the disk's");
    store_file("input/" A "-D", same_size);
    store_file("input/README", "the store's");
    run();
    counts(1, 3, 0, 2, 0);
    cr_assert(disk_has("input/" A "-D") && disk_has("input/" A "-H") && disk_has("msglog/" A));
    cr_assert_not(store_has("input/" A "-H"), "half of a message");
    cr_assert_eq(lines, 2);
    run();
    counts(1, 3, 0, 2, 0);
    cr_assert_eq(lines, 2, "told once");
    disk_file("input/HOWTO", "the disk's");
    store_file("input/HOWTO", "the store's");
    run();
    cr_assert_eq(lines, 3);
}

static void said_last(const char *path, const char *why)
{
    char expected[PATH_MAX];

    snprintf(expected, sizeof(expected), "%s: view: %s stays on the disk: %s", fs->spool, path, why);
    cr_assert_str_eq(last_line, expected);
}

/* The line names the file that keeps its message there.  A pass after the operator has seen to it knows nothing of it.
 */
Test(import, conflict_ends)
{
    message("", "", C);
    run();
    disk_file("input/" C "-H", "changed");
    run();
    counts(1, 3, 0, 1, 0);
    said_last("input/" C "-H", "the store has another file of that name");
    disk_file("input/1", "the disk's");
    store_file("input/1", "the store's");
    run();
    counts(1, 3, 0, 2, 0);
    said_last("input/1", "the store has another file of that name");
    run();
    cr_assert_eq(lines, 2);
    cr_assert_eq(unlink(on_disk("input/" C "-H")), 0);
    cr_assert_eq(unlink(on_disk("input/1")), 0);
    run();
    counts(1, 3, 0, 0, 0);
    disk_file("input/1", "the disk's");
    run();
    cr_assert_eq(lines, 3, "it has come again");
}

/* As many lines as are remembered. */
Test(import, many_conflicts)
{
    char path[32];

    for (int i = 0; i < IMPORT_LINES + 9; i++) {
        snprintf(path, sizeof(path), "input/%d", i);
        disk_directory("input");
        disk_file(path, "the disk's");
        store_file(path, "the store's");
    }
    for (int i = 0; i < 2; i++) {
        run();
        counts(0, 0, 0, IMPORT_LINES + 9, 0);
        cr_assert_eq(lines, IMPORT_LINES);
    }
}

/* The store's message has gone on: the disk's has a file more, and stays. */
Test(import, conflict_of_a_live_message)
{
    message("", "", A);
    disk_file("input/" A "-J", "x@example.com\n");
    store_file("input/" A "-D", "input/" A "-D");
    store_file("input/" A "-H", "input/" A "-H");
    run();
    counts(0, 0, 0, 1, 0);
    said_last("input/" A "-J", "the store has its message without this file");
    cr_assert(disk_has("input/" A "-J") && !store_has("input/" A "-J"));
}

/* As if somebody had restored a backup of the disk. */
Test(import, same_content)
{
    message("", "", A);
    store_file("input/" A "-D", "input/" A "-D");
    store_file("input/" A "-H", "input/" A "-H");
    fastspool_mkdir(fs, "msglog", 0750);
    store_file("msglog/" A, "msglog/" A);
    run();
    counts(1, 3, 0, 0, 0);
    cr_assert_not(disk_has("input/" A "-D") || disk_has("input/" A "-H") || disk_has("msglog/" A));
}

Test(import, no_regular_files)
{
    message("", "", A);
    disk_file("secret", "secret");
    disk_directory("elsewhere");
    disk_file("elsewhere/" C "-D", "elsewhere");
    cr_assert_eq(symlink("../secret", on_disk("input/link")), 0);
    cr_assert_eq(symlink("../secret", on_disk("input/" B "-D")), 0);
    cr_assert_eq(symlink("../elsewhere", on_disk("input/9")), 0);
    cr_assert_eq(symlink("elsewhere", on_disk("Finput")), 0);
    cr_assert_eq(mkfifo(on_disk("input/fifo"), 0600), 0);
    disk_directory("input/8");
    disk_directory("input/8/deep");
    disk_file("input/8/deep/file", "deep");
    run();
    counts(1, 3, 0, 0, 6);
    cr_assert_eq(lines, 6);
    cr_assert(disk_has("input/fifo") && disk_has("input/link") && disk_has("input/8/deep/file"));
    cr_assert(disk_has("elsewhere/" C "-D") && !store_has("input/9") && !store_has("Finput"));
    cr_assert_not(store_has("input/link") || store_has("input/fifo") || store_has("input/" B "-D"));
}

/* Nothing of a message whose -D file can't be taken. */
Test(import, body_is_no_file)
{
    message("", "", A);
    cr_assert_eq(unlink(on_disk("input/" A "-D")), 0);
    cr_assert_eq(mkfifo(on_disk("input/" A "-D"), 0600), 0);
    run();
    counts(0, 0, 0, 0, 2); /* the file, and the message */
    cr_assert(disk_has("input/" A "-H") && disk_has("msglog/" A) && !store_has("input/" A "-H"));
}

/* The scan remembers a message once: of a million it would take 250 MB. */
Test(import, scan_is_small)
{
    static struct import_result none;
    struct import *im = calloc(1, sizeof(*im));
    char id[32];

    for (int i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "1abcde-%011d-ABCD", i);
        message("", "", id);
    }
    *im = (struct import){.fs = fs, .disk = fs->spool_fd, .result = &none};
    fastspool_act_for(&import_server);
    cr_assert_eq(scan_run(im), 0);
    fastspool_act_for(NULL);
    cr_assert_eq(im->found_count, 100);
    cr_assert_leq(im->text_size + im->found_count * sizeof(*im->found), 100 * 40);
    free(im->found);
    free(im->text);
    free(im);
}

/* A program that takes no lock changes a file while it is copied. */
static void append(void)
{
    int fd = open(on_disk("input/" A "-D"), O_WRONLY | O_APPEND);

    cr_assert_eq(write(fd, "more", 4), 4);
    close(fd);
}

static void touch(void)
{
    cr_assert_eq(utimensat(AT_FDCWD, on_disk("input/" A "-D"), NULL, 0), 0);
}

static void shorten(void)
{
    cr_assert_eq(truncate(on_disk("input/" A "-D"), 3), 0);
}

Test(import, changed_meanwhile)
{
    static char large[(64 << 10) + 2]; /* so that it is read after the first write */
    void (*const ways[])(void) = {append, touch, shorten};

    memset(large, 'x', sizeof(large) - 1);
    for (int i = 0; i < 3; i++) {
        message("", "", A);
        disk_file("input/" A "-D", large);
        meddle = ways[i];
        meddle_in = 2; /* the first one is of the -H file */
        run();
        counts(0, 0, 1, 0, 0);
        cr_assert(disk_has("input/" A "-H") && !store_has("input/" A "-D") && !store_has("input/" A "-H"));
    }
    run();
    counts(1, 3, 0, 0, 0);
}

/* ---- errors ---- */

static void nothing_moved(int code)
{
    flushes = 0;
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &result_of), code);
    cr_assert_neq(*result_of.error, '\0');
    counts(0, 0, 0, 0, 0);
    cr_assert(disk_has("input/" A "-D") && disk_has("input/" A "-H") && disk_has("msglog/" A));
    cr_assert_not(store_has("input/" A "-D") || store_has("input/" A "-H"));
}

Test(import, no_room)
{
    message("", "", A);
    write_error = -ENOSPC;
    nothing_moved(-ENOSPC);
    write_error = 0;
    run();
    counts(1, 3, 0, 0, 0);
    moved_whole("input/" A "-H");
}

/* A commit fails before the store is decided to have the batch. */
Test(import, no_commit)
{
    message("", "", A);
    flush_fails = 1;
    nothing_moved(-EIO);
    flush_fails = 0;
    run();
    moved_whole("input/" A "-H");
}

/* The disk's messages are back at once. */
Test(import, no_decision)
{
    message("", "", A);
    rename_error = -ENOSPC;
    nothing_moved(-ENOSPC);
    run();
    moved_whole("input/" A "-H");
}

/* It fails after that: only the next pass publishes. */
Test(import, no_second_commit)
{
    message("", "", A);
    flush_fails = 2;
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &result_of), -EIO);
    cr_assert_not(disk_has("input/" A "-H") || store_has("input/" A "-H"), "neither is found");
    flush_fails = 0;
    run();
    counts(1, 2, 0, 0, 0);
    moved_whole("input/" A "-D");
    moved_whole("input/" A "-H");
}

/* What has come in between: a file in the way, no directory. */
Test(import, changed_after_decision)
{
    message("", "", A);
    message("", "8/", B);
    flush_fails = 2;
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &result_of), -EIO);
    store_file("msglog/" A, "new");
    cr_assert_eq(fastspool_rmdir(fs, "input/8"), 0);
    run();
    moved_whole("input/" A "-H");
    moved_whole("input/8/" B "-H");
    cr_assert(store_has("msglog/" A) && store_has("msglog/" A PLACES_IMPORT) && !disk_has("msglog/" A));
    cr_assert_eq(lines, 1);
}

/* A published message's -H file and one of the same name: neither is touched. */
Test(import, two_headers)
{
    message("", "", A);
    cr_assert_eq(rename(on_disk("input/" A "-H"), on_disk("input/" PLACES_TAKEN A "-H")), 0);
    disk_file("input/" A "-H", "another");
    run();
    counts(0, 0, 0, 1, 0);
    cr_assert(disk_has("input/" A "-H") && disk_has("input/" A "-D") && disk_has("input/" PLACES_TAKEN A "-H"));
}

/* ---- death at every step ---- */

static void scene(void)
{
    message("", "", A);
    message("", "8/", B);
    disk_file("input/8/" B "-J", "input/8/" B "-J");
    disk_file("input/stray", "input/stray");
}

static const char *const headers[] = {"input/" A "-H", "input/8/" B "-H"};
static unsigned delivered[2];

static void path_of(const char *header, const char *suffix, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%.*s%s", (int)strlen(header) - 2, header, suffix);
}

/* Exim on the disk: what has -H and -D is delivered. */
static void deliver_on_disk(void)
{
    char data[PATH_MAX];

    for (int i = 0; i < 2; i++) {
        path_of(headers[i], "-D", data);
        if (!disk_has(headers[i]) || !disk_has(data))
            continue;
        delivered[i]++;
        unlink(on_disk(data));
        unlink(on_disk(headers[i]));
        unlink(on_disk(i ? "input/8/" B "-J" : "input/" A "-J"));
        unlink(on_disk(i ? "msglog/8/" B : "msglog/" A));
    }
}

/* Exim in the store: what has -H must have all the rest. */
static void deliver_in_store(void)
{
    char path[PATH_MAX];

    for (int i = 0; i < 2; i++) {
        if (!store_has(headers[i]))
            continue;
        delivered[i]++;
        cr_assert_eq(fastspool_unlink(fs, i ? "msglog/8/" B : "msglog/" A), 0, "half of a message");
        path_of(headers[i], "-D", path);
        cr_assert_eq(fastspool_unlink(fs, path), 0, "half of a message");
        cr_assert_eq(fastspool_unlink(fs, headers[i]), 0);
        path_of(headers[i], "-J", path);
        cr_assert_eq(fastspool_unlink(fs, path), i ? 0 : -ENOENT, "half of a message");
    }
}

enum { NOBODY, ON_DISK, IN_STORE, BOTH, DELIVERIES };

static bool killed_at(unsigned n)
{
    int status;

    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        struct import_result none = {0};
        fastspool_after_fork_child(fs);
        steps = 0;
        deadly = n;
        _exit(import_run(fs, fs->spool_fd, false, &none) == 0 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    cr_assert(WIFSIGNALED(status) || status == 0, "step %u: the import failed", n);
    cr_assert_geq(descriptions_reap(fs), 0);
    return WIFSIGNALED(status);
}

static const char *const directories[] = {"input", "input/8", "msglog", "msglog/8"};

/* After all deliveries: the store has the stray file alone. */
static void store_clean(unsigned n)
{
    struct fastspool_entry entries[8];
    ssize_t count;

    for (int i = 0; i < 4; i++) {
        int d = fastspool_open(fs, directories[i], O_RDONLY | O_DIRECTORY, 0);
        cr_assert_geq(count = fastspool_list(fs, d, 0, entries, 8), 0);
        fastspool_close(fs, d);
        for (ssize_t k = 0; k < count; k++)
            cr_assert(entries[k].type == DT_DIR || strcmp(entries[k].name, "stray") == 0, "step %u: %s/%s is left", n,
                      directories[i], entries[k].name);
    }
}

/* The import has left nothing on the disk. */
static void all_clean(unsigned n)
{
    for (int i = 0; i < 4; i++) {
        DIR *directory = opendir(on_disk(directories[i]));
        for (const struct dirent *entry; (entry = readdir(directory));)
            cr_assert(entry->d_name[0] == '.' ? strlen(entry->d_name) < 3 : entry->d_type == DT_DIR,
                      "step %u: %s is on the disk", n, entry->d_name);
        closedir(directory);
    }
}

/* The import has run to its end: all is well. */
static void all_well(unsigned n, bool untouched)
{
    all_clean(n);
    moved_whole("input/stray");
    for (int i = 0; untouched && i < 2; i++) {
        char path[PATH_MAX];
        moved_whole(headers[i]);
        path_of(headers[i], "-D", path);
        moved_whole(path);
        moved_whole(i ? "msglog/8/" B : "msglog/" A);
    }
    deliver_in_store();
    deliver_on_disk();
    cr_assert(delivered[0] == 1 && delivered[1] == 1, "step %u: delivered %u and %u times", n, delivered[0],
              delivered[1]);
    store_clean(n);
}

static void die_everywhere(int who, bool twice)
{
    bool dead = true;
    unsigned n;

    checking_every(0);
    for (n = 1; dead; n++) {
        fixture_teardown();
        fixture_setup();
        checking_every(0);
        memset(delivered, 0, sizeof(delivered));
        scene();
        dead = killed_at(n);
        if (twice)
            killed_at(n % 23 + 1);
        if (who == ON_DISK || who == BOTH)
            deliver_on_disk();
        if (who == IN_STORE || who == BOTH)
            deliver_in_store();
        run();
        all_well(n, who == NOBODY);
    }
    cr_assert_gt(n, 60, "only %u steps", n);
}

Test(import, killed)
{
    die_everywhere(NOBODY, false);
}

Test(import, killed_then_delivered_on_disk)
{
    die_everywhere(ON_DISK, false);
}

Test(import, killed_then_delivered_in_store)
{
    die_everywhere(IN_STORE, false);
}

Test(import, killed_then_delivered)
{
    die_everywhere(BOTH, false);
}

Test(import, killed_twice)
{
    die_everywhere(BOTH, true);
}

/* ---- power cuts at every step ---- */

static void save_disk(void)
{
    char command[512];

    snprintf(command, sizeof(command), "cd %s && rm -rf saved && cp -a spool saved", fixture_directory);
    cr_assert_eq(system(command), 0);
}

static void restore_disk(void)
{
    char command[512];

    snprintf(command, sizeof(command), "cd %s && rm -rf spool/* && cp -a saved/. spool", fixture_directory);
    cr_assert_eq(system(command), 0);
}

struct cut {
    bool loses;       /* what the disk has not synced */
    bool later;       /* the store goes on first: it delivers, and commits */
    bool refused;     /* the store refuses a batch, which goes back to the disk */
    bool interrupted; /* the import before this one has not got a commit after its decision */
};

/* True: the power failed at step @n.  The store is as its last commit, the disk as its last sync, or as it was. */
static bool power_fails_at(unsigned n, struct cut cut)
{
    struct import_result none = {0};
    volatile bool failed = true;

    commits = power_fails = true;
    synced = cut.loses ? save_disk : NULL;
    save_disk();
    flushes = 0;
    flush_fails = cut.interrupted ? 2 : 0;
    if (cut.interrupted)
        cr_assert_eq(import_run(fs, fs->spool_fd, false, &none), -EIO);
    steps = flush_fails = 0;
    deadly = n;
    rename_error = cut.refused ? -ENOSPC : 0;
    if (setjmp(power) == 0) {
        cr_assert_eq(import_run(fs, fs->spool_fd, false, &none), cut.refused ? -ENOSPC : 0);
        failed = false;
    }
    deadly = 0;
    rename_error = 0;
    commits = power_fails = false;
    synced = NULL;
    fastspool_act_for(NULL);
    if (cut.later) {
        deliver_in_store();
        commit(0);
    }
    if (!cut.loses)
        save_disk();
    restore_disk();
    return failed;
}

static void cut_everywhere(struct cut cut)
{
    bool failed = true;
    unsigned n;

    checking_every(0);
    for (n = 1; failed; n++) {
        durable_teardown();
        durable_setup();
        checking_every(0);
        memset(delivered, 0, sizeof(delivered));
        scene();
        failed = power_fails_at(n, cut);
        struct fastspool *before = fs, *second = second_store();
        struct recovered recovered;
        cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
        STORE(second->header->state, SEGMENT_READY);
        paging_all(second);
        fs = second;
        run();
        all_well(n, !cut.later);
        fs = before;
        remove_second(second);
    }
    cr_assert_gt(n, 30, "only %u steps", n);
}

TestSuite(import_power, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

Test(import_power, disk_keeps_all)
{
    cut_everywhere((struct cut){.loses = false});
    cut_everywhere((struct cut){.later = true});
}

Test(import_power, disk_loses_all)
{
    cut_everywhere((struct cut){.loses = true});
    cut_everywhere((struct cut){.loses = true, .later = true});
}

Test(import_power, refused)
{
    cut_everywhere((struct cut){.loses = true, .later = true, .refused = true});
}

Test(import_power, interrupted)
{
    cut_everywhere((struct cut){.interrupted = true});
    cut_everywhere((struct cut){.interrupted = true, .loses = true, .later = true});
}

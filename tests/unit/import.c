/* SPDX-License-Identifier: MIT
 *
 * The import of what lies on the disk: what one pass moves, what it leaves, and its errors.
 */
#include "import_play.h"
#include "plain/census.h"

#include <sys/resource.h>

TestSuite(import, .init = fixture_setup, .fini = fixture_teardown, .timeout = 120);

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
    run_all();
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
    run_all();
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
    run_all();
    cr_assert_eq(chmod(on_disk("input"), 02750), 0);
    if (geteuid() == 0)
        cr_assert_eq(chown(on_disk("input"), 107, 113), 0);
    cr_assert_eq(fastspool_chmod(fs, "input/8", 0710), 0);
    run_all();
    cr_assert_eq(fastspool_stat(fs, "input", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 02750);
    cr_assert(geteuid() != 0 || (st.st_uid == 107 && st.st_gid == 113));
    cr_assert_eq(fastspool_chmod(fs, "input", 0770), 0);
    run_all();
    cr_assert_eq(fastspool_stat(fs, "input", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0770);
    cr_assert_eq(fastspool_stat(fs, "input/8", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0710);
    cr_assert_eq(fastspool_stat(fs, "msglog", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0700, "the store's own was there first");
}

/* A queue whose directory can't be opened for now is not one that isn't there: the pass fails, and the next one has it.
 */
Test(import, queue_without_descriptors)
{
    const struct rlimit some = {1024, 4096};
    unsigned failed = 0;
    int result;

    disk_directory("q");
    message("q/", "", A);
    int next = dup(fs->spool_fd);
    close(next);
    for (rlim_t left = 0; left < 16 && !store_has("q/input/" A "-H"); left++) {
        const struct rlimit few = {(rlim_t)next + left, 4096};
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        result = import_run(fs, fs->spool_fd, false, &result_of);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &some), 0);
        cr_assert(result < 0 || result_of.left + result_of.locked > 0 || store_has("q/input/" A "-H"),
                  "with %u descriptors nothing is said of the queue", (unsigned)left);
        failed += result < 0;
    }
    cr_assert_geq(failed, 2);
    run_all();
    moved_as("q/input/" A "-H", "q/input/" A "-H");
}

static void fail_once(unsigned call)
{
    directory_fails = call;
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &result_of), -EIO);
    cr_assert_eq(directory_fails, 0);
}

/* A pass makes a directory in the store, or finds it changed, and the store takes neither owner nor mode: the next pass
 * makes that good.  The one after it leaves what the store has changed since. */
Test(import, directory_is_owed)
{
    const uid_t uid = geteuid() == 0 ? 107 : geteuid();
    struct stat st;

    disk_directory("input");
    for (unsigned call = 1; call <= 2; call++) { /* the chown, the chmod */
        for (int fresh = 1; fresh >= 0; fresh--) {
            const mode_t mode = fresh ? 02750 : 02770;
            if (fresh && call > 1)
                cr_assert_eq(fastspool_rmdir(fs, "input"), 0);
            cr_assert_eq(chown(on_disk("input"), fresh ? uid : geteuid(), (gid_t)-1), 0);
            cr_assert_eq(chmod(on_disk("input"), mode), 0);
            fail_once(call);
            run_all();
            cr_assert_eq(fastspool_stat(fs, "input", &st), 0);
            cr_assert_eq(st.st_mode, S_IFDIR | mode, "call %u, fresh %d: mode %o", call, fresh, st.st_mode);
            cr_assert_eq(st.st_uid, fresh ? uid : geteuid(), "call %u, fresh %d: uid %u", call, fresh, st.st_uid);
        }
    }
    cr_assert_eq(fastspool_chmod(fs, "input", 0700), 0);
    run_all();
    cr_assert_eq(fastspool_stat(fs, "input", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0700);
}

Test(import, large_and_empty)
{
    static char large[3 * (64 << 10) + 1];

    memset(large, 'x', sizeof(large) - 1);
    message("", "", A);
    disk_file("input/" A "-D", large);
    disk_file("input/none", "");
    disk_file("input/piece", large + 2 * (64 << 10));
    run_all();
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
    run_all();
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
    run_all();
    counts(2, 6, 1, 0, 0); /* both names of the -D file have one lock */
    run_all();
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
    run_all();
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
    run_all();
    counts(1, 3, 1, 0, 0);
    cr_assert(disk_has("input/" A "-D") && disk_has("input/" A "-H") && disk_has("msglog/" A));
    cr_assert_not(store_has("input/" A "-D"));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    run_all();
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
    run_all();
    counts(0, 0, 1, 0, 0);
    cr_assert_eq(utimensat(AT_FDCWD, on_disk("input/" A "-D"), old, 0), 0);
    run_all();
    counts(1, 1, 0, 0, 0);
}

/* Who has opened a -D file, and has not locked it yet, may find the message: it stays where he looks for it.  The
 * others of its batch go. */
Test(import, opened_before)
{
    message("", "", A);
    message("", "", B);
    int fd = open(on_disk("input/" A "-D"), O_RDWR);
    run_all();
    counts(1, 3, 1, 0, 0);
    cr_assert(disk_has("input/" A "-D") && disk_has("input/" A "-H") && disk_has("msglog/" A));
    cr_assert_not(store_has("input/" A "-D") || store_has("input/" A "-H"));
    moved_whole("input/" B "-H");
    close(fd);
    run_all();
    counts(2, 6, 0, 0, 0);
    moved_whole("input/" A "-H");
    moved_whole("input/" A "-D");
    cr_assert_not(disk_has("input/" PLACES_TAKEN A "-D"));
}

static int opened_late = -1;

static void close_late(void)
{
    close(opened_late);
}

/* It closes the file in time. */
Test(import, opened_shortly)
{
    message("", "", A);
    opened_late = open(on_disk("input/" A "-D"), O_RDWR);
    synced = close_late; /* after the names were taken */
    run_all();
    synced = NULL;
    counts(1, 3, 0, 0, 0);
    moved_whole("input/" A "-H");
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
    run_all();
    counts(1, 3, 0, 2, 0);
    cr_assert(disk_has("input/" A "-D") && disk_has("input/" A "-H") && disk_has("msglog/" A));
    cr_assert_not(store_has("input/" A "-H"), "half of a message");
    cr_assert_eq(lines, 2);
    run_all();
    counts(1, 3, 0, 2, 0);
    cr_assert_eq(lines, 2, "told once");
    disk_file("input/HOWTO", "the disk's");
    store_file("input/HOWTO", "the store's");
    run_all();
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
    run_all();
    disk_file("input/" C "-H", "changed");
    run_all();
    counts(1, 3, 0, 1, 0);
    said_last("input/" C "-H", "the store has another file of that name");
    disk_file("input/1", "the disk's");
    store_file("input/1", "the store's");
    run_all();
    counts(1, 3, 0, 2, 0);
    said_last("input/1", "the store has another file of that name");
    run_all();
    cr_assert_eq(lines, 2);
    cr_assert_eq(unlink(on_disk("input/" C "-H")), 0);
    cr_assert_eq(unlink(on_disk("input/1")), 0);
    run_all();
    counts(1, 3, 0, 0, 0);
    disk_file("input/1", "the disk's");
    run_all();
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
        run_all();
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
    run_all();
    counts(0, 0, 0, 1, 0);
    said_last("input/" A "-J", "the store has its message without this file");
    cr_assert(disk_has("input/" A "-J") && !store_has("input/" A "-J"));
}

/* As if somebody had restored a backup of the disk. */
Test(import, same_content)
{
    struct census census;

    message("", "", A);
    store_file("input/" A "-D", "input/" A "-D");
    store_file("input/" A "-H", "input/" A "-H");
    fastspool_mkdir(fs, "msglog", 0750);
    store_file("msglog/" A, "msglog/" A);
    census_take(&census, fs, false);
    cr_assert(census.store == 1 && census.disk == 0 && census.half == 0 && census.remains == 1, "it counts once");
    run_all();
    counts(0, 0, 0, 0, 0); /* it was moved before */
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
    run_all();
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
    run_all();
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
        run_all();
        counts(0, 0, 1, 0, 0);
        cr_assert(disk_has("input/" A "-H") && !store_has("input/" A "-D") && !store_has("input/" A "-H"));
    }
    run_all();
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
    cr_assert_not(disk_has(PLACES_TAKEN "here"), "nothing is staged, and the mark is left");
}

Test(import, no_room)
{
    message("", "", A);
    write_error = -ENOSPC;
    nothing_moved(-ENOSPC);
    write_error = 0;
    run_all();
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
    run_all();
    moved_whole("input/" A "-H");
}

/* The disk's messages are back at once. */
Test(import, no_decision)
{
    message("", "", A);
    rename_error = -ENOSPC;
    nothing_moved(-ENOSPC);
    run_all();
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
    run_all();
    counts(1, 3, 0, 0, 0);
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
    run_all();
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
    run_all();
    counts(0, 0, 0, 1, 0);
    cr_assert(disk_has("input/" A "-H") && disk_has("input/" A "-D") && disk_has("input/" PLACES_TAKEN A "-H"));
}

/* ---- asked to end, and telling ---- */

/* What stays is told: what a process works on, what the store has with another content, and what is no file. */
Test(import, tells_what_stays)
{
    message("", "", A);
    message("", "", B);
    store_file("input/" B "-H", "another");
    cr_assert_eq(mkfifo(on_disk("input/fifo"), 0600), 0);
    pid_t pid = hold_lock("input/" A "-D", 19);
    result_of.tell = note_told;
    run_all();
    counts(0, 0, 1, 1, 1);
    cr_assert(strstr(told, "input/" A "-D: a process works on it;"), "%s", told);
    cr_assert(strstr(told, "input/" B "-H: the store has another file of that name;"), "%s", told);
    cr_assert(strstr(told, "input/fifo: no regular file;"), "%s", told);
    cr_assert_eq(lines, 0, "syslog has it, too");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* A pass that is asked to end, wherever it is, leaves nothing half done: each message is in one place, and the next
 * pass has the rest. */
Test(import, asked_to_end)
{
    unsigned when, moved = 0;
    int result = -ECANCELED;

    result_of.ended = has_ended;
    for (when = 0; result < 0; when++) {
        const char *const ids[] = {A, B, C};
        for (size_t i = 0; i < 3; i++)
            message("", "", ids[i]);
        asked = when;
        result = import_run(fs, fs->spool_fd, false, &result_of);
        cr_assert(result == 0 || result == -ECANCELED, "%d", result);
        cr_assert_not(store_has(PLACES_IMPORT), "something is half done");
        for (size_t i = 0; i < 3; i++) {
            char header[64];
            snprintf(header, sizeof(header), "input/%s-H", ids[i]);
            cr_assert_neq(disk_has(header), store_has(header), "when asked after %u: %s", when, header);
            moved += store_has(header);
        }
        asked = 100;
        run_all();
        cr_assert(store_has("input/" A "-H") && store_has("input/" B "-H") && store_has("input/" C "-H"));
        for (size_t i = 0; i < 3; i++) {
            char path[64];
            snprintf(path, sizeof(path), "msglog/%s", ids[i]);
            fastspool_unlink(fs, path);
            snprintf(path, sizeof(path), "input/%s-H", ids[i]);
            fastspool_unlink(fs, path);
            snprintf(path, sizeof(path), "input/%s-D", ids[i]);
            fastspool_unlink(fs, path);
        }
    }
    cr_assert(when == 4 && moved == 0 + 1 + 2 + 3, "%u times, %u moved", when, moved);
}

/* SPDX-License-Identifier: MIT
 *
 * The export: what moves to the disk, and what stays in the store, and why.
 */
#include "export_play.h"

TestSuite(export, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* Has the disk a copy of any export in @directory? */
static bool has_copies(const char *directory)
{
    DIR *dir = opendir(on_disk(directory));
    bool has = false;

    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        has = has || places_of_copy(entry->d_name);
    if (dir)
        closedir(dir);
    return has;
}

/* Messages of all queues, split or not, and what belongs to none, with content, mode, owner and times. */
Test(export, everything)
{
    message("", "", A);
    message("", "8/", B);
    store_directory("slow");
    message("slow/", "", C);
    store_file("input/8/" B "-J");
    store_directory("msglog.OLD");
    store_file("msglog.OLD/" A);
    store_file("input/stray");
    store_directory("input/e");
    mkdir(on_disk("msglog"), 0700); /* Exim has changed the store's since */
    run_all();
    counts(3, 12, 0, 0, 0);
    for (const char *const *path =
             (const char *const[]){"input/" A "-H", "input/" A "-D", "msglog/" A, "input/8/" B "-H", "input/8/" B "-D",
                                   "input/8/" B "-J", "msglog/8/" B, "slow/input/" C "-H", "slow/input/" C "-D",
                                   "slow/msglog/" C, "msglog.OLD/" A, "input/stray", NULL};
         *path; path++)
        moved_whole(*path);
    for (int i = 0; i < 2; i++) {
        struct stat st;
        cr_assert_eq(lstat(on_disk(i ? "input/e" : "msglog"), &st), 0);
        cr_assert_eq(st.st_mode, S_IFDIR | 0750);
        cr_assert(geteuid() != 0 || (st.st_uid == 107 && st.st_gid == 113));
    }
}

/* Another process has @path open, with Exim's lock if it is @locked, until end_other(). */
static pid_t begin_other(const char *path, bool locked, int go[2])
{
    int ready[2];
    char byte;

    cr_assert(pipe(ready) == 0 && pipe(go) == 0);
    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        close(go[1]); /* the test's death ends it */
        struct flock head = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};
        fastspool_after_fork_child(fs);
        int d = fastspool_open(fs, path, O_RDWR, 0);
        if (locked && fastspool_lock(fs, d, F_SETLK, &head) < 0)
            _exit(1);
        _exit(write(ready[1], "", 1) != 1 || read(go[0], &byte, 1) != 1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    return pid;
}

static void end_other(pid_t pid, const int go[2])
{
    cr_assert_eq(write(go[1], "", 1), 1);
    waitpid(pid, NULL, 0);
    descriptions_reap(fs);
}

/* Another process holds a message's lock, or has its -D file open and may be about to take it. */
static void stays(bool locked)
{
    int go[2];

    message("", "", A);
    message("", "", B);
    pid_t pid = begin_other("input/" A "-D", locked, go);
    run_all();
    counts(1, 3, 1, 0, 0);
    cr_assert(store_has("input/" A "-H") && store_has("input/" A "-D") && store_has("msglog/" A));
    cr_assert_not(disk_has("input/" A "-H") || has_copies("input"));
    moved_whole("input/" B "-H");
    end_other(pid, go);
    run_all();
    moved_whole("input/" A "-H");
}

Test(export, locked)
{
    stays(true);
}

Test(export, opened)
{
    stays(false);
}

/* ---- asked to end, and telling ---- */

/* What stays is told: what a process works on, locked or only open, and what the disk has with another content. */
Test(export, tells_what_stays)
{
    int go[2];

    mkdir(on_disk("input"), 0750);
    result_of.tell = note_told;
    for (int locked = 0; locked < 2; locked++) {
        message("", "", A);
        message("", "", B);
        disk_file("input/" B "-H", "another");
        told[0] = '\0';
        pid_t pid = begin_other("input/" A "-D", locked, go);
        run_all();
        cr_assert(strstr(told, "input/" A "-"), "%s", told);
        cr_assert(strstr(told, ": a process works on it;"), "%s", told);
        cr_assert(strstr(told, "input/" B "-"), "%s", told);
        cr_assert(strstr(told, ": the disk has another file of that name;"), "%s", told);
        end_other(pid, go);
        unlink(on_disk("input/" B "-H"));
        run_all();
        for (const char *const *path = (const char *const[]){"input/" A "-D", "input/" A "-H", "input/" B "-D",
                                                             "input/" B "-H", "msglog/" A, "msglog/" B, NULL};
             *path; path++)
            cr_assert_eq(unlink(on_disk(*path)), 0, "%s", *path);
    }
}

/* An export that is asked to end, wherever it is, leaves nothing half done: each message is in one place, and the next
 * one has the rest. */
Test(export, asked_to_end)
{
    const char *const ids[] = {A, B, C};
    char header[64];
    bool partly = false;
    int result = -ECANCELED;

    result_of.ended = has_ended;
    for (unsigned when = 0; result < 0; when++) {
        unsigned moved = 0;
        for (size_t i = 0; i < 3; i++)
            message("", "", ids[i]);
        asked = when;
        result = export_run(fs, fs->spool_fd, NULL, &result_of);
        cr_assert(result == 0 || result == -ECANCELED, "%d: %s", result, result_of.error);
        cr_assert_not(store_has(PLACES_EXPORT), "something is half done");
        for (size_t i = 0; i < 3; i++) {
            snprintf(header, sizeof(header), "input/%s-H", ids[i]);
            cr_assert_neq(disk_has(header), store_has(header), "when asked after %u: %s", when, header);
            moved += disk_has(header);
        }
        partly = partly || (moved > 0 && moved < 3);
        asked = 100;
        run_all();
        for (size_t i = 0; i < 3; i++) {
            snprintf(header, sizeof(header), "input/%s-H", ids[i]);
            cr_assert_eq(unlink(on_disk(header)), 0);
            snprintf(header, sizeof(header), "input/%s-D", ids[i]);
            cr_assert_eq(unlink(on_disk(header)), 0);
            snprintf(header, sizeof(header), "msglog/%s", ids[i]);
            cr_assert_eq(unlink(on_disk(header)), 0);
        }
    }
    cr_assert(partly, "it has never ended between two messages");
}

/* A killed export has left in the tree what a process keeps open, be it a message or not: the sentence says what. */
static void left_open(const char *path)
{
    char in_tree[PATH_MAX], expected[PATH_MAX];
    int go[2];

    message("", "", A);
    store_file("input/stray");
    for (const char *const *directory = (const char *const[]){PLACES_EXPORT, TREE, TREE "/input", NULL}; *directory;
         directory++)
        store_directory(*directory);
    export_tree_path(path, in_tree);
    cr_assert_eq(fastspool_rename(fs, path, in_tree, 0), 0);
    pid_t pid = begin_other(in_tree, false, go);
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), -EBUSY);
    snprintf(expected, sizeof(expected), "a process keeps %s open", path);
    cr_assert_eq(strncmp(result_of.error, expected, strlen(expected)), 0, "%s", result_of.error);
    end_other(pid, go);
    run_all();
}

Test(export, message_left_open)
{
    left_open("input/" A "-D");
}

Test(export, file_left_open)
{
    left_open("input/stray");
}

/* The disk has another message of that name: it stays.  With the same content the store's is removed. */
Test(export, on_the_disk_before)
{
    message("", "", A);
    message("", "", B);
    cr_assert(mkdir(on_disk("input"), 0750) == 0);
    disk_file("input/" A "-H", "another");
    disk_file("input/" B "-H", "input/" B "-H");
    run_all();
    counts(1, 3, 0, 1, 0);
    cr_assert(store_has("input/" A "-H") && store_has("input/" A "-D") && !disk_has("input/" A "-D"));
    cr_assert(!store_has("input/" B "-H") && !store_has("input/" B "-D") && disk_has("input/" B "-D"));
}

/* The disk is full: everything is in the store as before. */
Test(export, full)
{
    message("", "", A);
    copy_error = -ENOSPC;
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), -ENOSPC);
    cr_assert(strstr(result_of.error, "cannot copy input/" A "-D: No space left on device"), "%s", result_of.error);
    cr_assert(store_has("input/" A "-H") && !disk_has("input/" A "-D") && !has_copies("input"));
    run_all();
    moved_whole("input/" A "-H");
}

/* So it is when the decision can't be committed, or what is before the first copy. */
Test(export, commit_fails)
{
    for (unsigned flush = 1; flush <= 2; flush++) {
        message("", "", A);
        flushes = 0;
        flush_fails = flush;
        cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), -EIO);
        cr_assert(store_has("input/" A "-H") && store_has("input/" A "-D") && !has_copies("input"));
        cr_assert_not(store_has(PLACES_EXPORT "/tree/input/" A "-H"));
        run_all();
        moved_whole("input/" A "-H");
        cr_assert(unlink(on_disk("input/" A "-H")) == 0 && unlink(on_disk("input/" A "-D")) == 0 &&
                  unlink(on_disk("msglog/" A)) == 0);
    }
}

/* Another store's export to the same directory, running or killed: what is missing would count as shown there. */
Test(export, copies_of_another_store_stay)
{
    const char copy[] = "input/" PLACES_COPIED "0123456789abcdef." A "-H";

    message("", "", B);
    cr_assert(mkdir(on_disk("input"), 0750) == 0);
    disk_file(copy, "header");
    run_all();
    moved_whole("input/" B "-H");
    cr_assert(disk_has(copy));
}

/* An earlier version's export was killed when it had decided: its copies have no number. */
Test(export, killed_earlier_version)
{
    message("", "", A);
    for (const char *const *directory = (const char *const[]){PLACES_EXPORT, TREE, TREE "/input", NULL}; *directory;
         directory++)
        store_directory(*directory);
    int d = fastspool_open(fs, TARGET, O_WRONLY | O_CREAT, 0600);
    cr_assert_eq(fastspool_write(fs, d, OWN, 1), 1);
    fastspool_close(fs, d);
    cr_assert(mkdir(on_disk("input"), 0750) == 0);
    for (const char *const *name = (const char *const[]){A "-H", A "-D", NULL}; *name; name++) {
        char path[64], to[128];
        snprintf(path, sizeof(path), "input/%s", *name);
        snprintf(to, sizeof(to), TREE "/%s", path);
        cr_assert_eq(fastspool_rename(fs, path, to, 0), 0);
        snprintf(to, sizeof(to), "input/" PLACES_COPIED "%s", *name);
        disk_file(to, path);
    }
    run_all();
    cr_assert(disk_has("input/" A "-H") && disk_has("input/" A "-D") && !store_has("input/" A "-H"));
    cr_assert_not(has_copies("input"));
}

static void write_more(void)
{
    int d = fastspool_open(fs, "input/stray", O_WRONLY | O_APPEND, 0);

    cr_assert_eq(fastspool_write(fs, d, "more", 4), 4);
    fastspool_close(fs, d);
}

/* A file changes after it was copied: the next export takes it, whole. */
Test(export, changes)
{
    struct stat st;

    store_directory("input");
    store_file("input/stray");
    meddle = write_more;
    run_all();
    cr_assert(store_has("input/stray") && !disk_has("input/stray"));
    run_all();
    cr_assert(!store_has("input/stray") && lstat(on_disk("input/stray"), &st) == 0);
    cr_assert_eq(st.st_size, (off_t)strlen("input/stray") + 4);
}

/* Files of a message without a -D file come last, and come. */
Test(export, without_data)
{
    message("", "", A);
    cr_assert_eq(fastspool_unlink(fs, "input/" A "-D"), 0);
    run_all();
    counts(0, 2, 0, 0, 0);
    moved_whole("input/" A "-H");
    moved_whole("msglog/" A);
}

struct target {
    int directory;
    const char *to;
};

static int export_once(const void *argument)
{
    const struct target *target = argument;
    return export_run(fs, target->directory, target->to, &result_of);
}

/* An export to @to, the directory @other, is killed before its step @n. */
static void die_at(unsigned n, int other, const char *to)
{
    const struct target target = {other, to};
    cr_assert(WIFSIGNALED(die_before(n, export_once, &target)));
}

/* The same in the midst of a decision. */
static void die_deciding(int other, const char *to)
{
    for (unsigned n = 10; !store_has(PLACES_EXPORT "/tree/input/" A "-H"); n++)
        die_at(n, other, to);
    cr_assert(store_has("input/" A "-D"));
}

/* Another spool is the target.  One that was interrupted has to be finished before the next one begins. */
Test(export, elsewhere)
{
    message("", "", A);
    mkdir(on_disk("other"), 0700);
    int other = open(on_disk("other"), O_RDONLY | O_DIRECTORY);
    die_deciding(other, "/other");
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), -EXDEV);
    cr_assert(strstr(result_of.error,
                     "as a file says that the mail user can write: finish it first, with `fastspool export "
                     "/other`"),
              "%s", result_of.error);
    char copied[PLACES_COPIED_MAX] = "some";
    cr_assert(export_finish(fs, fs->spool_fd, &result_of, copied) == 0 && !*copied);
    cr_assert(store_has(PLACES_EXPORT "/tree/input/" A "-H"));
    cr_assert_eq(export_run(fs, other, "/other", &result_of), 0, "%s", result_of.error);
    cr_assert(disk_has("other/input/" A "-H") && disk_has("other/input/" A "-D") && disk_has("other/msglog/" A));
    cr_assert_not(store_has(PLACES_EXPORT) || store_has("input/" A "-D") || store_has("msglog/" A));
    close(other);
}

/* One that could not commit its decision, or was killed after it had given back what it had taken, leaves no message
 * half moved: it is nothing to be finished, where its directory is not there any more either. */
Test(export, elsewhere_without_a_message)
{
    message("", "", A);
    mkdir(on_disk("other"), 0700);
    int other = open(on_disk("other"), O_RDONLY | O_DIRECTORY);
    flush_fails = 2;
    cr_assert_eq(export_run(fs, other, "/other", &result_of), -EIO);
    cr_assert_not(store_has(TREE));
    store_directory(TREE);
    store_directory(TREE "/input");
    run_all();
    moved_whole("input/" A "-H");
    close(other);
}

/* What a killed export has decided goes on in the directory that it went to, and in no other one at its path, as where
 * that one's file system is not mounted: there all would count as shown and delivered. */
Test(export, elsewhere_is_not_there)
{
    message("", "", A);
    mkdir(on_disk("other"), 0700);
    int other = open(on_disk("other"), O_RDONLY | O_DIRECTORY);
    die_deciding(other, "/other");
    cr_assert_eq(rename(on_disk("other"), on_disk("away")), 0);
    mkdir(on_disk("other"), 0700);
    int empty = open(on_disk("other"), O_RDONLY | O_DIRECTORY);
    cr_assert_eq(export_run(fs, empty, "/other", &result_of), -EXDEV);
    cr_assert(strstr(result_of.error, "mount its file system"), "%s", result_of.error);
    cr_assert(store_has(PLACES_EXPORT "/tree/input/" A "-H"));
    cr_assert_eq(export_run(fs, other, "/other", &result_of), 0, "%s", result_of.error);
    cr_assert(disk_has("away/input/" A "-H") && disk_has("away/input/" A "-D") && disk_has("away/msglog/" A));
    cr_assert_not(store_has(PLACES_EXPORT) || has_copies("away") || has_copies("other"));
    close(empty);
    close(other);
}

/* The same where it had begun before on the one that comes back, and had decided nothing there: that one is marked,
 * too. */
Test(export, elsewhere_has_come_back)
{
    message("", "", A);
    mkdir(on_disk("other"), 0700);
    int other = open(on_disk("other"), O_RDONLY | O_DIRECTORY);
    for (unsigned n = 1; !has_copies("other/input"); n++)
        die_at(n, other, "/other");
    cr_assert_not(store_has(TREE));
    cr_assert_eq(rename(on_disk("other"), on_disk("away")), 0);
    mkdir(on_disk("other"), 0700);
    int empty = open(on_disk("other"), O_RDONLY | O_DIRECTORY);
    die_deciding(empty, "/other");
    cr_assert_eq(export_run(fs, other, "/other", &result_of), -EXDEV, "%s", result_of.error);
    cr_assert(store_has(PLACES_EXPORT "/tree/input/" A "-H"));
    cr_assert_eq(export_run(fs, empty, "/other", &result_of), 0, "%s", result_of.error);
    cr_assert(disk_has("other/input/" A "-H") && disk_has("other/input/" A "-D") && disk_has("other/msglog/" A));
    close(empty);
    close(other);
}

/* The same of the spool's own directory, for an import, which goes on with that export: it says so. */
Test(export, own_is_not_there)
{
    struct import_result none = {0};

    message("", "", A);
    die_deciding(fs->spool_fd, NULL);
    mkdir(on_disk("empty"), 0700);
    int empty = open(on_disk("empty"), O_RDONLY | O_DIRECTORY);
    cr_assert_eq(import_run(fs, empty, false, &none), -EXDEV);
    cr_assert(strstr(none.error, "mount its file system"), "%s", none.error);
    cr_assert(store_has(PLACES_EXPORT "/tree/input/" A "-H"));
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), 0, "%s", result_of.error);
    cr_assert(disk_has("input/" A "-H") && disk_has("input/" A "-D") && disk_has("msglog/" A));
    cr_assert_not(store_has(PLACES_EXPORT) || has_copies(".") || has_copies("empty"));
    close(empty);
}

/* What a killed import has left on the disk stands for a message of the store: it would take the exported one away. */
Test(export, interrupted_import)
{
    message("", "", A);
    mkdir(on_disk("input"), 0750);
    disk_file("input/" PLACES_TAKEN A "-H", "");
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), -EUCLEAN);
    cr_assert(strstr(result_of.error, "run `fastspool import` first"), "%s", result_of.error);
    cr_assert(store_has("input/" A "-H"));
}

/* Another export, until @go is written to, or for @time.  @ends: it comes to its end then. */
static pid_t begin_export(int go[2], uint64_t time, bool ends)
{
    char byte;
    int ready[2];

    cr_assert(pipe(ready) == 0 && pipe(go) == 0);
    fastspool_mkdir(fs, PLACES_EXPORT, 0700);
    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        close(go[1]);
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        fastspool_after_fork_child(fs);
        int d = fastspool_open(fs, TARGET, O_RDWR | O_CREAT, 0600);
        if (fastspool_lock(fs, d, F_SETLK, &whole) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        clock_sleep(time);
        if (ends)
            fastspool_unlink(fs, TARGET);
        _exit(time == 0 && read(go[0], &byte, 1) != 1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    return pid;
}

/* One at a time. */
Test(export, second)
{
    int go[2];

    message("", "", A);
    pid_t pid = begin_export(go, 0, false);
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), -EBUSY);
    cr_assert(strstr(result_of.error, "another export"), "%s", result_of.error);
    cr_assert(store_has("input/" A "-H"));
    cr_assert_eq(write(go[1], "", 1), 1);
    waitpid(pid, NULL, 0);
}

/* An import has nothing to do with one to another directory, and does not wait for it. */
Test(export, second_elsewhere)
{
    char copied[PLACES_COPIED_MAX];
    int go[2];

    pid_t pid = begin_export(go, 0, false);
    int d = fastspool_open(fs, TARGET, O_WRONLY, 0);
    cr_assert_eq(fastspool_write(fs, d, "/other", 6), 6);
    fastspool_close(fs, d);
    fastspool_mkdir(fs, TREE, 0700);
    cr_assert_eq(export_finish(fs, fs->spool_fd, &result_of, copied), 0, "%s", result_of.error);
    cr_assert_eq(write(go[1], "", 1), 1);
    waitpid(pid, NULL, 0);
}

/* One that was killed, and is in an fsync still, is waited for. */
Test(export, second_waits)
{
    int go[2];

    message("", "", A);
    pid_t pid = begin_export(go, NS_PER_S / 5, false);
    run_all();
    moved_whole("input/" A "-H");
    waitpid(pid, NULL, 0);
}

static bool noted;

static void look_for_note(void)
{
    noted = store_has(TARGET);
}

/* Who has waited for one that came to its end has not the file whose lock keeps others away, and which says where the
 * tree belongs: that one was removed. */
Test(export, second_begins)
{
    int go[2];

    message("", "", A);
    pid_t pid = begin_export(go, NS_PER_S / 5, true);
    meddle = look_for_note;
    run_all();
    cr_assert(noted, "nothing says where the tree belongs");
    moved_whole("input/" A "-H");
    waitpid(pid, NULL, 0);
}

/* SPDX-License-Identifier: MIT
 *
 * The death of an import.  A process is killed before each call that changes or asks disk or store, an Exim delivers
 * what it finds then, on the disk or in the store, and the import runs again: every message is delivered once.  The
 * same with a power cut there, which takes all or nothing of what the disk has not synced.
 */
#include "import_play.h"

#include "dying.h"

TestSuite(import_deaths, .init = fixture_setup, .fini = fixture_teardown, .timeout = 600);

/* ---- death at every step ---- */

static int move(void)
{
    struct import_result none = {0};

    return import_run(fs, fs->spool_fd, false, &none);
}

static void scene(void)
{
    message("", "", A);
    message("", "8/", B);
    disk_file("input/8/" B "-J", "input/8/" B "-J");
    disk_file("input/stray", "input/stray");
}

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
    cr_assert_not(disk_has(PLACES_TAKEN "here"), "step %u: the mark is left", n);
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
    delivered_once(n);
    store_clean(n);
}

Test(import_deaths, killed)
{
    die_everywhere(NOBODY, false);
}

Test(import_deaths, killed_then_delivered_on_disk)
{
    die_everywhere(ON_DISK, false);
}

Test(import_deaths, killed_then_delivered_in_store)
{
    die_everywhere(IN_STORE, false);
}

Test(import_deaths, killed_then_delivered)
{
    die_everywhere(BOTH, false);
}

Test(import_deaths, killed_twice)
{
    die_everywhere(BOTH, true);
}

/* Another one comes where the spool's disk is not mounted: it finds an empty directory. */
Test(import_deaths, killed_then_not_mounted)
{
    bool dead = true;

    for (unsigned n = 1; dead; n++) {
        struct import_result none = {0};
        begin_again();
        dead = killed_at(n);
        mkdir(on_disk("empty"), 0700);
        int empty = open(on_disk("empty"), O_RDONLY | O_DIRECTORY);
        int result = import_run(fs, empty, false, &none);
        cr_assert(result == 0 || (result == -EXDEV && strstr(none.error, "mount its file system")), "%s", none.error);
        close(empty);
        run_all();
        all_well(n, true);
    }
}

/* A process has opened a message's -D file, and locks it only after the import, whenever that one is killed.  What it
 * finds by its -H file then, in the store or on the disk, it delivers. */
static void open_everywhere(int who)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};
    bool dead = true;
    unsigned n;

    checking_every(0);
    for (n = 1; dead; n++) {
        begin_again();
        int fd = open(on_disk("input/" A "-D"), O_RDWR);
        cr_assert_geq(fd, 0);
        dead = killed_at(n);
        deliver(who);
        run_all();
        cr_assert_not(store_has(headers[0]), "step %u: a process has it open, and the store has it", n);
        cr_assert_eq(result_of.locked, who == NOBODY || delivered[0] == 0, "step %u", n);
        cr_assert_eq(fcntl(fd, F_SETLK, &lock), 0, "step %u: the lock is held still", n);
        deliver_on_disk();
        close(fd);
        run_all();
        all_well(n, false);
    }
    cr_assert_gt(n, 60, "only %u steps", n);
}

Test(import_deaths, killed_while_open)
{
    open_everywhere(NOBODY);
}

Test(import_deaths, killed_while_open_then_delivered)
{
    open_everywhere(BOTH);
}

/* ---- power cuts at every step ---- */

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

TestSuite(import_power, .init = durable_setup, .fini = durable_teardown, .timeout = 600);

Test(import_power, disk_keeps_all)
{
    cut_everywhere((struct cut){.loses = false}, 1);
    cut_everywhere((struct cut){.later = true}, 1);
}

Test(import_power, disk_loses_all)
{
    cut_everywhere((struct cut){.loses = true}, 1);
    cut_everywhere((struct cut){.loses = true, .later = true}, 1);
}

Test(import_power, refused)
{
    cut_everywhere((struct cut){.loses = true, .later = true, .refused = true}, 1);
}

Test(import_power, interrupted)
{
    cut_everywhere((struct cut){.interrupted = true}, 1);
    cut_everywhere((struct cut){.interrupted = true, .loses = true, .later = true}, 1);
}

/* A refused batch is in the last commit still, and its messages are delivered on the disk: the next pass has nothing to
 * stage, and the power fails after it.  What comes back is not without its mark. */
Test(import_power, nothing_to_stage)
{
    struct import_result none = {0};
    struct recovered recovered;

    message("", "", A);
    commits = true;
    rename_error = -ENOSPC;
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &none), -ENOSPC);
    cr_assert(unlink(on_disk("input/" A "-D")) == 0 && unlink(on_disk("input/" A "-H")) == 0 &&
              unlink(on_disk("msglog/" A)) == 0);
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &none), 0, "%s", none.error);
    commits = false;
    struct fastspool *before = fs, *second = second_store();
    cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
    STORE(second->header->state, SEGMENT_READY);
    fs = second;
    run_all();
    cr_assert_not(store_has("input/" A "-H"));
    fs = before;
    remove_second(second);
}

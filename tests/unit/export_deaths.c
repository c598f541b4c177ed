/* SPDX-License-Identifier: MIT
 *
 * The death of an export.  A process is killed before each call that changes or asks store or disk, an Exim delivers
 * what it finds then, in the store or on the disk, and the export runs again: every message is delivered once.  The
 * same with a power cut there, which takes all or nothing of what the disk has not synced; and where an import follows
 * instead.
 */
#include "export_play.h"

#include "dying.h"

TestSuite(export_deaths, .init = fixture_setup, .fini = fixture_teardown, .timeout = 600);

/* ---- death at every step ---- */

static int move(void)
{
    struct export_result none = {0};

    return export_run(fs, fs->spool_fd, NULL, &none);
}

static void scene(void)
{
    message("", "", A);
    message("", "8/", B);
    store_file("input/8/" B "-J");
    store_file("input/stray");
}

static const char *const rest[][3] = {{"input/" A "-D", "msglog/" A, NULL},
                                      {"input/8/" B "-D", "msglog/8/" B, "input/8/" B "-J"}};

/* Exim in the store: what has -H and -D is delivered. */
static void deliver_in_store(void)
{
    for (int i = 0; i < 2; i++) {
        if (!store_has(headers[i]) || !store_has(rest[i][0]))
            continue;
        delivered[i]++;
        for (int k = 0; k < 3; k++)
            cr_assert(!rest[i][k] || fastspool_unlink(fs, rest[i][k]) == 0, "half of a message");
        cr_assert_eq(fastspool_unlink(fs, headers[i]), 0);
    }
}

/* Exim on the disk: what has -H must have all the rest. */
static void deliver_on_disk(void)
{
    for (int i = 0; i < 2; i++) {
        if (!disk_has(headers[i]))
            continue;
        delivered[i]++;
        for (int k = 0; k < 3; k++)
            cr_assert(!rest[i][k] || unlink(on_disk(rest[i][k])) == 0, "half of a message");
        cr_assert_eq(unlink(on_disk(headers[i])), 0);
    }
}

/* After all deliveries: the disk has the stray file alone, and the store has nothing. */
static void all_clean(unsigned n, bool exported)
{
    struct fastspool_entry entries[8];

    for (int i = 0; i < 4; i++) {
        DIR *directory = opendir(on_disk(directories[i]));
        for (const struct dirent *entry; directory && (entry = readdir(directory));)
            cr_assert(entry->d_name[0] == '.'
                          ? strlen(entry->d_name) < 3
                          : entry->d_type == DT_DIR || (exported && strcmp(entry->d_name, "stray") == 0),
                      "step %u: %s is on the disk", n, entry->d_name);
        if (directory)
            closedir(directory);
        int d = fastspool_open(fs, directories[i], O_RDONLY | O_DIRECTORY, 0);
        ssize_t count = fastspool_list(fs, d, 0, entries, 8);
        fastspool_close(fs, d);
        for (ssize_t k = 0; k < count; k++)
            cr_assert(entries[k].type == DT_DIR || (!exported && strcmp(entries[k].name, "stray") == 0),
                      "step %u: %s/%s is left", n, directories[i], entries[k].name);
    }
    DIR *directory = opendir(on_disk("."));
    for (const struct dirent *entry; (entry = readdir(directory));)
        cr_assert_neq(strncmp(entry->d_name, PLACES_COPIED, strlen(PLACES_COPIED)), 0, "step %u: %s is left", n,
                      entry->d_name);
    closedir(directory);
    cr_assert_not(store_has(PLACES_EXPORT), "step %u", n);
}

/* The export has run to its end: all is well. */
static void all_well(unsigned n, bool untouched)
{
    moved_whole("input/stray");
    for (int i = 0; untouched && i < 2; i++) {
        moved_whole(headers[i]);
        for (int k = 0; k < 3; k++) {
            if (rest[i][k])
                moved_whole(rest[i][k]);
        }
    }
    deliver_on_disk();
    deliver_in_store();
    delivered_once(n);
    all_clean(n, true);
}

Test(export_deaths, killed)
{
    die_everywhere(NOBODY, false);
}

Test(export_deaths, killed_then_delivered_on_disk)
{
    die_everywhere(ON_DISK, false);
}

Test(export_deaths, killed_then_delivered_in_store)
{
    die_everywhere(IN_STORE, false);
}

Test(export_deaths, killed_then_delivered)
{
    die_everywhere(BOTH, false);
}

Test(export_deaths, killed_twice)
{
    die_everywhere(BOTH, true);
}

/* ---- the way back ---- */

TestSuite(export_back, .init = durable_setup, .fini = durable_teardown, .timeout = 600);

/* The mirror of an import, whose flushes are real ones. */
static bool mirror_ends;

static void *mirror_commits(void *nothing)
{
    while (!LOAD(mirror_ends)) {
        commit(0);
        clock_sleep(NS_PER_MS);
    }
    return nothing;
}

static void import_back(unsigned n)
{
    struct import_result back = {0};
    pthread_t mirror;

    STORE(mirror_ends, false);
    cr_assert_eq(pthread_create(&mirror, NULL, mirror_commits, NULL), 0);
    int result = import_run(fs, fs->spool_fd, false, &back);
    STORE(mirror_ends, true);
    pthread_join(mirror, NULL);
    cr_assert_eq(result, 0, "step %u: %s", n, back.error);
}

/* An import, which finds an export that was killed.  Whoever delivers then has each message once. */
static void come_back(int who)
{
    bool dead = true;

    for (unsigned n = 1; dead; n++) {
        durable_teardown();
        durable_setup();
        checking_every(0);
        memset(delivered, 0, sizeof(delivered));
        scene();
        dead = killed_at(n);
        counted_once(n);
        deliver(who);
        counted_once(n);
        import_back(n);
        nothing_remains(n);
        deliver_in_store();
        deliver_on_disk();
        delivered_once(n);
        cr_assert(store_has("input/stray") && !disk_has("input/stray"), "step %u", n);
        run_all();
        unlink(on_disk("input/stray"));
        all_clean(n, true);
    }
}

Test(export_back, killed_then_imported)
{
    come_back(NOBODY);
}

Test(export_back, killed_then_delivered_and_imported)
{
    come_back(BOTH);
}

static bool ends_at_once(void)
{
    return true;
}

/* So is the import that finds it, where it goes on with the export, or has just done so: the next one still knows which
 * copies nobody wants. */
Test(export_back, import_killed_too)
{
    bool dead;
    int status;

    for (unsigned n = 1, at = 20; at < 60; n = dead ? n + 1 : 1, at += dead ? 0 : 13) {
        durable_teardown();
        durable_setup();
        checking_every(0);
        scene();
        cr_assert(killed_at(at));
        descriptions_shared(fs);
        pid_t pid = fork();
        if (pid == 0) {
            struct import_result back = {.ended = ends_at_once}; /* what it moves would need a mirror */
            fastspool_after_fork_child(fs);
            steps = 0;
            deadly = n;
            import_run(fs, fs->spool_fd, false, &back);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        dead = WIFSIGNALED(status);
        cr_assert_geq(descriptions_reap(fs), 0);
        import_back(n);
        nothing_remains(n);
        cr_assert(store_has(headers[0]) && store_has(headers[1]), "steps %u and %u", at, n);
    }
}

/* Another store's export to this disk, running or killed: the store that imports has never had the message. */
Test(export_back, copies_of_another_store_stay)
{
    cr_assert(mkdir(on_disk("input"), 0750) == 0);
    disk_file("input/" PLACES_COPIED A "-H", "header");
    disk_file("input/" PLACES_COPIED A "-D", "data");
    import_back(0);
    cr_assert(disk_has("input/" PLACES_COPIED A "-H") && disk_has("input/" PLACES_COPIED A "-D"));
    cr_assert_not(store_has(PLACES_EXPORT));
}

/* The same where an export of this store to this disk was killed: its own copies go, by their number. */
Test(export_back, other_copies_beside_a_killed_export)
{
    const char other[] = "input/" PLACES_COPIED "0123456789abcdef." A "-H";

    cr_assert(mkdir(on_disk("input"), 0750) == 0);
    disk_file(other, "header");
    for (unsigned n = 20; n < 60; n += 13) {
        scene();
        cr_assert(killed_at(n));
        import_back(n);
        cr_assert(disk_has(other) && unlink(on_disk(other)) == 0, "step %u", n);
        nothing_remains(n);
        run_all();
        deliver_on_disk();
        unlink(on_disk("input/stray"));
        disk_file(other, "header");
    }
}

/* ---- power cuts at every step ---- */

/* True: the power failed at step @n.  The store is as its last commit, the disk as its last sync, or as it was. */
static bool power_fails_at(unsigned n, struct cut cut)
{
    struct export_result none = {0};
    volatile bool failed = true;

    commits = power_fails = true;
    commit(0);
    synced = cut.loses ? save_disk : NULL;
    save_disk();
    flushes = 0;
    flush_fails = cut.interrupted ? 2 : 0; /* the first one is before the first copy */
    if (cut.interrupted)
        cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &none), -EIO);
    steps = flush_fails = 0;
    deadly = n;
    if (setjmp(power) == 0) {
        cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &none), 0, "%s", none.error);
        failed = false;
    }
    deadly = 0;
    commits = power_fails = false;
    synced = NULL;
    fastspool_act_for(NULL);
    if (!cut.loses)
        save_disk();
    restore_disk();
    if (cut.later)
        deliver_on_disk();
    return failed;
}

static void cut_some(struct cut cut)
{
    cut_everywhere(cut, getenv("FASTSPOOL_TEST_LONG") ? 1 : 5);
}

TestSuite(export_power, .init = durable_setup, .fini = durable_teardown, .timeout = 600);

Test(export_power, disk_keeps_all)
{
    cut_some((struct cut){.loses = false});
    cut_some((struct cut){.later = true});
}

Test(export_power, disk_loses_all)
{
    cut_some((struct cut){.loses = true});
    cut_some((struct cut){.loses = true, .later = true});
}

static void import_then(unsigned n, struct cut cut)
{
    (void)cut;
    import_back(n);
    nothing_remains(n);
    deliver_in_store();
    deliver_on_disk();
    delivered_once(n);
    run_all();
    unlink(on_disk("input/stray"));
    all_clean(n, true);
}

/* An import follows, which finds the copies that the disk has kept. */
Test(export_power, then_imported)
{
    cut_everywhere_then((struct cut){.loses = false}, getenv("FASTSPOOL_TEST_LONG") ? 1 : 3, import_then);
}

Test(export_power, interrupted)
{
    cut_some((struct cut){.interrupted = true});
    cut_some((struct cut){.interrupted = true, .loses = true, .later = true});
}

/* SPDX-License-Identifier: MIT
 *
 * Shrinking: the disk is given back, and the process is killed before each of its calls: a recovery after it gives the
 * store as it was, and so after another call.
 */
#include "durable.h"

#include "base/fd.h"
#include "base/places.h"
#include "mirror/database.h"
#include "mirror/journal_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <sys/wait.h>

static unsigned steps, deadly; /* the step before which the process dies; 0: none */

static void step(void)
{
    if (++steps == deadly)
        kill(getpid(), SIGKILL);
}

static bool disk_fails, exchanged; /* from the exchange on no directory can be synced */

static int sync_directory(const char *path)
{
    step();
    return disk_fails && exchanged ? -EIO : fd_sync_directory(path);
}

static int exchange_names(int from, const char *old, int to, const char *new, unsigned flags)
{
    step();
    exchanged = true;
    return renameat2(from, old, to, new, flags);
}

#define mkdir(...)             (step(), mkdir(__VA_ARGS__))
#define rmdir(...)             (step(), rmdir(__VA_ARGS__))
#define unlink(...)            (step(), unlink(__VA_ARGS__))
#define unlinkat(...)          (step(), unlinkat(__VA_ARGS__))
#define fsync(...)             (step(), fsync(__VA_ARGS__))
#define renameat2(...)         exchange_names(__VA_ARGS__)
#define fd_sync_directory(...) sync_directory(__VA_ARGS__)
#define mdb_env_copy2(...)     (step(), mdb_env_copy2(__VA_ARGS__))
#define database_close(...)    (step(), database_close(__VA_ARGS__))
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* error */
#include "../../lib/mirror/shrink.c"
#pragma GCC diagnostic pop
#undef mkdir
#undef unlink

TestSuite(shrink, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

/* A queue that has come and gone, all of it in the database, and some files that stay. */
static void scene(void)
{
    static char content[60000];
    char path[32];

    memset(content, 'x', sizeof(content));
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, content, sizeof(content), 0);
    }
    commit(0);
    checkpoint();
    for (int i = 3; i < 40; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        cr_assert_eq(fastspool_unlink(fs, path), 0);
    }
    commit(0);
    checkpoint();
    journal_close(&journal); /* the mirror ends */
    dump_all(fs, then_dump);
}

static uint64_t run_all(void)
{
    struct shrunk shrunk = {0};

    cr_assert_eq(shrink_run(fs->state, &shrunk, error), 0, "%s", error);
    cr_assert_lt(shrunk.after, shrunk.before);
    return shrunk.after;
}

static bool is_there(const char *name)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    places_in_state(fs->state, name, path);
    return stat(path, &st) == 0;
}

Test(shrink, gives_back)
{
    scene();
    cr_assert_lt(run_all(), 40u * 60000 / 4);
    cr_assert_not(is_there("mirror.new") || is_there("journal/0000"));
    recovers(then_dump);
    cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
    put("later", 0, "content", 7, 0);
    commit(0);
    recovers(dump_all(fs, then_dump));
}

/* Mail in clear, whatever the umask of the one who calls. */
Test(shrink, stays_the_owners)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    scene();
    umask(022);
    run_all();
    places_in_state(fs->state, PLACES_DATABASE, path);
    strcat(path, "/data.mdb");
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600, "%o", st.st_mode);
}

/* After a power cut the disk may have the old database in its place, as long as the exchange is not synced: so that is
 * not removed before. */
Test(shrink, exchange_is_not_on_the_disk)
{
    struct shrunk shrunk;

    scene();
    disk_fails = true;
    cr_assert_eq(shrink_run(fs->state, &shrunk, error), -EIO, "%s", error);
    cr_assert(exchanged && is_there("mirror.new/data.mdb"));
    disk_fails = false;
    run_all();
    cr_assert_not(is_there("mirror.new"));
    recovers(then_dump);
}

/* The journal has what the database lacks. */
Test(shrink, without_a_checkpoint)
{
    struct shrunk shrunk;

    put("f", 0, "content", 7, 0);
    commit(0);
    cr_assert_eq(shrink_run(fs->state, &shrunk, error), -EBUSY);
    cr_assert_not_null(strstr(error, "`fastspool stop`"), "%s", error);
    cr_assert(is_there("journal/0000"));
    recovers(dump_all(fs, then_dump));
}

static bool killed_at(unsigned n)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct shrunk shrunk;
        steps = 0;
        deadly = n;
        _exit(shrink_run(fs->state, &shrunk, error) != 0);
    }
    waitpid(pid, &status, 0);
    cr_assert(WIFSIGNALED(status) || status == 0, "step %u: it failed", n);
    return WIFSIGNALED(status);
}

Test(shrink, killed)
{
    bool dead = true;
    unsigned n;

    for (n = 1; dead; n++) {
        durable_teardown();
        durable_setup();
        checking_every(0);
        scene();
        dead = killed_at(n);
        if (n % 2) { /* the next mirror comes before the next call */
            recovers(then_dump);
        }
        struct shrunk shrunk;
        cr_assert_eq(shrink_run(fs->state, &shrunk, error), 0, "step %u: %s", n, error);
        cr_assert_not(is_there("mirror.new") || is_there("journal/0000"), "step %u", n);
        recovers(then_dump);
        cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
    }
    cr_assert_gt(n, 12, "only %u steps", n);
}

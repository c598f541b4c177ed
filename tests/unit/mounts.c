/* SPDX-License-Identifier: MIT
 *
 * Mounting the view, without a server: what is found on the disk, and a connection that is ended by force.
 *
 * Nothing here is mounted where others see it.
 */
#include "view/mounts.h"

#include "spool/exim.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWNER 1234

static char spool[] = "/tmp/fastspool-mounts-XXXXXX";

static void make(const char *name, uid_t owner)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", spool, name);
    cr_assert(mkdir(path, 0755) == 0 && chown(path, owner, owner) == 0);
}

static void set_up(void)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert(mkdtemp(spool) && chown(spool, OWNER, OWNER) == 0);
}

static void tear_down(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", spool);
    cr_assert_eq(system(command), 0);
}

TestSuite(mounts, .init = set_up, .fini = tear_down, .timeout = 60);

static void begin(struct mounts *m)
{
    const char *step;
    int result = mounts_begin(m, spool, &step);

    cr_assert_eq(result, 0, "%s: %s", step, strerror(-result));
}

static bool is_found(char (*names)[MOUNTS_NAME], size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

/* The server is the mail user's: it names each place in one way, so that none is mounted over twice. */
Test(mounts, names)
{
    static const char *const places[] = {"input", "msglog", "q/input", "q.1/Finput", "msglog.OLD"};
    static const char *const others[] = {"./input",   "/input",    "input/",   "input/.",  "q//input", "q/./input",
                                         "q/input/",  "./q/input", "../input", ".q/input", "db",       "q",
                                         "q/input/a", "",          "//",       "input/.."};

    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
        cr_assert(exim_is_place(places[i]), "%s is none", places[i]);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        cr_assert(!exim_is_place(others[i]), "%s is one", others[i]);
}

/* Top directories of the spool and of queues are found: the owner's and root's, and what no link leads to. */
Test(mounts, on_disk)
{
    char names[16][MOUNTS_NAME], link[128], target[128];
    struct mounts m;

    make("input", OWNER);
    make("msglog", 0);
    make("db", OWNER);
    make("q", OWNER);
    make("q/input", OWNER);
    make("q/msglog", OWNER + 1);
    make("foreign", OWNER + 1);
    make("foreign/input", OWNER);
    snprintf(link, sizeof(link), "%s/link", spool);
    snprintf(target, sizeof(target), "%s/q", spool);
    cr_assert_eq(symlink(target, link), 0);
    begin(&m);
    size_t count = mounts_on_disk(&m, names, 16);
    cr_assert_eq(count, 3, "%zu are found", count);
    cr_assert(is_found(names, count, "input") && is_found(names, count, "msglog") && is_found(names, count, "q/input"));
    cr_assert_eq(mounts_on_disk(&m, names, 2), 2);
}

/* A server that never answers: who asks waits, and gets an error when the connection is ended.  Then the mount answers
 * ENOTCONN for ever. */
Test(mounts, abort_connection)
{
    struct mounts m;
    struct statfs st;
    unsigned connection;

    make("input", OWNER);
    begin(&m);
    int fuse = open("/dev/fuse", O_RDWR);
    if (fuse < 0)
        cr_skip_test("needs /dev/fuse");
    int view = mounts_view(&m, fuse, &connection);
    cr_assert(view >= 0 && connection > 0, "mount: %s", strerror(-view));
    pid_t asks = fork();
    if (asks == 0)
        _exit(fstatfs(view, &st) == 0 ? 0 : errno);
    cr_assert_eq(poll(NULL, 0, 300), 0);
    cr_assert_eq(waitpid(asks, NULL, WNOHANG), 0, "who asks does not wait");
    cr_assert_eq(mounts_abort(connection), 0);
    int status;
    cr_assert_eq(waitpid(asks, &status, 0), asks);
    cr_assert(WIFEXITED(status) && (WEXITSTATUS(status) == ECONNABORTED || WEXITSTATUS(status) == ENOTCONN));
    cr_assert(fstatfs(view, &st) < 0 && errno == ENOTCONN);
    cr_assert_eq(mounts_over(&m, view, "input"), -ENOTCONN);
    mounts_drop(view);
    cr_assert(mounts_abort(connection) < 0, "the connection is still there");
}

/* The spool is watched by its directory, not by its name. */
Test(mounts, removed_spool)
{
    struct mounts m;

    begin(&m);
    cr_assert(mounts_has_spool(&m));
    cr_assert_eq(rmdir(spool), 0);
    cr_assert(!mounts_has_spool(&m));
}

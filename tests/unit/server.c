/* SPDX-License-Identifier: MIT
 *
 * The view's server, before the first mount: how long it waits for an instant in which no message of the disk is
 * locked.  Its clock is the test's: each wait takes a second.
 */
#include "base/clock.h"
#include "import_play.h"
#include "spool/loss.h"

#include <poll.h>
#include <sys/prctl.h>

static uint64_t play_time = NS_PER_S;

static int play_poll(struct pollfd *poll_for, nfds_t count, int time);

#define clock_monotonic()       (play_time)
#define loss_look(fs, lost)     ((void)(fs), (void)(lost), LOSS_NOTHING)
#define poll(poll_for, n, time) play_poll(poll_for, n, time)
#define syslog(...)             play_syslog(__VA_ARGS__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* fs */
#include "../../lib/mount/server.c"
#pragma GCC diagnostic pop
#undef poll
#undef syslog

TestSuite(server, .init = fixture_setup, .fini = fixture_teardown, .timeout = 120);

#define HOUR (3600 * NS_PER_S)

static pid_t locker;
static uint64_t moved_at; /* the time at which the store got a message; 0: not yet */

/* Another process works on message @id. */
static void lock(const char *id)
{
    char path[64], byte;
    int line[2];

    snprintf(path, sizeof(path), "input/%s-D", id);
    cr_assert_eq(pipe(line), 0);
    locker = fork();
    if (locker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct flock head = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 19};
        int fd = open(on_disk(path), O_RDWR);
        if (fcntl(fd, F_SETLK, &head) < 0 || write(line[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    close(line[1]);
    cr_assert_eq(read(line[0], &byte, 1), 1);
    close(line[0]);
}

static void unlock(void)
{
    kill(locker, SIGKILL);
    waitpid(locker, NULL, 0);
}

/* Once a message is in the store, the other one is not locked any more. */
static int play_poll(struct pollfd *poll_for, nfds_t count, int time)
{
    play_time += (uint64_t)time * NS_PER_MS;
    cr_assert_leq(play_time, 2 * HOUR, "the server waits for ever");
    if (!moved_at && (store_has("input/" A "-H") || store_has("input/" B "-H"))) {
        moved_at = play_time;
        unlock();
    }
    for (nfds_t i = 0; i < count; i++)
        poll_for[i].revents = 0;
    return 0;
}

/* A runner holds one lock after another, so that no instant is without: an hour later what is not locked is moved all
 * the same, and then the rest. */
Test(server, locks_without_an_end)
{
    struct server server = {.fs = fs, .spool = fs->spool_fd, .control = -1};
    uint64_t began = play_time;

    message("", "", A);
    message("", "", B);
    lock(A);
    import_until_done(&server, true);
    cr_assert_neq(moved_at, 0, "nothing was moved before all locks were gone");
    cr_assert_geq(moved_at - began, HOUR, "something was moved after %llu s",
                  (unsigned long long)((moved_at - began) / NS_PER_S));
    cr_assert_leq(moved_at - began, HOUR + 2 * NS_PER_S, "nothing was moved for %llu s",
                  (unsigned long long)((moved_at - began) / NS_PER_S));
    moved_whole("input/" A "-H");
    moved_whole("input/" B "-H");
}

/* A lock that ends within the hour: until then nothing is moved, and then all at once. */
Test(server, lock_with_an_end)
{
    struct server server = {.fs = fs, .spool = fs->spool_fd, .control = -1};

    message("", "", A);
    message("", "", B);
    lock(B);
    for (int i = 0; i < 60; i++) {
        cr_assert_eq(import_all(&server, true), 1);
        wait_for(&server, 0, LOOK_AGAIN);
    }
    cr_assert(disk_has("input/" A "-H") && !moved_at);
    unlock();
    import_until_done(&server, true);
    moved_whole("input/" A "-H");
    moved_whole("input/" B "-H");
}

/* A chown(2) that resolved its path before the mount comes after the pass that follows it: one more pass sees it.  What
 * was changed in the view since stays. */
Test(server, changed_after_the_mount)
{
    struct server server = {.fs = fs, .spool = fs->spool_fd, .control = -1};
    struct stat st;

    disk_directory("msglog");
    cr_assert_eq(chmod(on_disk("msglog"), 0700), 0);
    follow_mount(&server);
    cr_assert_eq(chmod(on_disk("msglog"), 02750), 0);
    look_below(&server);
    cr_assert_eq(fastspool_stat(fs, "msglog", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 02750);
    cr_assert_eq(fastspool_chmod(fs, "msglog", 0770), 0);
    look_below(&server);
    cr_assert_eq(fastspool_stat(fs, "msglog", &st), 0);
    cr_assert_eq(st.st_mode, S_IFDIR | 0770);
}

/* A message that comes to the disk below the view, from a process that sees none, is in the store within a minute. */
Test(server, mail_below_the_view)
{
    struct server server = {.fs = fs, .spool = fs->spool_fd, .control = -1};

    follow_mount(&server);
    look_below(&server);
    message("", "", A);
    for (int i = 0; i < 60; i++) {
        cr_assert(disk_has("input/" A "-H"), "the disk was looked at after %d s", i);
        wait_for(&server, 0, LOOK_AGAIN);
        look_below(&server);
    }
    moved_whole("input/" A "-H");
    cr_assert_not(disk_has("input/" A "-H"));
}

/* Mail below the view that can't be imported is told of once, after the second look, and anew after one that could. */
Test(server, mail_below_the_view_that_stays)
{
    struct server server = {.fs = fs, .control = -1};

    for (int round = 0; round < 2; round++) {
        server.spool = -1;
        lines = 0;
        for (int looks = 1; looks <= 4; looks++) {
            play_time += LOOK_BELOW;
            look_below(&server);
            cr_assert_eq(lines, looks > 1, "%u lines after look %d", lines, looks);
        }
        server.spool = fs->spool_fd;
        play_time += LOOK_BELOW;
        look_below(&server);
        cr_assert_eq(lines, 1);
    }
}

/* SPDX-License-Identifier: MIT
 *
 * What can't be known, for want of descriptors or memory, is not taken for "no": a living mirror or view, a mounted
 * view, a registered spool, a control group that a user may freeze.
 */
#include "base/cgroup.h"
#include "base/clock.h"
#include "base/places.h"
#include "fastspool.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "spool/registry.h"
#include "spool/viewed.h"
#include "store/await.h"
#include "store/layout.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[64], spool[96], error[FASTSPOOL_ERROR_MAX];
static struct fastspool_config config = {.durability = FASTSPOOL_LAZY, .memory = 64 << 20, .flush_interval = 100000000};
static struct fastspool *fs;
static int view; /* what viewed() says */

int viewed(const char *path)
{
    (void)path;
    return view;
}

static void setup(void)
{
    strcpy(directory, "/dev/shm/fastspool-test.XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(spool, sizeof(spool), "%s/spool", directory);
    cr_assert_eq(mkdir(spool, 0750), 0);
    strcpy(config.runtime, directory);
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", directory);
    cr_assert_eq(system(command), 0);
}

TestSuite(unsure, .init = setup, .fini = teardown, .timeout = 60);

static void limit_descriptors(rlim_t most)
{
    const struct rlimit limit = {most, 4096};

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* ---- who lives ---- */

/* What a look at lock @name of the state directory says, with and without a descriptor that is left. */
static void lock_is(const char *name, int (*look)(void), int wanted)
{
    int result = look();

    limit_descriptors(0);
    int unsure = look();
    limit_descriptors(1024);
    cr_assert_eq(result, wanted, "%s: %d", name, result);
    cr_assert_eq(unsure, -EMFILE, "%s, without descriptors: %d", name, unsure);
}

static int mirror_lives(void)
{
    return launch_lives(fs);
}

static int view_lives(void)
{
    return launch_view_lives(fs->state);
}

static int view_holder(void)
{
    return (int)launch_view_holder(fs->state);
}

Test(unsure, who_lives)
{
    char path[PLACES_PATH_MAX];
    const char *const names[] = {PLACES_MIRROR_LOCK, PLACES_VIEW_LOCK};
    int (*const look[])(void) = {mirror_lives, view_lives};

    cr_assert_eq(attach_create(spool, &config, &fs, error), 0, "%s", error);
    for (int i = 0; i < 2; i++) {
        places_in_state(fs->state, names[i], path);
        lock_is(names[i], look[i], 0); /* there is no such file */
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        lock_is(names[i], look[i], 0);
        cr_assert_eq(flock(fd, LOCK_EX), 0);
        lock_is(names[i], look[i], 1);
        close(fd);
    }
    lock_is(PLACES_VIEW_LOCK, view_holder, 0);
    fastspool_detach(fs);
}

/* ---- waiting for a mirror ---- */

static int lives;
static unsigned starts;

static int play_lives(struct fastspool *store)
{
    (void)store;
    return lives;
}

static int play_start(struct fastspool *store)
{
    (void)store;
    starts++;
    return 0;
}

/* No mirror was seen for longer than a waiter has patience: it gives up only if none lives. */
Test(unsure, waiter)
{
    static const struct keeper keeper = {play_lives, play_start};
    const int answers[] = {0, 1, -EMFILE}, results[] = {-EIO, 0, 0};
    const unsigned started[] = {0, 0, 1};

    cr_assert_eq(attach_create(spool, &config, &fs, error), 0, "%s", error);
    fs->keeper = &keeper;
    for (int i = 0; i < 3; i++) {
        uint32_t event = 7, wanted = 0;
        uint64_t lived = clock_monotonic() - AWAIT_GIVE_UP - NS_PER_S;
        lives = answers[i];
        starts = 0;
        int result = await_event(fs, &event, 7, &wanted, &lived);
        cr_assert_eq(result, results[i], "%d: %d", lives, result);
        cr_assert_eq(starts, started[i], "%d: %u starts", lives, starts);
    }
    fastspool_detach(fs);
}

/* ---- a view ---- */

/* A store that is made, and one that is taken over from the dead: each of them knows of the view, or is refused. */
Test(unsure, is_viewed)
{
    for (int made = 1; made >= 0; made--) {
        view = -EMFILE;
        int result = attach_create(spool, &config, &fs, error);
        cr_assert_eq(result, -EMFILE, "made %d: %d", made, result);
        cr_assert_not_null(strstr(error, "can't look whether it has a view"), "it says %s", error);
        view = made;
        cr_assert_eq(attach_create(spool, &config, &fs, error), 0, "%s", error);
        cr_assert_eq(fs->header->view.status, view ? VIEW_MOUNTED : VIEW_NONE);
        fastspool_detach(fs);
    }
    view = -ENOSYS; /* Exim works without /proc */
    cr_assert_eq(attach_create(spool, &config, &fs, error), 0, "%s", error);
    fastspool_detach(fs);
}

/* ---- a spool that root has registered ---- */

Test(unsure, registered)
{
    struct fastspool_config found;
    char below[128], entry[PLACES_PATH_MAX], other[PLACES_PATH_MAX + 8];

    strcpy(config.spool[0], spool);
    places_registered(spool, strlen(spool), entry);
    snprintf(other, sizeof(other), "%s.other", entry);
    snprintf(below, sizeof(below), "%s/input/x", spool);
    cr_assert_eq(registry_find(below, &found), 0);
    cr_assert_eq(registry_add(&config), 0);
    cr_assert_eq(registry_find(below, &found), 1);
    cr_assert_str_eq(found.spool[0], spool);
    cr_assert_eq(registry_find(directory, &found), 0);
    cr_assert_eq(registry_read(entry, &found), 1);
    cr_assert_str_eq(found.spool[0], spool);
    cr_assert_eq(registry_read(other, &found), 0, "there is none");
    cr_assert_eq(link(entry, other), 0);
    cr_assert_eq(registry_read(other, &found), 0, "another spool's name");
    cr_assert_eq(unlink(other), 0);
    limit_descriptors(0);
    int unsure = registry_find(below, &found), none = registry_find(directory, &found);
    limit_descriptors(1024);
    cr_assert_eq(unsure, -EMFILE, "%d", unsure);
    cr_assert_eq(none, 0, "a look at nothing takes no descriptor: %d", none);
    cr_assert_eq(registry_remove(spool), 0);
    cr_assert_eq(registry_find(below, &found), 0);
}

/* ---- a control group of a user's ---- */

static bool trusts_nobody(uid_t uid)
{
    (void)uid;
    return false;
}

static bool trusts_all(uid_t uid)
{
    (void)uid;
    return true;
}

Test(unsure, users_group)
{
    cr_assert_eq(cgroup_is_users(trusts_all), 0);
    limit_descriptors(0);
    int unsure = cgroup_is_users(trusts_all);
    limit_descriptors(1024);
    cr_assert_eq(unsure, -EMFILE, "%d", unsure);
    /* In a mount namespace of this process: control groups of a user's, then such that nobody may look at. */
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("groups", "/sys", "tmpfs", 0, "mode=0755"), 0);
    cr_assert_eq(cgroup_is_users(trusts_nobody), 0, "none is mounted");
    cr_assert_eq(mkdir("/sys/fs", 0755), 0);
    cr_assert_eq(mkdir("/sys/fs/cgroup", 0755), 0);
    cr_assert_eq(chown("/sys/fs/cgroup", 1000, 1000), 0);
    cr_assert_eq(cgroup_is_users(trusts_nobody), 1);
    cr_assert_eq(cgroup_is_users(trusts_all), 0);
    cr_assert_eq(chmod("/sys/fs", 0700), 0);
    cr_assert_eq(seteuid(65534), 0);
    unsure = cgroup_is_users(trusts_nobody);
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(unsure, -EACCES, "%d", unsure);
}

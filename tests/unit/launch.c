/* SPDX-License-Identifier: MIT
 *
 * The wait for a mirror that was started just now, where the mail user writes in the segment what he likes, has an end.
 * And a lock file that this user can't open: whether it is locked.
 */
#include "base/clock.h"

static uint64_t clock_shows, started;

static inline uint64_t play_clock(void);
static inline void play_sleep(uint64_t time);

#define clock_monotonic() play_clock()
#define clock_sleep(time) play_sleep(time)
#include "../../lib/spool/launch.c"
#undef clock_monotonic
#undef clock_sleep

#include <criterion/criterion.h>
#include <sys/mount.h>

static inline uint64_t play_clock(void)
{
    return clock_shows;
}

/* The mail user writes between two looks: one is just starting. */
static inline void play_sleep(uint64_t time)
{
    clock_shows += time;
    cr_assert_lt(clock_shows, 600 * NS_PER_S, "the wait has no end");
    started = clock_shows;
}

static int never(const char *state)
{
    (void)state;
    return 0;
}

Test(launch, start_that_never_comes)
{
    clock_shows = started = NS_PER_S;
    launch_settle(&started, never, "/");
    cr_assert_leq(clock_shows, NS_PER_S + LAUNCH_TIME + LOOK_EVERY);
}

/* A lock of each kind is seen in the kernel's list; where there is no list, nothing is said. */
Test(launch, listed)
{
    char directory[] = "/dev/shm/fastspool-test.XXXXXX";
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chdir(directory), 0);
    int fd = open("lock", O_RDWR | O_CREAT, 0600);
    cr_expect_eq(is_listed(directory, "none"), 0);
    cr_expect_eq(is_listed(directory, "lock"), 0);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    cr_expect_eq(is_listed(directory, "lock"), 1);
    cr_assert_eq(flock(fd, LOCK_UN), 0);
    cr_assert_eq(fcntl(fd, F_OFD_SETLK, &whole), 0);
    cr_expect_eq(is_listed(directory, "lock"), 1);
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("none", "/proc", "tmpfs", 0, NULL), 0);
    cr_expect_eq(is_listed(directory, "lock"), -ENOENT);
    cr_assert_eq(umount("/proc"), 0);
    cr_expect(unlink("lock") == 0 && rmdir(directory) == 0);
}

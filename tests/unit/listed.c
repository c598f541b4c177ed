/* SPDX-License-Identifier: MIT
 *
 * Who has a lock, as the kernel lists it.
 */
#include "base/listed.h"
#include "base/atomic.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHERS 400 /* some pages of the list */
#define LOOKS  3000

static int temporary(void)
{
    char path[] = "/dev/shm/fastspool-test.XXXXXX";
    int fd = mkstemp(path);

    cr_assert_geq(fd, 0);
    unlink(path);
    return fd;
}

static void put(int fd, short type, off_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    cr_assert_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
}

/* Each processor has a list of the locks that were taken on it, and the last one's is shown last. */
static void go_to(bool last)
{
    cpu_set_t all, one;
    int at = last ? CPU_SETSIZE - 1 : 0;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    while (!CPU_ISSET(at, &all))
        at += last ? -1 : 1;
    CPU_ZERO(&one);
    CPU_SET(at, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
}

static uint32_t done;

/* Locks that come and go, as those of a busy store's descriptions. */
static void *come_and_go(void *unused)
{
    int fd = temporary();

    go_to(false);
    while (!LOAD(done)) {
        for (off_t byte = 0; byte < 2 * OTHERS; byte += 2)
            put(fd, F_RDLCK, byte);
        for (off_t byte = 0; byte < 2 * OTHERS; byte += 2)
            put(fd, F_UNLCK, byte);
    }
    close(fd);
    return unused;
}

/* A lock that is held is found at each look. */
Test(listed, beside_others, .timeout = 300)
{
    int held = temporary(), missed = 0;
    pthread_t thread;
    struct stat st;

    cr_assert_eq(pthread_create(&thread, NULL, come_and_go, NULL), 0);
    go_to(true);
    cr_assert(flock(held, LOCK_EX) == 0 && fstat(held, &st) == 0);
    for (int looks = 0; looks < LOOKS; looks++)
        missed += listed_locker(&st) != getpid();
    STORE(done, 1);
    pthread_join(thread, NULL);
    cr_assert_eq(missed, 0, "not found in %d of %d looks", missed, LOOKS);
    cr_assert_eq(flock(held, LOCK_UN), 0);
    cr_assert_eq(listed_locker(&st), 0);
    close(held);
}

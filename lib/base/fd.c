/* SPDX-License-Identifier: MIT
 *
 * File descriptors: the library's own high numbers, and helpers that several rooms use.
 */
#include "base/fd.h"

#include "base/atomic.h"
#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The library's descriptors start this far below the soft limit, or below 1024 if the limit is higher.  Programs get
 * the lowest free number, so they stay below.  A descriptor table beyond 1024 would make every fork copy more. */
#define HIGH_FDS 128
#define USUAL    1024

#define LOCK_EVERY (10 * NS_PER_MS) /* between two tries */

/* Where they start by the limit as it is now, if it is lower. */
static int first_high(void)
{
    struct rlimit limit;
    rlim_t end = USUAL;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < end)
        end = limit.rlim_cur;
    return end > 2 * HIGH_FDS ? (int)end - HIGH_FDS : (int)end / 2;
}

int fd_lowest_high = INT_MAX;

/* The caller may keep a number that is not high where there is none: any number may be one then. */
static void note(int high)
{
    int number = high < 0 ? 0 : high, lowest = LOAD(fd_lowest_high);

    while (number < lowest &&
           !__atomic_compare_exchange_n(&fd_lowest_high, &lowest, number, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

int fd_duplicate_high(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, USUAL - HIGH_FDS); /* most limits allow it: they need not be asked for */

    if (high < 0)
        high = fcntl(fd, F_DUPFD_CLOEXEC, first_high());
    note(high);
    return high < 0 ? -errno : high;
}

int fd_high(int fd)
{
    int high = fd_duplicate_high(fd);

    close(fd);
    return high;
}

static void put_in_order(int *fds, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        for (size_t j = i; j > 0 && fds[j - 1] > fds[j]; j--) {
            int lower = fds[j];
            fds[j] = fds[j - 1];
            fds[j - 1] = lower;
        }
    }
}

/* The same one by one, without an allocation: the child of a process with threads does it. */
static int close_listed(unsigned first, unsigned last)
{
    _Alignas(struct dirent64) char entries[1024];
    int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t got = directory < 0 ? -1 : 0;

    while (directory >= 0 && (got = getdents64(directory, entries, sizeof(entries))) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            int fd = entry->d_name[0] == '.' ? directory : atoi(entry->d_name);
            if (fd != directory && (unsigned)fd >= first && (unsigned)fd <= last)
                close(fd);
            at += entry->d_reclen;
        }
    }
    int result = got < 0 ? -errno : 0;
    if (directory >= 0)
        close(directory);
    return result;
}

int fd_close_range(unsigned first, unsigned last)
{
    return close_range(first, last, 0) == 0 ? 0 : close_listed(first, last);
}

void fd_close_all(int *fds, size_t count)
{
    put_in_order(fds, count);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && fds[end] == fds[end - 1] + 1;)
            end++;
        if (fds[i] < 0)
            end = i + 1;
        else if (close_range((unsigned)fds[i], (unsigned)fds[end - 1], 0) < 0) /* see fd_close_range() */
            for (size_t one = i; one < end; one++)
                close(fds[one]);
    }
}

void fd_link(int fd, char link[FD_LINK_MAX])
{
    unsigned number = (unsigned)fd; /* a negative one becomes a number that no descriptor has */
    char *digits = stpcpy(link, "/proc/self/fd/");
    size_t length = 1;

    for (unsigned rest = number; rest >= 10; rest /= 10)
        length++;
    digits[length] = '\0';
    for (; length > 0; number /= 10)
        digits[--length] = (char)('0' + number % 10);
}

/* Without /proc. */
static int look_up(int fd, const char *opened, char path[PATH_MAX])
{
    struct stat is, found;

    if (!realpath(opened, path) || fstat(fd, &is) < 0 || stat(path, &found) < 0)
        return -errno;
    return is.st_dev == found.st_dev && is.st_ino == found.st_ino ? 0 : -ESTALE;
}

int fd_path(int fd, const char *opened, char *path, size_t size)
{
    char link[FD_LINK_MAX], found[PATH_MAX];

    fd_link(fd, link);
    ssize_t length = readlink(link, found, sizeof(found) - 1);
    if (length > 0)
        found[length] = '\0';
    int result = length > 0 ? 0 : look_up(fd, opened, found);
    if (result < 0)
        return result;
    if (strlen(found) + 1 >= size)
        return -ENAMETOOLONG;
    strcpy(path, found);
    return 0;
}

int fd_lock(int fd, uint64_t patience)
{
    uint64_t began = clock_monotonic();

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || clock_monotonic() - began >= patience)
            return -errno;
        clock_sleep(LOCK_EVERY);
    }
    return 0;
}

int fd_sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 || fsync(fd) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    return result;
}

int fd_write_all(int fd, const void *bytes, size_t size, uint64_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t put = pwrite(fd, (const char *)bytes + done, size - done, (off_t)(offset + done));
        if (put < 0)
            return -errno;
        done += (size_t)put;
    }
    return 0;
}

int fd_take_room(int fd, uint64_t offset, uint64_t size)
{
    int result, error, saved = errno; /* a write that waited and then succeeded must not change errno */

    do
        result = fallocate(fd, 0, (off_t)offset, (off_t)size);
    while (result < 0 && errno == EINTR);
    error = errno;
    errno = saved;
    return result == 0 ? 0 : error == ENOSPC || error == EDQUOT || error == ENOMEM ? -EAGAIN : -error;
}

/* The second call finds the pages, and zeroes those that nobody has used (mm/shmem.c, shmem_get_folio_gfp()). */
int fd_take_zeroed(int fd, uint64_t offset, uint64_t size)
{
    int result = fd_take_room(fd, offset, size);

    return result == 0 ? fd_take_room(fd, offset, size) : result;
}

/* SPDX-License-Identifier: MIT
 *
 * Later: files of a process that has left the store, which are opened at their first use.
 *
 * A process that becomes an ordinary user, as Exim's child does for a delivery, mostly uses one of the three files that
 * it has open.  An open file of the view is six requests to its server, of 20 us each.  So one directory of the view
 * stands for all of them (lib/view/handed.c), at the number of each.
 *
 * Happy path:
 *   - The first use of a number opens its file by that directory, at the same number, offset and flags.
 *   - Numbers of one description become numbers of one description.
 *   - A fork, an exec and a message with descriptors open what is still to be opened: another process will use it.
 *   - What the kernel answers by itself (poll(2), select(2)) is the same for a directory as for a file.
 *
 * Failure modes:
 *   - The view's server has died meanwhile, or there are no descriptors for a moment: the directory stays, and the call
 *     fails with EISDIR or EBADF.  The next one tries again.
 *   - A handler or another thread may use the same file: the shim's one lock is held meanwhile.  A fork waits for it.
 */
#include "later.h"

#include "base/atomic.h"
#include "forks.h"
#include "wrapper.h"

#include <errno.h>
#include <stdint.h>
#include <sys/single_threaded.h>

static struct number {
    int fd;
    int file; /* its name in the directory */
    int flags;
    off_t offset;
} numbers[LATER_NUMBERS];
static uint32_t count; /* of them */

void later_add(int fd, int number, int flags, off_t offset)
{
    struct outside outside;
    bool taken = forks_begin(&outside, false);

    numbers[count] = (struct number){fd, number, flags, offset};
    STORE(count, count + 1);
    if (taken)
        forks_end(&outside);
    forks_call_ahead(later_use_all);
}

static struct number *find(int fd)
{
    for (uint32_t i = 0; i < count; i++) {
        if (numbers[i].fd == fd)
            return &numbers[i];
    }
    return NULL;
}

static void drop(struct number *number)
{
    *number = numbers[count - 1];
    STORE(count, count - 1);
}

void later_forget(int fd)
{
    struct outside outside;
    bool taken = forks_begin(&outside, false);
    struct number *number = find(fd);

    if (number)
        drop(number);
    if (taken)
        forks_end(&outside);
}

/* Open @name in @directory at number @fd, with its flags of fcntl(F_SETFD).  A duplicate is made only where a lower
 * number is free, because the view's server hears of the close of each.  (Another thread could take a number that is
 * free for a moment.)  False: @fd is the directory still. */
static bool open_at(int fd, int directory, const char *name, int flags, int of_fd)
{
    if (__libc_single_threaded)
        real.close(fd);
    int new = real.openat(directory, name, flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0);
    if (new != fd) {
        real.dup3(new < 0 ? directory : new, fd, O_CLOEXEC);
        if (new >= 0)
            real.close(new);
    }
    if (!(of_fd & FD_CLOEXEC))
        real.fcntl(fd, F_SETFD, of_fd);
    return new >= 0;
}

/* Another number that waits, -1: there is none. */
static int other_than(const struct number *number)
{
    return count < 2 ? -1 : numbers[number == numbers ? 1 : 0].fd;
}

static bool open_number(const struct number *number)
{
    char name[16];
    int of_fd = real.fcntl(number->fd, F_GETFD), other = other_than(number);
    int directory = other >= 0 ? other : real.fcntl(number->fd, F_DUPFD_CLOEXEC, 0);
    bool opened = false;

    snprintf(name, sizeof(name), "%d", number->file);
    if (of_fd >= 0 && directory >= 0)
        opened = open_at(number->fd, directory, name, number->flags, of_fd);
    if (directory >= 0 && directory != other)
        real.close(directory);
    if (opened && number->offset)
        real.lseek(number->fd, number->offset, SEEK_SET);
    return opened;
}

/* @fd is the file now, and so are these. */
static void duplicate(int fd, int file)
{
    for (uint32_t i = count; i-- > 0;) {
        int flags = numbers[i].file == file ? real.fcntl(numbers[i].fd, F_GETFD) : -1;
        if (flags < 0)
            continue;
        real.dup3(fd, numbers[i].fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
        drop(&numbers[i]);
    }
}

/* False: @fd waits still.  (Another thread may have been faster.) */
static bool use(int fd)
{
    struct number *number = find(fd);

    if (!number || !open_number(number))
        return !number;
    int file = number->file;
    drop(number);
    duplicate(fd, file);
    return true;
}

bool later_use(int fd)
{
    struct outside outside;
    bool taken = forks_begin(&outside, false);
    bool used = use(fd);

    if (taken)
        forks_end(&outside);
    return used;
}

void later_use_all(void)
{
    struct outside outside;

    if (!LOAD(count))
        return;
    bool taken = forks_begin(&outside, false);
    for (uint32_t i = count; i-- > 0;) { /* one that can't be opened now keeps none of the others waiting */
        if (i < count)
            use(numbers[i].fd);
    }
    if (taken)
        forks_end(&outside);
}

/* SPDX-License-Identifier: MIT
 *
 * Later: files of a process that has left the store, which are opened at their first use.
 *
 * A process that becomes an ordinary user, as Exim's child does for a delivery, mostly uses one of the three files that
 * it has open.  An open file of the view is six requests to its server, of 20 us each.  So one directory of the view
 * stands for all of them (lib/view/handed.c), at the number of each.
 *
 * Happy path:
 *   - The process keeps the directory by a number of its own, as high as the library's others.
 *   - The first use of a number opens its file by that directory, at the same number, offset and flags.  Where no
 *     number is free it needs none.
 *   - Numbers of one description become numbers of one description.
 *   - A fork, an exec and a message with descriptors open what is still to be opened: another process will use it.
 *   - What the kernel answers by itself (poll(2), select(2)) is the same for a directory as for a file.
 *
 * Failure modes:
 *   - The view's server has died meanwhile: the directory stays, and the call fails with EISDIR or EBADF.  The next one
 *     tries again.
 *   - There are threads, and no number is free: the one that the process keeps is used for all that wait.  Where
 *     another thread is faster, or the limit of descriptors is now below the numbers, it is as above.
 *   - A handler or another thread may use the same file: the shim's one lock is held meanwhile.  A fork waits for it.
 */
#include "later.h"

#include "base/atomic.h"
#include "base/fd.h"
#include "forks.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>

static struct number {
    int fd;
    int file;  /* its name in the directory */
    int flags; /* with O_CLOEXEC, if it is closed by an exec */
    off_t offset;
} numbers[LATER_NUMBERS];
static uint32_t count; /* of them */

/* ---- the directory ---- */

static int kept = -1; /* its number, as long as a file waits */

void later_keep(int directory)
{
    int high = fd_duplicate_high(directory);

    if (high >= 0)
        real.close(directory);
    STORE(kept, high < 0 ? directory : high);
}

/* (The program may have closed it all the same, by a system call that is not libc's.) */
bool later_is_own(int fd)
{
    struct stat is, waits;

    return fd >= 0 && fd == LOAD(kept) && real.fstat(fd, &is) == 0 && real.fstat(numbers[0].fd, &waits) == 0 &&
           is.st_dev == waits.st_dev && is.st_ino == waits.st_ino;
}

unsigned later_next_own(unsigned from)
{
    int fd = LOAD(kept);
    return fd >= 0 && (unsigned)fd >= from && later_is_own(fd) ? (unsigned)fd : UINT_MAX;
}

static void close_kept(void)
{
    if (kept >= 0)
        real.close(kept);
    STORE(kept, -1);
}

/* ---- numbers ---- */

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

/* @number waits no more.  With the last one the directory goes. */
static void drop(struct number *number)
{
    *number = numbers[count - 1];
    STORE(count, count - 1);
    if (count == 0)
        close_kept();
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

int later_replace(int old, int new, int flags)
{
    struct outside outside;
    bool taken = forks_begin(&outside, false);
    int result = real.dup3(old, new, flags) < 0 ? -errno : new;
    struct number *number = result < 0 ? NULL : find(new);

    if (number)
        drop(number);
    if (taken)
        forks_end(&outside);
    return result;
}

/* ---- the first use ---- */

/* Open @name beside other threads, which could take a number that is free for a moment: of the directory @fd itself.
 * Where no number is free, the one that is kept is. */
static int open_beside_threads(int fd, const char *name, int flags)
{
    int new = real.openat(fd, name, flags, 0);

    if (new < 0 && errno == EMFILE && kept >= 0) {
        close_kept();
        new = real.openat(fd, name, flags, 0);
    }
    return new;
}

/* Open @name of the directory at number @fd, which is the directory now.  A duplicate is made only where a lower number
 * is free, because the view's server hears of the close of each.  False: @fd is the directory still. */
static bool open_at(int fd, const char *name, int flags)
{
    bool alone = __libc_single_threaded && kept >= 0;

    if (alone)
        real.close(fd);
    int how = flags | O_CREAT | O_NOFOLLOW;
    int new = alone ? real.openat(kept, name, how, 0) : open_beside_threads(fd, name, how);
    if (new >= 0 && new != fd) {
        real.dup3(new, fd, flags & O_CLOEXEC);
        real.close(new);
    } else if (new < 0 && alone) {
        real.dup3(kept, fd, flags & O_CLOEXEC);
    }
    return new >= 0;
}

static bool open_number(const struct number *number)
{
    char name[16];

    snprintf(name, sizeof(name), "%d", number->file);
    bool opened = open_at(number->fd, name, number->flags);
    if (opened && number->offset)
        real.lseek(number->fd, number->offset, SEEK_SET);
    return opened;
}

/* @fd is the file now, and so are these. */
static void duplicate(int fd, int file)
{
    for (uint32_t i = count; i-- > 0;) {
        if (numbers[i].file != file)
            continue;
        real.dup3(fd, numbers[i].fd, numbers[i].flags & O_CLOEXEC);
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

/* One that can't be opened now keeps none of the others waiting. */
static void use_each(void)
{
    for (uint32_t i = count; i-- > 0;) {
        if (i < count)
            use(numbers[i].fd);
    }
}

bool later_use(int fd)
{
    struct outside outside;
    bool taken = forks_begin(&outside, false);
    bool used = use(fd);

    if (used && LOAD(kept) < 0) /* its number served for this one, and may be another thread's soon */
        use_each();
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
    use_each();
    if (taken)
        forks_end(&outside);
}

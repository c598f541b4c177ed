/* SPDX-License-Identifier: MIT
 *
 * The library's own descriptors: which numbers they can have.
 */
#include "base/fd.h"
#include "base/atomic.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* They lie high, and no number below the lowest of them is one. */
Test(fd, lowest_of_the_own)
{
    int high = fd_duplicate_high(STDERR_FILENO);

    cr_assert_geq(high, 0);
    cr_assert_eq(LOAD(fd_lowest_high), high);
    int next = fd_duplicate_high(STDERR_FILENO);
    cr_assert_gt(next, high);
    cr_assert_eq(LOAD(fd_lowest_high), high);
}

/* Where no high number is to be had the caller keeps the one that it has: any number may be the library's own. */
Test(fd, none_high_is_free)
{
    while (dup(STDERR_FILENO) >= 0)
        ;
    cr_assert_eq(errno, EMFILE);
    cr_assert_eq(fd_duplicate_high(STDERR_FILENO), -EMFILE);
    cr_assert_eq(LOAD(fd_lowest_high), 0);
}

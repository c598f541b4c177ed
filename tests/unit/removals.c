/* SPDX-License-Identifier: MIT
 *
 * Removals that the view refuses, because Exim does them for an error.
 */
#include "view/removals.h"

#include <criterion/criterion.h>
#include <unistd.h>

#define HEADER "1abcde-000001-AB-H"
#define DATA   "1abcde-000001-AB-D"

/* This process is as old as the server: its first two removals of a message's files are refused. */
Test(removals, older)
{
    removals_begin();
    cr_assert(!removals_may(getpid(), HEADER));
    cr_assert(!removals_may(getpid(), DATA));
    cr_assert(removals_may(getpid(), HEADER));
}

/* Not if it has done something else before, which the removal of another file is, too. */
Test(removals, something_else)
{
    removals_begin();
    removals_other(getpid());
    cr_assert(removals_may(getpid(), HEADER));
}

Test(removals, another_file)
{
    removals_begin();
    cr_assert(removals_may(getpid(), "1abcde-000001-AB"));
    cr_assert(removals_may(getpid(), DATA));
}

/* A sync of a directory that has failed: the same, whatever was before. */
Test(removals, sync_failed)
{
    removals_begin();
    removals_other(getpid());
    removals_sync_failed(getpid());
    cr_assert(!removals_may(getpid(), HEADER));
    cr_assert(!removals_may(getpid(), DATA));
    cr_assert(removals_may(getpid(), HEADER));
}

/* Who is unknown may. */
Test(removals, unknown)
{
    removals_begin();
    cr_assert(removals_may(0, HEADER));
    cr_assert(removals_may(-1, HEADER));
}

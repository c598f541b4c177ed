/* SPDX-License-Identifier: MIT
 *
 * Removals that the view refuses, because Exim does them for an error.
 */
#include "view/removals.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <sys/prctl.h>
#include <unistd.h>

#define HEADER "1abcde-000001-AB-H"
#define DATA   "1abcde-000001-AB-D"

static void be_exim(void)
{
    prctl(PR_SET_NAME, "exim4");
}

TestSuite(removals, .init = be_exim);

/* This process is as old as the server: its first two removals of a message's files are refused. */
Test(removals, older)
{
    removals_begin();
    cr_assert(!removals_may(getpid(), HEADER, clock_realtime() - NS_PER_S));
    cr_assert(!removals_may(getpid(), DATA, clock_realtime() - NS_PER_S));
    cr_assert(removals_may(getpid(), HEADER, clock_realtime() - NS_PER_S));
}

/* But not those of a program that is no Exim. */
Test(removals, other_programs)
{
    prctl(PR_SET_NAME, "rsync");
    removals_begin();
    removals_sync_failed(getpid());
    cr_assert(removals_may(getpid(), HEADER, clock_realtime() - NS_PER_S));
    cr_assert(removals_may(getpid(), DATA, clock_realtime() - NS_PER_S));
}

/* But not one of a file that was last changed long before the server, or under it. */
Test(removals, other_times)
{
    removals_begin();
    cr_assert(removals_may(getpid(), HEADER, clock_realtime() - 3600 * NS_PER_S));
    cr_assert(removals_may(getpid(), DATA, clock_realtime() + NS_PER_S));
}

/* Not if it has done something else before, which the removal of another file is, too. */
Test(removals, something_else)
{
    removals_begin();
    removals_other(getpid());
    cr_assert(removals_may(getpid(), HEADER, clock_realtime() - NS_PER_S));
}

Test(removals, another_file)
{
    removals_begin();
    cr_assert(removals_may(getpid(), "1abcde-000001-AB", clock_realtime() - NS_PER_S));
    cr_assert(removals_may(getpid(), DATA, clock_realtime() - NS_PER_S));
}

/* A sync of a directory that has failed: the same, whatever was before. */
Test(removals, sync_failed)
{
    removals_begin();
    removals_other(getpid());
    removals_sync_failed(getpid());
    cr_assert(!removals_may(getpid(), HEADER, clock_realtime() - NS_PER_S));
    cr_assert(!removals_may(getpid(), DATA, clock_realtime() - NS_PER_S));
    cr_assert(removals_may(getpid(), HEADER, clock_realtime() - NS_PER_S));
}

/* Who is unknown may. */
Test(removals, unknown)
{
    removals_begin();
    cr_assert(removals_may(0, HEADER, clock_realtime() - NS_PER_S));
    cr_assert(removals_may(-1, HEADER, clock_realtime() - NS_PER_S));
}

/* SPDX-License-Identifier: MIT
 *
 * Becoming another user for good: it takes, or it is an error.
 */
#include "base/rights.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <linux/securebits.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

static void needs_root(void)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
}

TestSuite(rights, .init = needs_root);

/* In a child, because the test's own process has to report as root. */
static bool is_nobody_for_good(void)
{
    uid_t uid[3];
    gid_t gid[3], group;

    return rights_become(NOBODY, NOBODY) == 0 && getresuid(&uid[0], &uid[1], &uid[2]) == 0 &&
           getresgid(&gid[0], &gid[1], &gid[2]) == 0 && uid[0] == NOBODY && uid[1] == NOBODY && uid[2] == NOBODY &&
           gid[0] == NOBODY && gid[1] == NOBODY && gid[2] == NOBODY && getgroups(1, &group) == 1 && group == NOBODY &&
           setresuid(0, 0, 0) < 0 && rights_settle(NOBODY) == 0 && rights_settle(0) == -EPERM;
}

/* All three ids and the groups are the other user's, and there is no way back. */
Test(rights, taken)
{
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(is_nobody_for_good() ? 0 : 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
}

/* A process that keeps its capabilities when its user changes is told so. */
Test(rights, kept_capabilities)
{
    cr_assert_eq(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), 0);
    cr_assert_eq(rights_become(NOBODY, NOBODY), -EPERM);
}

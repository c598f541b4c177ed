/* SPDX-License-Identifier: MIT
 *
 * The control groups of this process: which of their directories are looked at.
 */
#include "base/cgroup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define PLACE "/sys/fs/cgroup"

static bool memory, pids; /* two hierarchies of version 1 */

static int note(const char *directory, void *context)
{
    (void)context;
    memory = memory || strncmp(directory, PLACE "/memory", strlen(PLACE "/memory")) == 0;
    pids = pids || strncmp(directory, PLACE "/pids", strlen(PLACE "/pids")) == 0;
    return 0;
}

static void look(const char *controller)
{
    memory = pids = false;
    cr_assert_eq(cgroup_any_above(controller, note, NULL), 0);
}

/* Is this process in a group of version 1 with just this controller? */
static bool has(const char *controller)
{
    char line[4096], wanted[32];
    bool found = false;
    FILE *groups = fopen("/proc/self/cgroup", "re");

    snprintf(wanted, sizeof(wanted), ":%s:", controller);
    while (groups && fgets(line, sizeof(line), groups))
        found = found || strstr(line, wanted);
    cr_assert(groups && fclose(groups) == 0);
    return found;
}

/* Who asks for a controller is shown the hierarchy that has it, and of version 1 no other one. */
Test(cgroup, of_a_controller)
{
    look("memory");
    cr_assert_eq(memory, has("memory"));
    cr_assert_not(pids, "a hierarchy without that controller is looked at");
    look(NULL);
    cr_assert_eq(memory, has("memory"));
    cr_assert_eq(pids, has("pids"));
}

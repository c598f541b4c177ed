/* SPDX-License-Identifier: MIT
 *
 * The wait for the view, for programs of tests/shim that are served.
 */
#ifndef TESTS_SHIM_VIEW_H
#define TESTS_SHIM_VIEW_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Is the view mounted over @directory, within a minute?  The kernel says so: /proc isn't the library's. */
static bool view_comes(const char *directory)
{
    char line[1000], wanted[400];

    snprintf(wanted, sizeof(wanted), " %s fuse.fastspool ", directory);
    for (int i = 0; i < 6000; i++, usleep(10000)) {
        FILE *mounts = fopen("/proc/self/mounts", "r");
        bool found = false;
        while (mounts && fgets(line, sizeof(line), mounts))
            found = found || strstr(line, wanted);
        if (mounts)
            fclose(mounts);
        if (found)
            return true;
    }
    return false;
}

#endif

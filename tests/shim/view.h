/* SPDX-License-Identifier: MIT
 *
 * Waits for the view, and for its files, for programs of tests/shim that are served.
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

/* Does number @fd of @process wait for its file?  (Its own look would open it.) */
static inline bool view_awaits(pid_t process, int fd)
{
    char link[64], target[600];

    snprintf(link, sizeof(link), "/proc/%d/fd/%d", process, fd);
    ssize_t length = readlink(link, target, sizeof(target) - 1);
    target[length > 0 ? length : 0] = '\0';
    return strstr(target, "/.fastspool:") && !strstr(target, ":/");
}

#endif

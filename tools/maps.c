/* SPDX-License-Identifier: MIT
 *
 * Which files a process has mapped.
 *
 * Failure modes: the mail user's process may map a file of any name: what its path says is no proof.
 */
#include "maps.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

bool maps_find(pid_t pid, const char *start, const char *end)
{
    char path[48], line[PATH_MAX + 128];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/maps", (long)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !found && fgets(line, sizeof(line), maps)) {
        const char *at = strstr(line, start);
        found = at && strstr(at, end);
    }
    if (maps)
        fclose(maps);
    return found;
}

/* The numbers in a line of maps are the file system's own, which are not always those that stat(2) has. */
bool maps_has(pid_t pid, const char *name, const struct stat *file)
{
    char path[96], line[PATH_MAX + 128];
    struct stat st;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/maps", (long)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !found && fgets(line, sizeof(line), maps)) {
        snprintf(path, sizeof(path), "/proc/%ld/map_files/%.*s", (long)pid, (int)strcspn(line, " "), line);
        found = strstr(line, name) && stat(path, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
    }
    if (maps)
        fclose(maps);
    return found;
}

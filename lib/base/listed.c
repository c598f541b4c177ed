/* SPDX-License-Identifier: MIT
 *
 * The locks that the kernel lists for everybody, also for those that may not open the file: a process that can open it
 * can lock it.
 *
 * Failure modes:
 *   - A file system whose files have another device number than it has itself, as btrfs and some overlays: its locks
 *     are not found.
 *   - The list is longer than one read, and between two reads a lock of the first part goes: the kernel, which counts
 *     where it was, leaves one out.  So a lock that is not found is looked for again.
 */
#include "base/listed.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define LOOKS 5

static pid_t look(const struct stat *st)
{
    char line[128], part[4096]; /* the kernel gives no more at once */
    unsigned major_number, minor_number;
    unsigned long inode;
    long pid, result = 0;
    FILE *file = fopen("/proc/locks", "re");

    if (!file)
        return -errno;
    setvbuf(file, part, _IOFBF, sizeof(part));
    while (result == 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%*d: %*s %*s WRITE %ld %x:%x:%lu", &pid, &major_number, &minor_number, &inode) == 4 &&
            makedev(major_number, minor_number) == st->st_dev && inode == st->st_ino)
            result = pid;
    }
    fclose(file);
    return (pid_t)result;
}

pid_t listed_locker(const struct stat *st)
{
    pid_t locker = 0;

    for (int looks = 0; locker == 0 && looks < LOOKS; looks++)
        locker = look(st);
    return locker;
}

/* SPDX-License-Identifier: MIT
 *
 * The locks that the kernel lists for everybody, also for those that may not open the file: a process that can open it
 * can lock it.
 *
 * Failure modes: a file system whose files have another device number than it has itself, as btrfs and some overlays:
 * its locks are not found.
 */
#include "base/listed.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

pid_t listed_locker(const struct stat *st)
{
    char line[128];
    unsigned major_number, minor_number;
    unsigned long inode;
    long pid, result = 0;
    FILE *file = fopen("/proc/locks", "re");

    if (!file)
        return -errno;
    while (result == 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%*d: %*s %*s WRITE %ld %x:%x:%lu", &pid, &major_number, &minor_number, &inode) == 4 &&
            makedev(major_number, minor_number) == st->st_dev && inode == st->st_ino)
            result = pid;
    }
    fclose(file);
    return (pid_t)result;
}

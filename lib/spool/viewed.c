/* SPDX-License-Identifier: MIT
 *
 * Is there a view: is the store mounted where every program sees it?
 *
 * Happy path: SPOOL/input lies in another mount than SPOOL, and the list of this process's mounts says that it is a
 * view.
 *
 * Nothing here asks the view's server.  With the library in /etc/ld.so.preload each program of the machine comes here
 * at its first path: a server that doesn't answer must not stop sshd or a shell.  The kernel answers by itself for a
 * descriptor of a mount point that was opened with O_PATH, and for /proc.
 *
 * Failure modes:
 *   - The view's server is dead: the mount is still a view.  Nobody takes the disk's directory below it for the queue.
 *   - /proc is not mounted: there is no view.
 */
#include "spool/viewed.h"

#include "fastspool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TYPE " - fuse.fastspool "
#define LINE 4096 /* of a list of mounts: a view's is shorter */

/* The mount that directory @path lies in, or the one that is mounted there; -1: it can't be said. */
static int mount_of(const char *path)
{
    char info[64], text[256];
    int id = -1, fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    snprintf(info, sizeof(info), "/proc/self/fdinfo/%d", fd);
    int file = open(info, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? 0 : read(file, text, sizeof(text) - 1);
    text[size > 0 ? size : 0] = '\0';
    const char *found = strstr(text, "mnt_id:");
    if (found)
        id = atoi(found + strlen("mnt_id:"));
    if (file >= 0)
        close(file);
    close(fd);
    return id;
}

/* Is @line of mountinfo about mount @id, and that one a view? */
static bool is_view(const char *line, int id)
{
    return atoi(line) == id && strstr(line, TYPE);
}

/* Look for mount @id in the list. */
static bool is_mounted_view(int id)
{
    char text[LINE + 1];
    size_t used = 0;
    bool found = false;
    int file = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    ssize_t got;

    while (file >= 0 && !found && (got = read(file, text + used, LINE - used)) > 0) {
        char *line = text, *end;
        used += (size_t)got;
        text[used] = '\0';
        while (!found && (end = strchr(line, '\n'))) {
            *end = '\0';
            found = is_view(line, id);
            line = end + 1;
        }
        used = line == text && used == LINE ? 0 : used - (size_t)(line - text);
        memmove(text, line, used);
    }
    if (file >= 0)
        close(file);
    return found;
}

bool viewed(const char *spool)
{
    char input[FASTSPOOL_PATH_MAX + sizeof("/input")];
    int saved = errno;

    snprintf(input, sizeof(input), "%s/input", spool);
    int above = mount_of(spool), below = mount_of(input);
    bool is = below >= 0 && below != above && is_mounted_view(below);
    errno = saved;
    return is;
}

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
 *   - SPOOL has no `input`, or this user may not look for it: there is no view.
 *   - Without /proc: where both lie in one mount there is no view.
 *   - It can't be said, for want of descriptors, or without /proc: the errno.  A process that took that for "no view"
 *     would go into the store beside the view, or to the directory below it.
 */
#include "spool/viewed.h"

#include "fastspool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TYPE " - fuse.fastspool "
#define LINE 4096 /* of a list of mounts: a view's is shorter */

/* The same number.  The flag keeps the kernel from asking a view's server. */
static int mount_without_proc(int fd)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0)
        return -errno;
    return st.stx_mask & STATX_MNT_ID ? (int)st.stx_mnt_id : -ENOSYS;
}

/* The mount that directory @path lies in, or the one that is mounted there; -errno: it can't be said. */
static int mount_of(const char *path)
{
    char info[64], text[256];
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    snprintf(info, sizeof(info), "/proc/self/fdinfo/%d", fd);
    int file = open(info, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
    int result = size < 0 ? (errno == ENOENT ? mount_without_proc(fd) : -errno) : -EIO;
    text[size > 0 ? size : 0] = '\0';
    const char *found = strstr(text, "mnt_id:");
    if (found)
        result = atoi(found + strlen("mnt_id:"));
    if (file >= 0)
        close(file);
    close(fd);
    return result;
}

/* Is @line of mountinfo about mount @id, and that one a view? */
static bool is_view(const char *line, int id)
{
    return atoi(line) == id && strstr(line, TYPE);
}

/* Is mount @id, in the list, a view?  1 or 0; -errno: the list can't be read. */
static int is_mounted_view(int id)
{
    char text[LINE + 1];
    size_t used = 0;
    bool found = false;
    int file = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : 0;

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
    int result = got >= 0 ? found : errno == ENOENT ? -ENOSYS : -errno; /* without /proc */
    if (file >= 0)
        close(file);
    return result;
}

int viewed(const char *spool)
{
    char input[FASTSPOOL_PATH_MAX + sizeof("/input")];
    int saved = errno;

    snprintf(input, sizeof(input), "%s/input", spool);
    int above = mount_of(spool), below = above < 0 ? above : mount_of(input);
    int result = below < 0 ? below : below != above ? is_mounted_view(below) : 0;
    errno = saved;
    return result == -ENOENT || result == -ENOTDIR || result == -EACCES ? 0 : result;
}

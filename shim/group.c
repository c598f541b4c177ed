/* SPDX-License-Identifier: MIT
 *
 * The control group of this process.
 *
 * A user may freeze the groups that were delegated to him (systemd's user@.service), or give them hardly any time of a
 * processor.  Exim takes root's real uid for a delivery, but it stays in the group of the user whose sendmail it was.
 *
 * Happy path: /proc/self/cgroup names the groups; the owner of each one's directory, from the top on, is who rules it.
 *
 * Failure modes:
 *   - No control groups are mounted at their usual place, or there is no /proc: the answer is no.
 *   - The list can't be read, for want of descriptors, or a path in it is too long: the answer is yes.  A user decides
 *     how many descriptors his sendmail may have, and how deep his groups are.
 */
#include "group.h"

#include "wrapper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PLACE "/sys/fs/cgroup"

/* Group @path of the hierarchy that is mounted at @hierarchy below PLACE. */
static bool is_users(const char *hierarchy, const char *path, bool (*trusts)(uid_t uid))
{
    char directory[PATH_MAX];
    struct stat st;
    size_t top = strlen(PLACE) + strlen(hierarchy);

    if (snprintf(directory, sizeof(directory), PLACE "%s%s", hierarchy, path) >= (int)sizeof(directory))
        return true;
    for (char *slash = strchr(directory + top + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (real.stat(directory, &st) == 0 && st.st_uid != 0 && !trusts(st.st_uid))
            return true;
        if (!slash)
            return false;
        *slash = '/';
    }
}

/* @line: "0::/PATH", or "NUMBER:CONTROLLERS:/PATH" of version 1, which is mounted at PLACE/CONTROLLERS. */
static bool is_users_line(char *line, bool (*trusts)(uid_t uid))
{
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!path || path[1] != '/')
        return false;
    *path++ = '\0';
    *controllers = '/';
    if (controllers[1])
        return is_users(controllers, path, trusts);
    return is_users("", path, trusts) || is_users("/unified", path, trusts);
}

bool group_is_users(bool (*trusts)(uid_t uid))
{
    char text[2 * PATH_MAX], *rest;
    int fd = real.open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : real.read(fd, text, sizeof(text) - 1);
    bool found = fd < 0 ? errno != ENOENT : size < 0 || size == sizeof(text) - 1;

    if (fd >= 0)
        real.close(fd);
    text[size > 0 ? size : 0] = '\0';
    for (char *line = strtok_r(text, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest))
        found = is_users_line(line, trusts);
    return found;
}

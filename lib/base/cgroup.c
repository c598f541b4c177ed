/* SPDX-License-Identifier: MIT
 *
 * The control groups of this process.
 *
 * A user may freeze the groups that were delegated to him (systemd's user@.service), or give them hardly any time of a
 * processor.  Exim takes root's real uid for a delivery, but it stays in the group of the user whose sendmail it was.
 *
 * Happy path: /proc/self/cgroup names the groups, a line each; the owner of each one's directory, from the top on, is
 * who rules it.
 *
 * Failure modes:
 *   - No control groups are mounted at their usual place, or there is no /proc: there are none.
 *   - The list can't be read, for want of descriptors, or a path in it is too long: the answer is yes.  A user decides
 *     how many descriptors his sendmail may have, and how deep his groups are.
 */
#include "base/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLACE "/sys/fs/cgroup"

typedef bool look_at(const struct cgroup *group, void *context);

static bool look_in(const char *hierarchy, const char *path, look_at *look, void *context)
{
    char directory[PATH_MAX];

    if (snprintf(directory, sizeof(directory), PLACE "%s", hierarchy) >= (int)sizeof(directory))
        return true;
    return look(&(struct cgroup){directory, path}, context);
}

/* @line: "0::/PATH", or "NUMBER:CONTROLLERS:/PATH" of version 1, which is mounted at PLACE/CONTROLLERS. */
static bool look_at_line(char *line, look_at *look, void *context)
{
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!path || path[1] != '/')
        return false;
    *path++ = '\0';
    *controllers = '/';
    if (strncmp(controllers, "/name=", 6) == 0) { /* systemd's own is mounted by its name */
        controllers += 5;
        *controllers = '/';
    }
    if (controllers[1])
        return look_in(controllers, path, look, context);
    return look_in("", path, look, context) || look_in("/unified", path, look, context);
}

bool cgroup_any(look_at *look, void *context)
{
    char text[2 * PATH_MAX], *rest;
    int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    bool found = fd < 0 ? errno != ENOENT : size < 0 || size == sizeof(text) - 1;

    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = '\0';
    for (char *line = strtok_r(text, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest))
        found = look_at_line(line, look, context);
    return found;
}

struct above {
    bool (*look)(const char *directory, void *context);
    void *context;
};

static bool look_above(const struct cgroup *group, void *context)
{
    const struct above *above = context;
    size_t top = strlen(group->hierarchy);
    char directory[PATH_MAX];

    if (snprintf(directory, sizeof(directory), "%s%s", group->hierarchy, group->path) >= (int)sizeof(directory))
        return true;
    for (char *slash = directory + top; slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (above->look(directory, above->context))
            return true;
        *slash = '/';
    }
    return group->path[1] && above->look(directory, above->context);
}

bool cgroup_any_above(bool (*look)(const char *directory, void *context), void *context)
{
    return cgroup_any(look_above, &(struct above){look, context});
}

struct truster {
    bool (*trusts)(uid_t uid);
};

static bool is_users(const char *directory, void *context)
{
    const struct truster *truster = context;
    struct stat st;

    return stat(directory, &st) == 0 && st.st_uid != 0 && !truster->trusts(st.st_uid);
}

bool cgroup_is_users(bool (*trusts)(uid_t uid))
{
    return cgroup_any_above(is_users, &(struct truster){trusts});
}

/* SPDX-License-Identifier: MIT
 *
 * The control groups of this process, and whether another one is frozen.
 *
 * A user may freeze the groups that were delegated to him (systemd's user@.service), or give them hardly any time of a
 * processor.  Exim takes root's real uid for a delivery, but it stays in the group of the user whose sendmail it was.
 *
 * Happy path: /proc/self/cgroup names the groups, a line each; the owner of each one's directory, from the top on, is
 * who rules it.
 *
 * Failure modes:
 *   - No control groups are mounted at their usual place, or there is no /proc: there are none.
 *   - The list can't be read, for want of descriptors, a path in it is too long, or a directory can't be looked at: it
 *     can't be said, which is neither yes nor no.
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
#define USUAL 2048           /* bytes of a list */
#define MOST  (2 * PATH_MAX) /* of one that is read */

typedef int look_at(const struct cgroup *group, void *context);

/* Of @first and @second, in this order, into @whole, which has room for them.  (printf(3) would be half of what is done
 * for a group.  Rooms are no larger than they must be: each page of stack is a page fault in each process that decides
 * whether to serve.) */
static void join(char *whole, const char *first, const char *second)
{
    strcpy(stpcpy(whole, first), second);
}

static int look_in(const char *hierarchy, const char *path, look_at *look, void *context)
{
    size_t length = strlen(PLACE) + strlen(hierarchy);

    if (length >= PATH_MAX)
        return -ENAMETOOLONG;
    char directory[length + 1];
    join(directory, PLACE, hierarchy);
    return look(&(struct cgroup){directory, path}, context);
}

/* @line: "0::/PATH", or "NUMBER:CONTROLLERS:/PATH" of version 1, which is mounted at PLACE/CONTROLLERS. */
static int look_at_line(char *line, look_at *look, void *context)
{
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!path || path[1] != '/')
        return 0;
    *path++ = '\0';
    *controllers = '/';
    if (strncmp(controllers, "/name=", 6) == 0) { /* systemd's own is mounted by its name */
        controllers += 5;
        *controllers = '/';
    }
    if (controllers[1])
        return look_in(controllers, path, look, context);
    int found = look_in("", path, look, context);
    return found ? found : look_in("/unified", path, look, context);
}

/* @list: the groups of a process, /proc/PID/cgroup, in less than @room bytes. */
static int look_in_room(const char *list, size_t room, look_at *look, void *context)
{
    char text[room];
    int fd = open(list, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, room - 1);
    int found = size < 0 && errno != ENOENT ? -errno : 0;

    if (fd >= 0)
        close(fd);
    if (size < 0)
        return found;
    if (size == (ssize_t)room - 1)
        return -ENAMETOOLONG;
    text[size] = '\0';
    for (char *rest = text, *line; !found && (line = strsep(&rest, "\n"));)
        found = look_at_line(line, look, context);
    return found;
}

static int look_at_list(const char *list, look_at *look, void *context)
{
    int found = look_in_room(list, USUAL, look, context);

    return found == -ENAMETOOLONG ? look_in_room(list, MOST, look, context) : found;
}

int cgroup_any(look_at *look, void *context)
{
    return look_at_list("/proc/self/cgroup", look, context);
}

static bool has_text(const struct cgroup *group, const char *name, const char *wanted)
{
    char path[PATH_MAX], text[64];
    bool fits = snprintf(path, sizeof(path), "%s%s/%s", group->hierarchy, group->path, name) < (int)sizeof(path);
    int fd = fits ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = '\0';
    return strstr(text, wanted);
}

/* Both versions count the groups above. */
static int is_frozen(const struct cgroup *group, void *context)
{
    (void)context;
    return has_text(group, "freezer.state", "FROZEN") || has_text(group, "cgroup.events", "frozen 1");
}

bool cgroup_is_frozen(pid_t pid)
{
    char list[32];

    snprintf(list, sizeof(list), "/proc/%ld/cgroup", (long)pid);
    return look_at_list(list, is_frozen, NULL) > 0;
}

struct above {
    const char *controller;
    int (*look)(const char *directory, void *context);
    void *context;
};

/* Version 2 has all controllers in one hierarchy, at PLACE or PLACE/unified.  Another hierarchy's name lists them. */
static bool has_controller(const char *hierarchy, const char *controller)
{
    const char *name = hierarchy + strlen(PLACE);
    return !controller || !*name || strcmp(name, "/unified") == 0 || strstr(name, controller);
}

static int look_above(const struct cgroup *group, void *context)
{
    const struct above *above = context;
    size_t top = strlen(group->hierarchy), length = top + strlen(group->path);
    int found = 0;

    if (!has_controller(group->hierarchy, above->controller))
        return 0;
    if (length >= PATH_MAX)
        return -ENAMETOOLONG;
    char directory[length + 1];
    join(directory, group->hierarchy, group->path);
    for (char *slash = directory + top; slash && !found; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        found = above->look(directory, above->context);
        *slash = '/';
    }
    if (!found && group->path[1])
        found = above->look(directory, above->context);
    return found == -ENOENT ? 0 : found;
}

int cgroup_any_above(const char *controller, int (*look)(const char *directory, void *context), void *context)
{
    return cgroup_any(look_above, &(struct above){controller, look, context});
}

int cgroup_any_above_of(pid_t pid, const char *controller, int (*look)(const char *directory, void *context),
                        void *context)
{
    char list[32];

    snprintf(list, sizeof(list), "/proc/%ld/cgroup", (long)pid);
    return look_at_list(list, look_above, &(struct above){controller, look, context});
}

struct truster {
    bool (*trusts)(uid_t uid);
};

static int is_users(const char *directory, void *context)
{
    const struct truster *truster = context;
    struct stat st;

    if (stat(directory, &st) < 0)
        return errno == ENOTDIR ? -ENOENT : -errno; /* the first: mounted elsewhere, or not at all */
    return st.st_uid != 0 && !truster->trusts(st.st_uid);
}

int cgroup_is_users(bool (*trusts)(uid_t uid))
{
    return cgroup_any_above(NULL, is_users, &(struct truster){trusts});
}

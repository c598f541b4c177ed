/* SPDX-License-Identifier: MIT
 *
 * The control groups of this process, and whether another one is frozen.
 */
#ifndef FASTSPOOL_CGROUP_H
#define FASTSPOOL_CGROUP_H

#include <stdbool.h>
#include <sys/types.h>

/** A control group of this process: the directory where its hierarchy is mounted, and its path there, "/" at least. */
struct cgroup {
    const char *hierarchy;
    const char *path;
};

/** Call @look with each group of this process, until it returns something else than 0; that is the result.  0 where
 * /proc or /sys/fs/cgroup is missing.  -errno where the groups can't be known: their list can't be read, or a path is
 * too long. Any thread; allocates nothing. */
int cgroup_any(int (*look)(const struct cgroup *group, void *context), void *context);

/** The same for the directory of each group and of those above it that can be seen, from the top on.  -ENOENT by @look:
 *  there is no such directory, so none below it either; the next hierarchy follows.  @controller: only of those
 *  hierarchies that may have this one ("memory"); NULL: of all. */
int cgroup_any_above(const char *controller, int (*look)(const char *directory, void *context), void *context);

/** The same of process @pid. */
int cgroup_any_above_of(pid_t pid, const char *controller, int (*look)(const char *directory, void *context),
                        void *context);

/** Is process @pid frozen, by its group or one above?  False, too, where that can't be said. */
bool cgroup_is_frozen(pid_t pid);

/** Is a group of this process, or one above, a user's that @trusts doesn't trust?  1 or 0; -errno: it can't be said. */
int cgroup_is_users(bool (*trusts)(uid_t uid));

#endif

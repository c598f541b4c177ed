/* SPDX-License-Identifier: MIT
 *
 * The control groups of this process.
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

/** Call @look with each group of this process, until it returns true; that is the result.  False where /proc or
 *  /sys/fs/cgroup is missing, true where the groups can't be known: their list can't be read, or a path is too long.
 *  Any thread; allocates nothing. */
bool cgroup_any(bool (*look)(const struct cgroup *group, void *context), void *context);

/** The same for the directory of each group and of those above it that can be seen, from the top on. */
bool cgroup_any_above(bool (*look)(const char *directory, void *context), void *context);

/** Is a group of this process, or one above, a user's that @trusts doesn't trust? */
bool cgroup_is_users(bool (*trusts)(uid_t uid));

#endif

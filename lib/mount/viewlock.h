/* SPDX-License-Identifier: MIT
 *
 * The lock that says "a view of this state lives": STATE/view.lock.
 */
#ifndef FASTSPOOL_MOUNT_VIEWLOCK_H
#define FASTSPOOL_MOUNT_VIEWLOCK_H

#include <sys/stat.h>

/** Take the lock of @state for life, with the rights of the owner of @spool; the directory is made where it is missing.
 *  0; -EWOULDBLOCK: another process has it; or another negative errno. */
int viewlock_take(const char *state, const struct stat *spool);

/** Take it again where its file was removed or replaced. */
void viewlock_keep(uid_t owner, gid_t group);

/** Lock @fd with flock(2).  The same results. */
int viewlock_whole(int fd);

#endif

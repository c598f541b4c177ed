/* SPDX-License-Identifier: MIT
 *
 * Access control lists of files: rights for single users.
 * Every function returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_ACL_H
#define FASTSPOOL_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct stat;

#define ACL_USERS_MAX 16 /* users that a list of ours names */

/** Give these users @rights (R_OK, W_OK, X_OK) to @fd, and no other user any of its own.  0 users: there is no list any
 *  more.  @fd < 0: -errno.  -EOPNOTSUPP: the file system has no lists. */
int acl_give(int fd, const uid_t *users, size_t named, unsigned rights);
/** Is the list of @fd as acl_give() would set it? */
bool acl_is(int fd, const uid_t *users, size_t named, unsigned rights);
/** Give the file @to the list of @from, if that has one. */
int acl_copy(int from, int to);

/** Have only the owner, and users that are named one by one, any right to @fd, whose attributes are @st? */
bool acl_alone(int fd, const struct stat *st);
/** Are all users that the list of @fd names among these? */
bool acl_names_only(int fd, const uid_t *users, size_t named);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Trusted users: the rights of users besides root and the owner to attach.
 */
#ifndef FASTSPOOL_TRUST_H
#define FASTSPOOL_TRUST_H

struct fastspool;
struct fastspool_config;

/** For a process of root's or the owner's, with the owner's rights: give all that attaching opens the rights of the
 *  configured trusted users, no more and no fewer.  -EOPNOTSUPP: the file system has no access control lists. */
int trust_settle(const struct fastspool *fs, const struct fastspool_config *config, int state_fd);

#endif

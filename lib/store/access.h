/* SPDX-License-Identifier: MIT
 *
 * Access: the user that a call acts for, permission checks, and the attributes that only some users may change.
 */
#ifndef FASTSPOOL_ACCESS_H
#define FASTSPOOL_ACCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct timespec;

/** The user that a call acts for.  Supplementary groups are read only if a check depends on them. */
struct credentials {
    uid_t uid; /* of new files */
    gid_t gid;
    bool privileged; /* root, or the thread has called fastspool_act_for(): every check passes */
};
/** The thread's fastspool_act_for(), or the effective ids, cached until fastspool_credentials_changed(). */
void access_credentials(struct credentials *who);
/** Where the highest change is kept that the process, or the client that the thread acts for, has synced. */
uint64_t *access_synced(struct fastspool *fs);
/** May @who access the inode?  @want: a mask of R_OK, W_OK, X_OK.  0 or -EACCES. */
int access_permitted(const struct fastspool *fs, uint32_t inode, const struct credentials *who, int want);

/** In a section: chmod(2), chown(2), utimensat(2) of the inode by @who.  0; -EPERM: @who may not; access_utimens() also
 *  -EACCES and -EINVAL, as utimensat(2). */
int access_chmod(struct fastspool *fs, uint32_t inode, mode_t mode, const struct credentials *who);
int access_chown(struct fastspool *fs, uint32_t inode, uid_t uid, gid_t gid, const struct credentials *who);
int access_utimens(struct fastspool *fs, uint32_t inode, const struct timespec times[2], const struct credentials *who);

#endif

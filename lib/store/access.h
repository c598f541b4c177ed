/* SPDX-License-Identifier: MIT
 *
 * Access: which user a call acts for, what that user may do with an inode, and the attributes that only some may
 * change.
 */
#ifndef FASTSPOOL_ACCESS_H
#define FASTSPOOL_ACCESS_H

#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct timespec;

/** Who asks: effective ids.  Groups are looked up only where they decide. */
struct credentials {
    uid_t uid;
    gid_t gid;
};
/** The effective ids, asked once; again after fastspool_credentials_changed(). */
void access_credentials(struct credentials *who);
/** access check: @want is a mask of R_OK, W_OK, X_OK. */
int access_permitted(const struct fastspool *fs, uint32_t inode, const struct credentials *who, int want);

int access_chmod(struct fastspool *fs, uint32_t inode, mode_t mode, const struct credentials *who); /* in a section */
int access_chown(struct fastspool *fs, uint32_t inode, uid_t uid, gid_t gid, const struct credentials *who);
int access_utimens(struct fastspool *fs, uint32_t inode, const struct timespec times[2], const struct credentials *who);

#endif

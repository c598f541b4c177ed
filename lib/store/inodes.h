/* SPDX-License-Identifier: MIT
 *
 * Inodes: the table of files, their attributes, the dirty list.
 */
#ifndef FASTSPOOL_INODES_H
#define FASTSPOOL_INODES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct inode;
struct stat;
struct timespec;

/** Inside a section.  A new file (links 0, opens 0). */
int inodes_take(struct fastspool *fs, mode_t mode, uid_t uid, gid_t gid, uint32_t *inode);
/** Make the root directory of an empty store, with the attributes of the spool directory. */
int inodes_make_root(struct fastspool *fs);
/** Inside a section: free the inode if it has neither names nor descriptions. */
int inodes_drop(struct fastspool *fs, uint32_t inode);
/** Outside: free the blocks of orphans, a step at a time. */
int inodes_free_orphans(struct fastspool *fs);
/** Inside a section: the inode's record (and the blocks [from, to) of its data) must go to the disk. */
void inodes_dirty(struct fastspool *fs, uint32_t inode);
void inodes_dirty_data(struct fastspool *fs, uint32_t inode, uint32_t from, uint32_t to);
/** Inside a section: its data is on the disk; the inode is, and leaves the dirty list. */
void inodes_clean_data(struct fastspool *fs, struct inode *inode);
void inodes_clean(struct fastspool *fs, uint32_t inode);
/** st_ino of an inode. */
uint64_t inodes_number(uint32_t inode);
/** Under the lock or in a read: the attributes. */
void inodes_stat(const struct fastspool *fs, uint32_t inode, struct stat *st);
bool inodes_valid(const struct fastspool *fs, uint32_t inode);

/** Who asks: effective ids.  Groups are looked up only where they decide. */
struct credentials {
    uid_t uid;
    gid_t gid;
};
/** The effective ids, asked once; again after fastspool_credentials_changed(). */
void inodes_credentials(struct credentials *who);
/** access check: @want is a mask of R_OK, W_OK, X_OK. */
int inodes_permitted(const struct fastspool *fs, uint32_t inode, const struct credentials *who, int want);

int inodes_chmod(struct fastspool *fs, uint32_t inode, mode_t mode, const struct credentials *who); /* in a section */
int inodes_chown(struct fastspool *fs, uint32_t inode, uid_t uid, gid_t gid, const struct credentials *who);
int inodes_utimens(struct fastspool *fs, uint32_t inode, const struct timespec times[2], const struct credentials *who);

#endif

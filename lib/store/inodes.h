/* SPDX-License-Identifier: MIT
 *
 * Inodes: the table of files, their attributes, the dirty list.
 */
#ifndef FASTSPOOL_INODES_H
#define FASTSPOOL_INODES_H

#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct inode;
struct stat;

/** Inside a section.  A new file (links 0, opens 0). */
int inodes_take(struct fastspool *fs, mode_t mode, uid_t uid, gid_t gid, uint32_t *inode);
/** Inside a section: the inode has neither names, descriptions nor blocks: its number is free. */
void inodes_give(struct fastspool *fs, uint32_t inode);
/** Inside a section: the inode's record (and the blocks [from, to) of its data) must go to the disk. */
void inodes_dirty(struct fastspool *fs, uint32_t inode);
void inodes_dirty_data(struct fastspool *fs, uint32_t inode, uint32_t from, uint32_t to);
/** Inside a section: its data is on the disk; the inode is, and leaves the dirty list. */
void inodes_clean_data(struct fastspool *fs, struct inode *inode);
void inodes_leave_dirty(struct fastspool *fs, uint32_t inode);
void inodes_clean(struct fastspool *fs, uint32_t inode);
/** st_ino of an inode. */
uint64_t inodes_number(uint32_t inode);
/** Under the lock or in a read: the attributes. */
void inodes_stat(const struct fastspool *fs, uint32_t inode, struct stat *st);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Inodes: the table of files, their attributes, and the dirty list.
 */
#ifndef FASTSPOOL_INODES_H
#define FASTSPOOL_INODES_H

#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct inode;
struct stat;

/** In a section: take an inode for a new file, without names and descriptions.  Fails as table_take(). */
int inodes_take(struct fastspool *fs, mode_t mode, uid_t uid, gid_t gid, uint32_t *inode);
/** In a section: free the number of an inode that has no names, descriptions and blocks. */
void inodes_give(struct fastspool *fs, uint32_t inode);
/** In a section: the inode has changed, and must go to the disk. */
void inodes_dirty(struct fastspool *fs, uint32_t inode);
/** The same, and so must the blocks [from, to) of its data. */
void inodes_dirty_data(struct fastspool *fs, uint32_t inode, uint32_t from, uint32_t to);
/** In a section: no data of the inode is left to write. */
void inodes_clean_data(struct fastspool *fs, const struct inode *inode);
/** In a section: nothing of the inode is left to write.  It leaves the dirty list. */
void inodes_leave_dirty(struct fastspool *fs, uint32_t inode);
/** The same, and its data may be evicted: it joins the clean list or the cold one. */
void inodes_clean(struct fastspool *fs, uint32_t inode);
/** The attributes of a copy of an inode: 0, or -EUCLEAN: no file can have them (doubt.h). */
int inodes_check(const struct inode *copy);
/** The st_ino of an inode. */
uint64_t inodes_number(uint32_t inode);
/** Under the lock or in a read: fill in *@st.  -EUCLEAN: no file can have such attributes (doubt.h). */
int inodes_stat(const struct fastspool *fs, uint32_t inode, struct stat *st);

#endif

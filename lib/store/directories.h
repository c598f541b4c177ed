/* SPDX-License-Identifier: MIT
 *
 * The calls on directories, as far as other files use them.
 */
#ifndef FASTSPOOL_DIRECTORIES_H
#define FASTSPOOL_DIRECTORIES_H

#include <stdint.h>
#include <sys/types.h>

struct credentials;
struct fastspool;
struct place;
struct stat;

/** In a section: make a file or directory at @place, where walk_to() found none.  @who owns it; a set-group-ID
 *  directory passes its group on.  -EACCES: @who may not change the names there; -EMLINK: too many subdirectories; or
 *  as inodes_take() and names_add(). */
int directories_make(struct fastspool *fs, const struct place *place, mode_t mode, const struct credentials *who,
                     uint32_t *inode);
/** Make the directory @path in the store, and those above it that are missing, with these attributes.  For a directory
 *  that only the disk has, from before fastspool, when a file is to be made in it. */
int directories_adopt(struct fastspool *fs, const char *path, const struct stat *attributes);

/** Make the root directory of an empty store, with the attributes of the spool directory. */
int directories_make_root(struct fastspool *fs);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Names: from a directory and a name to an inode, and from a directory to all its names.
 */
#ifndef FASTSPOOL_NAMES_H
#define FASTSPOOL_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fastspool;
struct name;

/** The hash of @name (@length bytes) in directory @parent: a call computes it once. */
uint64_t names_hash(const struct fastspool *fs, uint32_t parent, const char *name, size_t length);

/** In a section: give @inode the name @name (@length bytes), whose hash is @hash, in directory @parent.  The name must
 * not exist there.  -EAGAIN: a table is full (section_want()). */
int names_add(struct fastspool *fs, uint32_t parent, const char *name, size_t length, uint64_t hash, uint32_t inode);

/** In a section: remove the name @entry, whose hash is @hash.  The caller then calls orphans_drop().  -EIO: the segment
 * is damaged. */
int names_remove(struct fastspool *fs, uint32_t entry, uint64_t hash);
/** In a section: the inode of name @entry, whose hash is @hash, gets the name @name in directory @parent instead.  As
 *  names_add() and names_remove(). */
int names_move(struct fastspool *fs, uint32_t entry, uint64_t hash, uint32_t parent, const char *name, size_t length,
               uint64_t new_hash);
/** In a section: the name @entry leads to @inode from now on, of the same kind as the one before, which has a name
 * less. It keeps its place in the directory, so a listing that goes on neither misses it nor has it twice. */
int names_replace(struct fastspool *fs, uint32_t entry, uint32_t inode);

/** The mirror alone: split buckets ahead of the insertions. */
int names_split_ahead(struct fastspool *fs);
/** Copy the text of @entry to @text (256 bytes), whatever it is.  Returns its length. */
int names_text(const struct fastspool *fs, uint32_t entry, char *text);
/** Under the lock or in a read: the same, for a name that leaves the segment.  -EUCLEAN: no file can have it (doubt.h).
 */
int names_read(const struct fastspool *fs, uint32_t entry, char *text);
/** In a section: the entry before or behind this one in its directory, in order of birth.  0: there is none. */
uint32_t names_beside(const struct fastspool *fs, uint32_t entry, bool behind);

/** Steps of a walk along names, at most: more is a circle. */
uint32_t names_most(const struct fastspool *fs);
/** Under the lock or in a read: look for @text in directory @parent.  Returns its entry, 0: there is none; its hash, as
 *  of names_hash(), in *@hash; the inode to which it leads, unchecked, or 0, in *@inode.  -EUCLEAN: its chain has no
 *  end. */
int names_find(const struct fastspool *fs, uint32_t parent, const char *text, size_t length, uint64_t *hash,
               uint32_t *inode);
/** In a freed entry: the birth number of the name that came next, for a listing that stands here.  (A freed entry keeps
 *  `born`, `parent` and `next` too, until it is used again.) */
const uint64_t *names_successor(const struct name *name);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Walks: from a path to an inode, from a directory to its path, and through all names of a directory.
 */
#ifndef FASTSPOOL_WALK_H
#define FASTSPOOL_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct credentials;
struct fastspool;
struct fastspool_entry;

/** The end of a path. */
struct place {
    uint32_t parent;  /* inode of the directory that holds (or would hold) the last name */
    uint32_t inode;   /* 0: there is no such name */
    uint32_t entry;   /* its entry in the table of names, 0: none, or the path has no last name (".", "..") */
    const char *name; /* the last name, inside the path */
    size_t length;
    uint64_t hash;  /* of the last name (names_hash()), if the path has one */
    bool directory; /* the path ends in "/", "/." or "..": only a directory will do */
};
/** Under the lock or in a read: the handle of the inode, as in fastspool_lookup(). */
uint64_t walk_handle(const struct fastspool *fs, uint32_t inode);
/** Under the lock or in a read: walk @path with @who's search permissions.  A missing last name is no error: returns 0,
 *  and place->inode is 0.  -EUCLEAN: the segment is damaged (doubt.h). */
int walk_to(const struct fastspool *fs, const char *path, const struct credentials *who, struct place *place);
/** Under the lock or in a read, after walk_to(): does the path lead to a file or directory?  0; -ENOENT; -ENOTDIR: it
 *  ends in "/", and leads to a file. */
int walk_must_exist(const struct fastspool *fs, const struct place *place);
/** Outside sections and reads: copy the path of directory @inode, relative to the spool, to @path.  Returns its length.
 *  -ENOENT: the directory has no name any more.  -ENAMETOOLONG. */
int walk_path(struct fastspool *fs, uint32_t inode, char *path, size_t size);
/** In a read: as fastspool_list_end(). */
uint64_t walk_end(const struct fastspool *fs);
/** Under the lock or in a read: as fastspool_list().  -EUCLEAN: the segment is damaged. */
ssize_t walk_list(const struct fastspool *fs, uint32_t parent, uint64_t after, struct fastspool_entry *entries,
                  size_t size);

#endif

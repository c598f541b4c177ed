/* SPDX-License-Identifier: MIT
 *
 * Names: from a directory and a name to an inode, paths, listings.
 */
#ifndef FASTSPOOL_NAMES_H
#define FASTSPOOL_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct credentials;
struct fastspool;
struct fastspool_entry;

/** Where a path leads. */
struct place {
    uint32_t parent;  /* inode of the directory that holds (or would hold) the last name */
    uint32_t inode;   /* 0: there is no such name */
    uint32_t entry;   /* its entry in the table of names, 0: none, or the path has no last name (".", "..") */
    const char *name; /* the last name, inside the path */
    size_t length;
    bool directory; /* the path ends in "/", "/." or "..": only a directory will do */
};
/** Under the lock or in a read.  Missing last name: 0 with place->inode 0.  @who: search permission is checked. */
int names_walk(const struct fastspool *fs, const char *path, const struct credentials *who, struct place *place);
/** In a section, after names_walk(): 0: the path leads to a file or directory; -ENOENT; -ENOTDIR: only a directory will
 *  do, and it is none; -EIO: the segment is damaged. */
int names_must_exist(struct fastspool *fs, const struct place *place);
int names_add(struct fastspool *fs, uint32_t parent, const char *name, size_t length,
              uint32_t inode);                          /* in a section */
int names_remove(struct fastspool *fs, uint32_t entry); /* in a section */
/** The mirror alone: make the hash larger ahead of those who will add names. */
int names_split_ahead(struct fastspool *fs);
/** The path of directory @inode, relative to the spool, into @path; its length.  -ENOENT: it has no name any more. */
int names_path(const struct fastspool *fs, uint32_t inode, char *path, size_t size);
/** Under the lock or in a read: as fastspool_list(). */
ssize_t names_list(const struct fastspool *fs, uint32_t parent, uint64_t after, struct fastspool_entry *entries,
                   size_t size);
/** The text of entry @entry into @text (256 bytes), its length returned. */
int names_text(const struct fastspool *fs, uint32_t entry, char *text);
/** In a section: the entry before or behind this one in its directory, in the order of birth; 0: there is none. */
uint32_t names_beside(const struct fastspool *fs, uint32_t entry, bool behind);

#endif

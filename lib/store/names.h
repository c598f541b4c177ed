/* SPDX-License-Identifier: MIT
 *
 * Names: from a directory and a name to an inode.
 */
#ifndef FASTSPOOL_NAMES_H
#define FASTSPOOL_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fastspool;
struct name;

int names_add(struct fastspool *fs, uint32_t parent, const char *name, size_t length,
              uint32_t inode);                          /* in a section */
int names_remove(struct fastspool *fs, uint32_t entry); /* in a section */
/** The mirror alone: make the hash larger ahead of those who will add names. */
int names_split_ahead(struct fastspool *fs);
/** The text of entry @entry into @text (256 bytes), its length returned. */
int names_text(const struct fastspool *fs, uint32_t entry, char *text);
/** In a section: the entry before or behind this one in its directory, in the order of birth; 0: there is none. */
uint32_t names_beside(const struct fastspool *fs, uint32_t entry, bool behind);

/** Is @entry the number of an entry? */
bool names_valid(const struct fastspool *fs, uint32_t entry);
/** The entry of @text in directory @parent, 0: none.  Under the lock or in a read. */
uint32_t names_find(const struct fastspool *fs, uint32_t parent, const char *text, size_t length);
/** What a freed entry leaves for listings that stand at it: the birth number of the name that came next. */
uint64_t *names_successor(struct name *name);

#endif

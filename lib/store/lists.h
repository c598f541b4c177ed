/* SPDX-License-Identifier: MIT
 *
 * Lists of inodes in the segment, linked both ways.
 */
#ifndef FASTSPOOL_LISTS_H
#define FASTSPOOL_LISTS_H

#include "store/layout.h"

#include <stddef.h>
#include <stdint.h>

struct fastspool;

/** Links of an inode: the `which` of the functions below. */
#define LIST_LINK   offsetof(struct inode, list)
#define PAGEIN_LINK offsetof(struct inode, pagein)
/** Inside a section: put inode @i at the end of @list.  It must be in no list that uses this link. */
void lists_append(struct fastspool *fs, const struct list *list, size_t which, uint32_t i);
/** Inside a section: take inode @i out of @list.  It must be in it. */
void lists_remove(struct fastspool *fs, const struct list *list, size_t which, uint32_t i);

#endif

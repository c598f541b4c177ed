/* SPDX-License-Identifier: MIT
 *
 * Lists of inodes in the segment.  Every change is made inside a section.
 */
#ifndef FASTSPOOL_LISTS_H
#define FASTSPOOL_LISTS_H

#include "store/layout.h"

#include <stddef.h>
#include <stdint.h>

struct fastspool;

#define LIST_LINK   offsetof(struct inode, list)
#define PAGEIN_LINK offsetof(struct inode, pagein)
void lists_append(struct fastspool *fs, const struct list *list, size_t which, uint32_t i);
void lists_remove(struct fastspool *fs, const struct list *list, size_t which, uint32_t i);

#endif

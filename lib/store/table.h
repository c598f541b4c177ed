/* SPDX-License-Identifier: MIT
 *
 * Tables: entries of one size in the segment.  A table hands entries out one at a time, and grows in steps.
 */
#ifndef FASTSPOOL_TABLE_H
#define FASTSPOOL_TABLE_H

#include "store/section.h"

#include <stdint.h>

/** Inside a section: take a free entry, in *@entry.  It has the content that its last user left.  For TABLE_INODES,
 *  TABLE_NAMES and TABLE_DESCRIPTIONS only.  -EAGAIN: the table is full (section_want()), and the body must return it.
 *  -EIO: the segment is damaged. */
int table_take(struct fastspool *fs, enum table_id table, uint32_t *entry);
/** Inside a section: give an entry back.  It must be in use. */
void table_give(struct fastspool *fs, enum table_id table, uint32_t entry);
/** Inside a section: give back an entry that was never taken.  Recovery restores each entry under its old number, and
 *  frees the numbers between with this. */
void table_give_gap(struct fastspool *fs, enum table_id table, uint32_t entry);

/** Outside sections: take memory for more entries.  For TABLE_CHUNKS call blocks_add_chunk().  -EAGAIN: the limit or
 *  the system has no memory now.  -ENOSPC, -ENFILE (descriptions): the table has its largest size. */
int table_grow(struct fastspool *fs, enum table_id table);

/** Bytes of memory of the header and the tables: all but data.  From anywhere. */
uint64_t table_bytes(const struct header *header);

#endif

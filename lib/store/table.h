/* SPDX-License-Identifier: MIT
 *
 * Tables: entries of one size in the segment, taken and given back one at a time; the memory behind them grows in
 * steps.
 */
#ifndef FASTSPOOL_TABLE_H
#define FASTSPOOL_TABLE_H

#include "store/section.h"

#include <stdint.h>

/** Inside a section: an entry that nobody uses, in *@entry; its content is what its last user left.  -EAGAIN: the table
 *  is full (section_want()), to be returned by the body; -EIO: the segment is damaged.  TABLE_INODES, TABLE_NAMES and
 *  TABLE_DESCRIPTIONS only. */
int table_take(struct fastspool *fs, enum table_id table, uint32_t *entry);
/** Inside a section: give an entry back. */
void table_give(struct fastspool *fs, enum table_id table, uint32_t entry);
/** Inside a section: give an entry back that was never taken: recovery restores entries under the numbers that they
 * had. */
void table_give_gap(struct fastspool *fs, enum table_id table, uint32_t entry);

/** Outside sections: take memory for more entries.  -EAGAIN: there is no memory now, by the limit or of the system's;
 *  -ENOSPC, -ENFILE: the table is as large as it can be.  Not TABLE_CHUNKS: blocks_add_chunk(). */
int table_grow(struct fastspool *fs, enum table_id table);

/** Bytes of memory that the header and the tables have taken: all but data. */
uint64_t table_bytes(const struct header *header);

#endif

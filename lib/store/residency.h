/* SPDX-License-Identifier: MIT
 *
 * Residency: which data is in memory.
 */
#ifndef FASTSPOOL_RESIDENCY_H
#define FASTSPOOL_RESIDENCY_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct header;
struct list;

/** Bytes of memory that a file without data takes at the most: inode, name, its share of the hash. */
#define RESIDENCY_FILE_MEMORY 200u

/** In a section: the inode is on the disk, data too; its data may be evicted once a checkpoint holds it. */
void residency_join(struct fastspool *fs, uint32_t inode);
/** In a section: the inode changes: it leaves the clean list, or the cold one. */
void residency_leave_clean(struct fastspool *fs, uint32_t inode);
/** In a section: the inode's data is to be replaced or freed: it is in memory from now on, and wanted no more. */
void residency_leave(struct fastspool *fs, uint32_t inode);
/** In a section: the inode is opened: it is not cold, unless that is what it was brought back for. */
void residency_reference(struct fastspool *fs, uint32_t inode);

/** In a section, where the inode is evicted: have it brought back.  Then, outside, residency_wait(). */
void residency_want(struct fastspool *fs, uint32_t inode);
/** In a section, the mirror alone, where the inode is evicted and not wanted: the same, before anybody wants it. */
void residency_want_ahead(struct fastspool *fs, uint32_t inode);
/** Wait until the inode is in memory, or is another one by now.  0, or why it can't be brought back: -EIO, -ENOSPC, ...
 *  It may be evicted again at once, except while a description of it is open. */
int residency_wait(struct fastspool *fs, uint32_t inode, uint32_t generation);

/** Outside: wait for memory, on the mirror's eviction.  0: something has changed, try again; -ENOSPC: no more waiting.
 *  @since: 0 at first, ours. */
int residency_wait_for_space(struct fastspool *fs, uint64_t *since);
/** Outside: memory was taken from the system: is it time to evict?  Then the pager is told. */
void residency_notice(struct fastspool *fs);
/** Where eviction begins, and how far it goes: bytes of memory in use. */
uint64_t residency_high(const struct header *header);
uint64_t residency_low(const struct header *header);
/** Memory that holds something: tables, and blocks that aren't free. */
uint64_t residency_in_use(const struct header *header);

/** In a section: a spilled file is only evicted again. */
void residency_unspill(struct fastspool *fs, uint32_t inode);

/* ---- for the mirror, in sections ---- */

/** The list that the inode is in, or would be: the cold or the clean one. */
const struct list *residency_list(const struct fastspool *fs, uint32_t inode);
/** The inode's blocks are going: it is evicted. */
void residency_evict(struct fastspool *fs, uint32_t inode);
/** The data of an evicted file is in memory or, @spilled, in its spill file. */
void residency_paged_in(struct fastspool *fs, uint32_t inode, bool spilled);
/** A wanted file can't be paged in: its waiters get @error.  @for_good: no later request is tried. */
void residency_give_up(struct fastspool *fs, uint32_t inode, int error, bool for_good);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Residency: which files have their data in memory, eviction and page-in.
 */
#ifndef FASTSPOOL_RESIDENCY_H
#define FASTSPOOL_RESIDENCY_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct header;
struct inode;
struct list;

/** Bytes of memory of a file without data, at most: inode, name, its share of the hash. */
#define RESIDENCY_FILE_MEMORY 200u

/** Inside a section: the inode and its data are on the disk.  It joins the clean or the cold list: a checkpoint makes
 *  it evictable. */
void residency_join(struct fastspool *fs, uint32_t inode);
/** Inside a section: the inode changes.  It leaves the clean or the cold list. */
void residency_leave_clean(struct fastspool *fs, uint32_t inode);
/** Inside a section: the data of the inode is replaced or freed.  The inode is no longer clean, evicted, wanted or
 *  spilled. */
void residency_leave(struct fastspool *fs, uint32_t inode);
/** Inside a section: the inode is opened.  If it is clean it gets a second chance.  The first open of a prefetched file
 *  does not count. */
void residency_reference(struct fastspool *fs, uint32_t inode);

/** Inside a section, for an evicted inode: request its page-in.  Then, outside sections, residency_wait(). */
void residency_want(struct fastspool *fs, uint32_t inode);
/** Inside a section, for the mirror alone, for an evicted inode that is not wanted: request its page-in, as a prefetch.
 */
void residency_want_ahead(struct fastspool *fs, uint32_t inode);
/** Outside sections: wait until the inode is not evicted, or has another @generation.  0, or the error of the page-in:
 *  -EIO, -ENOSPC, ...  -EIO: no mirror comes up, or the segment FAILED.  -EDEADLK: this process is the mirror.  The
 *  inode may be evicted again at once, unless a description of it is open. */
int residency_wait(struct fastspool *fs, uint32_t inode, uint32_t generation);

/** Outside sections: wait until the mirror has evicted data.  0: the pager has done something, or 100 ms are over; try
 *  again.  -ENOSPC: the time is up.  *@since: 0 before the first call; this function keeps it. */
int residency_wait_for_space(struct fastspool *fs, uint64_t *since);
/** Outside sections: wake the pager if the memory in use is above residency_high(). */
void residency_notice(struct fastspool *fs);
/** Bytes of memory in use that writers can reach: less than the limit by the reserve, what tables may still take, and a
 *  chunk that is half full; and those that writers of large files can reach.  From anywhere. */
uint64_t residency_most(const struct header *header);
uint64_t residency_most_large(const struct header *header);
/** Bytes of the largest file that can be written while no other one is: what tables leave of that.  From anywhere. */
uint64_t residency_largest(const struct header *header);
/** Is @inode large, or does this process write for others, and is memory in use above residency_most_large()?  Then it
 *  takes no block, and leaves the rest.  Inside a section. */
bool residency_must_wait(const struct fastspool *fs, const struct inode *inode);
/** Bytes of memory in use at which eviction begins, and at which it ends.  From anywhere. */
uint64_t residency_high(const struct header *header);
uint64_t residency_low(const struct header *header);
/** Bytes of memory in use: tables, and blocks that are not free.  From anywhere. */
uint64_t residency_in_use(const struct header *header);

/** Inside a section: a spilled file loses its spill file, and is evicted again. */
void residency_unspill(struct fastspool *fs, uint32_t inode);

/* ---- inside sections, for the mirror alone ---- */

/** The list that the inode is in, or would join: the cold or the clean one. */
const struct list *residency_list(const struct fastspool *fs, uint32_t inode);
/** The inode is evicted.  Its blocks are freed after that (data_empty()). */
void residency_evict(struct fastspool *fs, uint32_t inode);
/** The page-in of the inode is complete: its data is in memory or, if @spilled, in its spill file. */
void residency_paged_in(struct fastspool *fs, uint32_t inode, bool spilled);
/** The page-in of a wanted inode fails: its waiters get @error, a negative errno.  @for_good: no later page-in is
 *  tried. */
void residency_give_up(struct fastspool *fs, uint32_t inode, int error, bool for_good);

#endif

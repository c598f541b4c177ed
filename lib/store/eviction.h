/* SPDX-License-Identifier: MIT
 *
 * Which data is in memory.
 */
#ifndef FASTSPOOL_EVICTION_H
#define FASTSPOOL_EVICTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fastspool;
struct header;

/** Bytes of memory that a file without data takes at the most: inode, name, its share of the hash. */
#define EVICTION_FILE_MEMORY 200u

/** In a section: the inode is on the disk, data too; its data may be evicted once a checkpoint holds it. */
void eviction_join(struct fastspool *fs, uint32_t inode);
/** In a section: the inode changes: it leaves the clean list, or the cold one. */
void eviction_leave_clean(struct fastspool *fs, uint32_t inode);
/** In a section: the inode's data is to be replaced or freed: it is in memory from now on, and wanted no more. */
void eviction_leave(struct fastspool *fs, uint32_t inode);
/** In a section: the inode is opened: it is not cold, unless that is what it was brought back for. */
void eviction_reference(struct fastspool *fs, uint32_t inode);

/** In a section, where the inode is evicted: have it brought back.  Then, outside, eviction_wait(). */
void eviction_want(struct fastspool *fs, uint32_t inode);
/** In a section, the mirror alone, where the inode is evicted and not wanted: the same, before anybody wants it. */
void eviction_want_ahead(struct fastspool *fs, uint32_t inode);
/** Wait until the inode is in memory, or is another one by now.  0, or why it can't be brought back: -EIO, -ENOSPC, ...
 *  It may be evicted again at once, except while a description of it is open. */
int eviction_wait(struct fastspool *fs, uint32_t inode, uint32_t generation);

/** Outside: wait for memory, on the mirror's eviction.  0: something has changed, try again; -ENOSPC: no more waiting.
 *  @since: 0 at first, ours. */
int eviction_wait_for_space(struct fastspool *fs, uint64_t *since);
/** Outside: memory was taken from the system: is it time to evict?  Then the pager is told. */
void eviction_notice(struct fastspool *fs);
/** Where eviction begins, and how far it goes: bytes of memory in use. */
uint64_t eviction_high(const struct header *header);
uint64_t eviction_low(const struct header *header);
/** Memory that holds something: tables, and blocks that aren't free. */
uint64_t eviction_in_use(const struct header *header);

/** The mirror alone: evict what is coldest, until memory in use is @target bytes or less and at least @least blocks
 * came free, as far as there is anything that may go.  *@unready: something could not go because no checkpoint holds it
 * yet; where @least is 0, what is hot isn't taken instead.  Returns the blocks that came free. */
int64_t eviction_run(struct fastspool *fs, uint64_t target, uint64_t least, bool *unready);

/** A file that is wanted, as the pager finds it. */
struct fault {
    uint32_t inode;
    uint32_t generation;
    uint64_t ticket; /* of its last change: what is read from the database must be of it */
    uint64_t size;
    bool ahead; /* nobody has opened it yet */
};
/** The mirror alone: the first @most wanted files, in the order of their inodes; how many. */
int eviction_faults(struct fastspool *fs, struct fault *faults, size_t most);
/** In a section: is the fault as it was when it was looked at?  Only then its data may be filled in.  0 or -ESTALE. */
int eviction_check_fault(struct fastspool *fs, const struct fault *fault);
/** The mirror alone: what was filled in of the fault goes again. */
int eviction_empty_fault(struct fastspool *fs, const struct fault *fault);
/** The mirror alone: the fault's data is in memory (@error 0) or, @spilled, in its spill file; or it can't be brought
 * back
 *  (@error: a positive errno); but for the first it has no blocks.  @for_good: nobody is to try again.  Wakes who
 * waits. -ESTALE: the file has changed since, and is wanted still; or somebody has opened what was asked for ahead, in
 * vain. */
int eviction_end_fault(struct fastspool *fs, const struct fault *fault, bool spilled, int error, bool for_good);
/** In a section: a spilled file is only evicted again. */
void eviction_unspill(struct fastspool *fs, uint32_t inode);

#endif

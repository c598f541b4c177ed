/* SPDX-License-Identifier: MIT
 *
 * Page-ins: the requests for files that are not in memory, as the pager answers them.
 */
#ifndef FASTSPOOL_PAGEIN_H
#define FASTSPOOL_PAGEIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fastspool;

/** A file that is wanted, as the pager finds it. */
struct pagein {
    uint32_t inode;
    uint32_t generation;
    uint64_t ticket; /* of its last change: what is read from the database must be of it */
    uint64_t size;
    bool ahead; /* nobody has opened it yet */
};
/** The mirror alone: the first @most wanted files, in the order of their inodes; how many. */
int pagein_collect(struct fastspool *fs, struct pagein *pageins, size_t most);
/** In a section: is the fault as it was when it was looked at?  Only then its data may be filled in.  0 or -ESTALE. */
int pagein_check(struct fastspool *fs, const struct pagein *pagein);
/** The mirror alone: what was filled in of the fault goes again. */
int pagein_empty(struct fastspool *fs, const struct pagein *pagein);
/** The mirror alone: the fault's data is in memory (@error 0) or, @spilled, in its spill file; or it can't be brought
 * back
 *  (@error: a positive errno); but for the first it has no blocks.  @for_good: nobody is to try again.  Wakes who
 * waits. -ESTALE: the file has changed since, and is wanted still; or somebody has opened what was asked for ahead, in
 * vain. */
int pagein_end(struct fastspool *fs, const struct pagein *pagein, bool spilled, int error, bool for_good);

#endif

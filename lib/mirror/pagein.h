/* SPDX-License-Identifier: MIT
 *
 * Page-ins: the requests for files that are not in memory, as the pager answers them.  For the mirror alone.
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
    bool prefetch; /* no process has opened the file yet */
};
/** The first @most wanted files, in the order of their inodes; how many. */
int pagein_collect(struct fastspool *fs, struct pagein *pageins, size_t most);
/** In a section: is the file as it was when the request was looked at?  Only then its data may be filled in.  0 or
 *  -ESTALE. */
int pagein_check(struct fastspool *fs, const struct pagein *pagein);
/** The page-in ends, and its waiters wake.  @error 0: the data is in memory or, @spilled, in the file's spill file.
 *  Else a negative errno: it cannot be paged in, and, @for_good, no later request is tried.  Blocks stay only with data
 *  in memory.  -ESTALE: the file has changed since, and is wanted still; or a file whose prefetch failed has been
 *  opened. */
int pagein_end(struct fastspool *fs, const struct pagein *pagein, bool spilled, int error, bool for_good);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The span: the parts of the segment that this process has mapped.
 */
#ifndef FASTSPOOL_SPAN_H
#define FASTSPOOL_SPAN_H

#include "store/layout.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

/** A mapped part, bytes from the segment's start. */
struct span_part {
    uint64_t at;
    uint64_t size;
};
#define SPAN_PARTS 4u

/** Map the segment that fs->segment_fd holds as far as its tables go, or the first entries of each where it is another
 *  version's, and set base, header and span.  Check the header, then call span_follow().  Without a descriptor (-1):
 *  memory of the process's own, all zeros.  -errno: nothing is mapped. */
int span_map(struct fastspool *fs);
/** Unmap it; base and header become NULL. */
void span_unmap(struct fastspool *fs);
/** The parts that are mapped now. */
void span_parts(const struct fastspool *fs, struct span_part parts[SPAN_PARTS]);

/** Is byte @at of the segment mapped? */
bool span_covers(const struct fastspool *fs, uint64_t at);

/** Map what span_reaches() misses.  Any thread, in a section or outside.  -ENOMEM: the process may have no more address
 *  space, and must not use the tables. */
int span_stretch(struct fastspool *fs);

/** Is all mapped that the tables' counts lead to? */
static inline bool span_reaches(const struct fastspool *fs)
{
    const struct header *h = fs->header;

    return LOAD(h->tables.inodes.capacity) <= LOAD(fs->span.inodes) &&
           LOAD(h->tables.names.capacity) <= LOAD(fs->span.names) &&
           LOAD(h->tables.buckets_capacity) <= LOAD(fs->span.buckets) &&
           LOAD(h->blocks.chunks_used) <= LOAD(fs->span.chunks);
}

/** Before the tables are used: other processes may have made them larger.  0 or -ENOMEM. */
static inline int span_follow(struct fastspool *fs)
{
    return __builtin_expect(span_reaches(fs), 1) ? 0 : span_stretch(fs);
}

#endif

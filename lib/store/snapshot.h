/* SPDX-License-Identifier: MIT
 *
 * Snapshots: a segment as it was at one instant, in memory of one's own.
 */
#ifndef FASTSPOOL_SNAPSHOT_H
#define FASTSPOOL_SNAPSHOT_H

#include <stdint.h>

struct fastspool;
struct header;

/** Copy the header, the tables and the index blocks of @fs's segment, as no unfinished section left them; data isn't
 *  copied.  *@copy can be read as a store that nobody changes; snapshot_free() ends it.  A process that died inside a
 *  section is rolled back first, as by every reader.  0, or a negative errno. */
int snapshot_take(struct fastspool *fs, struct fastspool **copy);
void snapshot_free(struct fastspool *copy);

/** How many entries of its tables a segment can have, whatever its header says. */
struct snapshot_extent {
    uint32_t inodes, names, descriptions, buckets, chunks;
};
struct snapshot_extent snapshot_extent(const struct header *header);

#endif

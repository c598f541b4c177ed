/* SPDX-License-Identifier: MIT
 *
 * Orphans: files and their data go, whatever their size.
 */
#ifndef FASTSPOOL_ORPHANS_H
#define FASTSPOOL_ORPHANS_H

#include <stdint.h>

struct fastspool;

/** Inside a section: free the inode if it has neither names nor descriptions. */
int orphans_drop(struct fastspool *fs, uint32_t inode);
/** Inside a section: the file is empty now, whatever its size was. */
int orphans_discard(struct fastspool *fs, uint32_t inode);
/** Outside: free the blocks of orphans, a step at a time. */
int orphans_free(struct fastspool *fs);

#endif

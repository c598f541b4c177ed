/* SPDX-License-Identifier: MIT
 *
 * Orphans: freeing files of any size in short sections.
 */
#ifndef FASTSPOOL_ORPHANS_H
#define FASTSPOOL_ORPHANS_H

#include <stdint.h>

struct fastspool;

/** Inside a section: if the inode has neither names nor descriptions, free it or make it an orphan.  0, or -EIO: the
 *  segment is damaged. */
int orphans_drop(struct fastspool *fs, uint32_t inode);
/** Inside a section: truncate the file to nothing, whatever its size.  A large one hands its blocks to an orphan.
 *  -EAGAIN: no inode is free for that (section_want()).  -EIO: the segment is damaged. */
int orphans_discard(struct fastspool *fs, uint32_t inode);
/** Outside sections: free all orphans, DATA_FREE_STEP blocks a section. */
int orphans_free(struct fastspool *fs);

#endif

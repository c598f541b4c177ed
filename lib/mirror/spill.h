/* SPDX-License-Identifier: MIT
 *
 * Spill files: the mirror makes and removes them.  (They are read in lib/store/spilled.c.)
 */
#ifndef FASTSPOOL_SPILL_H
#define FASTSPOOL_SPILL_H

struct fastspool;
struct pagein;

/** For the mirror alone: make an empty spill file for the page-in, of its size.  A descriptor for reading and writing,
 *  or a negative errno. */
int spill_create(struct fastspool *fs, const struct pagein *pagein);

/** For the mirror alone: evict again the files that nobody has open, and remove spill files without an inode.  How
 *  many are left. */
int spill_sweep(struct fastspool *fs);

#endif

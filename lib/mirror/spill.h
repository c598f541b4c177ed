/* SPDX-License-Identifier: MIT
 *
 * Spill files: the mirror makes and removes them.  (They are read in lib/store/spilled.c.)
 */
#ifndef FASTSPOOL_SPILL_H
#define FASTSPOOL_SPILL_H

struct fastspool;
struct pagein;

/** The mirror alone: an empty spill file for the page-in, of its size; a descriptor for reading and writing. */
int spill_create(struct fastspool *fs, const struct pagein *pagein);

/** The mirror alone: files that nobody has open are evicted again, and spill files without an inode are removed.  How
 * many are left. */
int spill_sweep(struct fastspool *fs);

#endif

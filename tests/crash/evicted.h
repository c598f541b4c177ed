/* SPDX-License-Identifier: MIT
 *
 * Deeds on files whose data isn't in memory.  All want a scene that is in the database (EVICT).
 */
#ifndef FASTSPOOL_EVICTED_H
#define FASTSPOOL_EVICTED_H

#include "store/store.h"

/** All data leaves memory. */
void evicted_all(struct fastspool *store);

/** It has left, and all of it is wanted again; and `memory` has become too little for the huge file. */
void evicted_and_wanted(struct fastspool *store);
void evicted_wanted_of_little_memory(struct fastspool *store);

/** Where the scene has a queue: ask for its next files, as for one who has opened the first three. */
void evicted_ask_ahead(struct fastspool *store);

/** They have been asked for. */
void evicted_asked_ahead(struct fastspool *store);

/** It is wanted, and a pager has died over the huge file. */
void evicted_half_back(struct fastspool *store);

/** Bring back all that is wanted; or fail to, with EIO. */
void evicted_bring_back(struct fastspool *store);
void evicted_fail_to_bring_back(struct fastspool *store);

/** All that is wanted is brought back, the huge file to a spill file. */
void evicted_spilled(struct fastspool *store);

/** Remove the spill files that nobody needs. */
void evicted_sweep_spilled(struct fastspool *store);

#endif

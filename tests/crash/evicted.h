/* SPDX-License-Identifier: MIT
 *
 * What victims do with evicted files.  All functions need a scene that is in the database (EVICT).
 */
#ifndef FASTSPOOL_EVICTED_H
#define FASTSPOOL_EVICTED_H

#include "store/store.h"

/** Evict all data. */
void evicted_all(struct fastspool *store);

/** Evict all data and request all of it; the second also makes `memory` too small for the huge file. */
void evicted_and_wanted(struct fastspool *store);
void evicted_wanted_of_little_memory(struct fastspool *store);

/** In a scene with QUEUE: prefetch its next files, as for a reader that has opened the first three. */
void evicted_prefetch(struct fastspool *store);

/** Evict all data, then do that. */
void evicted_and_prefetch(struct fastspool *store);

/** Evict all data and request all of it, and leave the huge file half paged in, as by a pager that died. */
void evicted_half_back(struct fastspool *store);

/** Page in all that is requested; the second fails each page-in with EIO. */
void evicted_page_in(struct fastspool *store);
void evicted_fail_page_ins(struct fastspool *store);

/** Evict all data and page it in again, the huge file to a spill file. */
void evicted_spilled(struct fastspool *store);

/** Remove the spill files that are no longer needed. */
void evicted_sweep_spilled(struct fastspool *store);

#endif

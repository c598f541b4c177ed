/* SPDX-License-Identifier: MIT
 *
 * Compaction: a chunk that is hardly used becomes empty.
 */
#ifndef FASTSPOOL_COMPACTION_H
#define FASTSPOOL_COMPACTION_H

#include <stdint.h>

struct fastspool;

/** Outside sections, for the mirror alone, while no commit copies: if the tables want memory and no chunk is empty,
 *  empty one. */
int compaction_run(struct fastspool *fs);

/** The same for this chunk, whatever is wanted, as far as there is room in others. */
int compaction_vacate(struct fastspool *fs, uint32_t chunk);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The evictor: data leaves memory.
 */
#ifndef FASTSPOOL_EVICTOR_H
#define FASTSPOOL_EVICTOR_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** The mirror alone: evict what is coldest, until memory in use is @target bytes or less and at least @least blocks
 * came free, as far as there is anything that may go.  *@unready: something could not go because no checkpoint holds it
 * yet; where @least is 0, what is hot isn't taken instead.  Returns the blocks that came free. */
int64_t evictor_run(struct fastspool *fs, uint64_t target, uint64_t least, bool *unready);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The evictor: data leaves memory.
 */
#ifndef FASTSPOOL_EVICTOR_H
#define FASTSPOOL_EVICTOR_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** For the mirror alone: evict the coldest files until at most @target bytes are in use, and the memory of at least
 *  @least blocks is free again (it may be parts of blocks that others use).  It stops early if no more files may go.
 *  *@unready: some files could not go because no checkpoint holds them yet; if @least is 0, the working set is then
 *  left alone.  Returns the number of freed blocks, or -errno. */
int64_t evictor_run(struct fastspool *fs, uint64_t target, uint64_t least, bool *unready);

#endif

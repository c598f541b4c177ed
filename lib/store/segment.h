/* SPDX-License-Identifier: MIT
 *
 * The segment: the mapped file that holds a store.
 */
#ifndef FASTSPOOL_SEGMENT_H
#define FASTSPOOL_SEGMENT_H

#include "fastspool.h"

#include <stdint.h>

struct header;

/** Make the segment of an empty store, with its placeholders and lock file, in the fresh directory @runtime_fd.  The
 *  files belong to the owner of the spool directory @spool_fd.  The state is RECOVERING.  On failure -errno, and a
 *  sentence in @error; the caller removes the directory. */
int segment_create(int runtime_fd, int spool_fd, const struct fastspool_config *config,
                   char error[FASTSPOOL_ERROR_MAX]);

/** Map the segment in fs->runtime_fd, and open its lock file.  Checks owner, mode, size, version, boot, PID namespace,
 *  spool and tables.  Sets base, header, segment_fd, locks_fd, owner and group.  On failure -errno, and nothing stays
 *  open; @error then holds a sentence, but none for a segment of an earlier boot (-ESTALE). */
int segment_open(struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX]);
/** Unmap and close the segment.  The files stay. */
void segment_close(struct fastspool *fs);

/** Make the store empty again, at the start of a recovery: an earlier one may have stopped half way.  The state must be
 *  RECOVERING, so that no other process uses the segment.  0 or -errno. */
int segment_reset(struct fastspool *fs);

/** Set the limit of memory to @memory bytes, and the reserve to its share.  From anywhere. */
void segment_limit(const struct header *header, uint64_t memory);

#endif

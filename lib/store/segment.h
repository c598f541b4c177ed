/* SPDX-License-Identifier: MIT
 *
 * The segment: the mapped file that holds a store.
 */
#ifndef FASTSPOOL_SEGMENT_H
#define FASTSPOOL_SEGMENT_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>

struct header;
struct stat;

/** Make the segment of an empty store, with its placeholders and lock file, in the fresh directory @runtime_fd.  The
 *  files belong to the owner of the spool directory @spool_fd.  The state is RECOVERING.  On failure -errno, and a
 *  sentence in @error; the caller removes the directory. */
int segment_create(int runtime_fd, int spool_fd, const struct fastspool_config *config,
                   char error[FASTSPOOL_ERROR_MAX]);

/** Map the segment in fs->runtime_fd, which is @runtime, and open its lock file.  Checks owner, mode, size, version and
 * tables.  Sets base, header, segment_fd, locks_fd, and what @spool, the spool directory, says: owner, group, device.
 * On failure -errno, a sentence in @error, and nothing stays open. */
int segment_open(struct fastspool *fs, const struct stat *spool, const struct stat *runtime,
                 char error[FASTSPOOL_ERROR_MAX]);
/** Unmap and close the segment.  The files stay. */
void segment_close(struct fastspool *fs);

/** Do the processes that use the segment live in this process's PID namespace?  The lock's owner is a thread id, which
 *  means nothing in another one.  Holds as long as one of them lives: the kernel uses a number again when all are
 *  dead.  True where it can't be said. */
bool segment_is_within_reach(const struct fastspool *fs);
/** Has the segment a name still?  One that was removed nobody else finds.  True where it can't be said. */
bool segment_is_there(const struct fastspool *fs);
/** Does the segment lie in memory, so that what it holds can't be older than the machine's start?  1 or 0; -errno: it
 *  can't be said. */
int segment_is_memory(const struct fastspool *fs);
/** Take the segment over from the dead: from now on it belongs to this process's PID namespace and mount namespace, and
 *  to the spool directory fs->spool_fd.  @viewed: is the view mounted here?  No other process uses the segment. */
void segment_inherit(struct fastspool *fs, bool viewed);

/** Make the store empty again, at the start of a recovery: an earlier one may have stopped half way.  The state must be
 *  RECOVERING, so that no other process uses the segment.  0 or -errno. */
int segment_reset(struct fastspool *fs);

/** Set the limit of memory to @memory bytes, and the reserve to its share.  From anywhere. */
void segment_limit(const struct header *header, uint64_t memory);

#endif

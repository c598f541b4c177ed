/* SPDX-License-Identifier: MIT
 *
 * The segment: the mapped file that holds a store, and the memory behind its tables.
 */
#ifndef FASTSPOOL_SEGMENT_H
#define FASTSPOOL_SEGMENT_H

#include "fastspool.h"

#include <stdint.h>

struct header;

/** Make the file of an empty store in directory @runtime_fd, with its placeholders and lock file, owned by @owner;
 *  state RECOVERING. */
int segment_create(int runtime_fd, int spool_fd, const struct fastspool_config *config,
                   char error[FASTSPOOL_ERROR_MAX]);

/** Map the file in fs->runtime_fd; checks owner, mode, version, boot, PID namespace and spool. */
int segment_open(struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX]);
void segment_close(struct fastspool *fs);

/** Empty the tables again: a recovery that was cut short begins anew.  Nobody else may use the segment. */
int segment_reset(struct fastspool *fs);

/** From now on the segment may hold @memory bytes. */
void segment_limit(const struct header *header, uint64_t memory);

#endif

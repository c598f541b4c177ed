/* SPDX-License-Identifier: MIT
 *
 * The queue's directories: may Exim use them?
 */
#ifndef FASTSPOOL_TOOLS_QUEUES_H
#define FASTSPOOL_TOOLS_QUEUES_H

#include "base/escape.h"
#include "fastspool.h"

#include <stdbool.h>
#include <sys/types.h>

#define QUEUES_LINE (2 * ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX) + FASTSPOOL_PATH_MAX + 256)

/** Is there a directory of the queue in the store, or, where no view covers the disk, one of the disk's that the store
 *  has not got, that Exim's user can't use?  Then @line says which, and what to do.  @viewed: a view is mounted, so
 *  that the operator's commands reach the store's. */
bool queues_refuse(struct fastspool *fs, bool viewed, char line[QUEUES_LINE]);
/** The same of the disk of @spool, which belongs to @owner and @group: a store that is made there takes them over. */
bool queues_refuse_on_disk(const char *spool, uid_t owner, gid_t group, char line[QUEUES_LINE]);

#endif

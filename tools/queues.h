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

/** Can Exim's user not use one of those that the store has?  Or, where no view covers the disk, one of the disk's that
 * it has not?  Then @line says which, and what to do.  @viewed: a view shows the store's to what the operator types. */
bool queues_refuse(struct fastspool *fs, bool viewed, char line[QUEUES_LINE]);
/** The same of the disk of @spool, which belongs to @owner and @group: a store that is made there takes them over. */
bool queues_refuse_on_disk(const char *spool, uid_t owner, gid_t group, char line[QUEUES_LINE]);

#endif

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

enum queues { QUEUES_OPEN, QUEUES_REFUSED, QUEUES_UNSEEN };

/** QUEUES_REFUSED: there is a directory of the queue in the store, or, where no view covers the disk, one of the disk's
 * that the store has not got, that Exim's user can't use, and @line says which, and what to do.  QUEUES_UNSEEN: no such
 * one was found, and the disk has too many to look at all, which @line says.  @viewed: a view is mounted, so that the
 * operator's commands reach the store's. */
enum queues queues_look(struct fastspool *fs, bool viewed, char line[QUEUES_LINE]);
/** The same of the disk of @spool, which belongs to @owner and @group: a store that is made there takes them over. */
enum queues queues_look_on_disk(const char *spool, uid_t owner, gid_t group, char line[QUEUES_LINE]);
/** The same of the database in @state: a start brings back what it has. */
enum queues queues_look_in_state(const char *state, const char *spool, uid_t owner, gid_t group,
                                 char line[QUEUES_LINE]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The queue's directories in the store: may Exim use them?
 */
#ifndef FASTSPOOL_TOOLS_QUEUES_H
#define FASTSPOOL_TOOLS_QUEUES_H

#include "base/escape.h"
#include "fastspool.h"

#include <stdbool.h>

#define QUEUES_LINE (2 * ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX) + FASTSPOOL_PATH_MAX + 256)

/** Is one of those that Exim has made its user's no longer to use?  Then @line says which, and what to do.  @viewed: a
 *  view shows them to what the operator types. */
bool queues_refuse(struct fastspool *fs, bool viewed, char line[QUEUES_LINE]);

#endif

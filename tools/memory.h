/* SPDX-License-Identifier: MIT
 *
 * The place where the memory of the next store is made.
 */
#ifndef FASTSPOOL_TOOLS_MEMORY_H
#define FASTSPOOL_TOOLS_MEMORY_H

#include "base/escape.h"
#include "fastspool.h"

#include <stdbool.h>
#include <sys/types.h>

#define MEMORY_FOUND (FASTSPOOL_PATH_MAX + 256)
#define MEMORY_MEND  (2 * ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX) + 256)

/** Can no store be made in @place, of the spool's @owner, or should none be?  Then @found says why, and @mend what to
 *  do. */
bool memory_refuses(const char *place, uid_t owner, gid_t group, char found[MEMORY_FOUND], char mend[MEMORY_MEND]);

#endif

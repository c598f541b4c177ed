/* SPDX-License-Identifier: MIT
 *
 * Is this process the one that can't see the store's memory?
 */
#ifndef FASTSPOOL_SIGHT_H
#define FASTSPOOL_SIGHT_H

#include "fastspool.h"

/** For a command of root's, before it waits for what it can't reach: does process 1 see the memory of the store of
 *  @spool, and this process does not?  -ENXIO, with a sentence, which says what helps.  0: not, or it can't be said. */
int sight_check(const char *spool, const struct fastspool_config *config, char error[FASTSPOOL_ERROR_MAX]);

#endif

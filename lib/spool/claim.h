/* SPDX-License-Identifier: MIT
 *
 * Whose store it is: join those who live, or claim what the dead have left.
 */
#ifndef FASTSPOOL_CLAIM_H
#define FASTSPOOL_CLAIM_H

#include "fastspool.h"

#include <stdbool.h>
#include <sys/stat.h>

/** Open the store of state directory @state_fd, announced to all others.  @create: make one if there is none.  -ENOENT:
 *  there is none.  Else a negative errno with a sentence. */
int claim_store(struct fastspool *fs, const struct fastspool_config *config, int state_fd, const struct stat *spool,
                bool create, char *error);
/** The error of a wait for the store that SIGTERM or the like has ended.  All signals are held off while the preloaded
 *  library attaches. */
int claim_terminated(const struct fastspool *fs, char *error);

#endif

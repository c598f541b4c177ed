/* SPDX-License-Identifier: MIT
 *
 * Attaching: finding and creating a store.
 */
#ifndef FASTSPOOL_ATTACH_H
#define FASTSPOOL_ATTACH_H

#include "fastspool.h"

/** Open the descriptors and map the segment of an existing store: for the mirror and the tools.  Creates nothing,
 *  starts no mirror, and does not wait.  -ENOENT: there is no store. */
int attach_open(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                char error[FASTSPOOL_ERROR_MAX]);
/** As attach_open(), but create an empty store in state RECOVERING if none is usable. */
int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Attaching: finding, making and leaving a store; starting the mirror.
 */
#ifndef FASTSPOOL_ATTACH_H
#define FASTSPOOL_ATTACH_H

#include "fastspool.h"

/** Open the descriptors and map the segment, without creating, starting or waiting: for the mirror itself.
 *  -ENOENT: there is no store. */
int attach_open(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                char error[FASTSPOOL_ERROR_MAX]);
/** As attach_open(), making an empty RECOVERING store where there is none that is usable. */
int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX]);

#endif

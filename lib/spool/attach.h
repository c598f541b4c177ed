/* SPDX-License-Identifier: MIT
 *
 * Attaching: finding, making and leaving a store; starting the mirror.
 */
#ifndef FASTSPOOL_ATTACH_H
#define FASTSPOOL_ATTACH_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>

/** Open the descriptors and map the segment, without creating, starting or waiting: for the mirror itself.
 *  -ENOENT: there is no store. */
int attach_open(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                char error[FASTSPOOL_ERROR_MAX]);
/** As attach_open(), making an empty RECOVERING store where there is none that is usable. */
int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX]);
/** Start the mirror unless one lives or another process is starting it. */
int attach_start_mirror(struct fastspool *fs);
/** For whoever waits on the mirror: sleep while *@event is @value, 100 ms at the most; where no mirror lives start one,
 *  and remind it (@wanted is its futex).  @lived: when one was last seen, ns; first: now.  -EIO: none comes up. */
int attach_wait_for_mirror(struct fastspool *fs, uint32_t *event, uint32_t value, uint32_t *wanted, uint64_t *lived);
/** Is a mirror alive?  By flock of its lock file, never by pid. */
bool attach_mirror_lives(struct fastspool *fs);

#endif

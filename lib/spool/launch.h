/* SPDX-License-Identifier: MIT
 *
 * Launching the mirror.
 */
#ifndef FASTSPOOL_LAUNCH_H
#define FASTSPOOL_LAUNCH_H

#include "store/await.h"

#include <stdbool.h>

struct fastspool;

/** Does a mirror of the store live?  By flock of its lock file, never by pid.  errno stays. */
bool launch_lives(struct fastspool *fs);
/** Start the mirror, unless another process has just started one.  The calling process has no child by it, and no
 * signal. 0 or -errno; errno stays. */
int launch_start(struct fastspool *fs);

extern const struct keeper launch_keeper;

#endif

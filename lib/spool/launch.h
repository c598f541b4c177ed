/* SPDX-License-Identifier: MIT
 *
 * Launching the mirror.
 */
#ifndef FASTSPOOL_LAUNCH_H
#define FASTSPOOL_LAUNCH_H

#include "store/await.h"

#include <stdbool.h>

struct fastspool;

/** Does a mirror of the store live?  Its lock file decides, never a pid.  Keeps errno. */
bool launch_lives(struct fastspool *fs);
/** Start the mirror, unless a process did so in the last two seconds.  The caller gets no child to wait for, and no
 *  signal.  0 or -errno; keeps errno. */
int launch_start(struct fastspool *fs);

extern const struct keeper launch_keeper;

#endif

/* SPDX-License-Identifier: MIT
 *
 * Pins: files that stay while a call looks at them a second time.
 */
#ifndef FASTSPOOL_VIEW_PINS_H
#define FASTSPOOL_VIEW_PINS_H

#include "fastspool.h"

/** Of @files descriptors that this process may have, take a sixteenth for pins, and 4,096 at the most.  Returns how
 *  many that are.  Once, before pins_start(). */
unsigned pins_begin(uint64_t files);
/** Start the thread that takes old pins out.  Once, before the first request.  0 or -errno. */
int pins_start(struct fastspool *fs);
/** A call of thread @pid is about to be answered with -ESTALE. */
void pins_stale(pid_t pid);
/** fastspool_lookup() for thread @pid.  Soon after pins_stale() the file is pinned: until the thread has looked at some
 *  others, or for a second or two. */
int pins_lookup(struct fastspool *fs, pid_t pid, const char *path, uint64_t *handle, struct stat *st);

#endif

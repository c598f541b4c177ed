/* SPDX-License-Identifier: MIT
 *
 * The mirror that a call has started for its own work.
 */
#ifndef FASTSPOOL_OWN_H
#define FASTSPOOL_OWN_H

#include <stdbool.h>

struct fastspool;
struct fastspool_config;

/** Before an attach of @spool: does no mirror live, so that one that lives later is this call's own? */
bool own_mirror(const char *spool, const struct fastspool_config *config);
/** Detach from @fs, and end its mirror, unless another process uses the store by then: what starts meanwhile has it, or
 *  starts one itself.  All is on the disk then, and the memory is given back.  Waits for that end. */
void own_end(struct fastspool *fs);

#endif

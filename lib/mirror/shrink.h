/* SPDX-License-Identifier: MIT
 *
 * Shrinking: the disk gets back what database and journal have kept for reuse.
 */
#ifndef FASTSPOOL_SHRINK_H
#define FASTSPOOL_SHRINK_H

#include "fastspool.h"

#include <stdint.h>

/** Bytes that database and journal take on the disk. */
struct shrunk {
    uint64_t before, after;
};

/** Shrink the state directory @state.  The caller is the spool's owner, and holds the lock of a mirror.  0, or a
 * negative errno with a sentence; -EBUSY: the journal has what the database lacks, so that only a mirror can go on.
 * Nothing is lost at any point; a call after one that was killed removes what that left. */
int shrink_run(const char *state, struct shrunk *shrunk, char error[FASTSPOOL_ERROR_MAX]);

#endif

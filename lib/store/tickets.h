/* SPDX-License-Identifier: MIT
 *
 * Tickets: every change has a number, and a process can wait until it is durable.
 */
#ifndef FASTSPOOL_TICKETS_H
#define FASTSPOOL_TICKETS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Bounds of what may be left unwritten: an fsync waits beyond, also one that would return at once. */
#define TICKETS_BYTES_MAX (UINT64_C(64) << 20)
#define TICKETS_FILES_MAX 16384u
#define TICKETS_AGE_MAX   10u /* flush intervals, and at least 1 s */

/** Wait until change number @ticket is durable; @timeout ns, 0 = for ever.  Starts a mirror where none lives. */
int tickets_wait(struct fastspool *fs, uint64_t ticket, uint64_t timeout);
/** fsync, as the process's durability says, of a file whose last change is @ticket, or of a @directory. */
int tickets_sync(struct fastspool *fs, uint64_t ticket, bool directory);

#endif

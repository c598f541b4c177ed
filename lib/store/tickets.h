/* SPDX-License-Identifier: MIT
 *
 * Tickets: every change has a number, and a process can wait until that change is durable.
 */
#ifndef FASTSPOOL_TICKETS_H
#define FASTSPOOL_TICKETS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Bounds of changes that are not on the disk.  Beyond them every fsync waits, also one that would return at once. */
#define TICKETS_BYTES_MAX (UINT64_C(64) << 20)
#define TICKETS_FILES_MAX 16384u
#define TICKETS_AGE_MAX   10u /* flush intervals, but at least 1 s */

/** Outside sections: fsync, at the durability of the process, of a file or @directory whose last change is @ticket.
 *  Starts a mirror if it waits and none lives.  -EIO: no mirror comes up, or the segment FAILED; else the error of the
 *  last commit. */
int tickets_sync(struct fastspool *fs, uint64_t ticket, bool directory);

#endif

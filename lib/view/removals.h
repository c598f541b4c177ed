/* SPDX-License-Identifier: MIT
 *
 * Removals of messages that are refused, because Exim does them for an error.
 */
#ifndef FASTSPOOL_VIEW_REMOVALS_H
#define FASTSPOOL_VIEW_REMOVALS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** This server begins.  Once, before the other calls. */
void removals_begin(void);
/** May thread @pid remove @name, a file whose inode was last changed at @changed (CLOCK_REALTIME ns)? */
bool removals_may(pid_t pid, const char *name, uint64_t changed);
/** It makes another change of names. */
void removals_other(pid_t pid);
/** Its sync of a directory ends with an error. */
void removals_sync_failed(pid_t pid);

#endif

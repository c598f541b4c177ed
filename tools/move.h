/* SPDX-License-Identifier: MIT
 *
 * What export and import share: the store without a view, a progress bar.
 */
#ifndef FASTSPOOL_MOVE_H
#define FASTSPOOL_MOVE_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Attach the store of @spool, NULL: the configured one; recover it after a reboot; start no view.  @disk: the spool's
 *  own directory is to be used, so no view may be mounted, and none begins as long as this process lives.  NULL: the
 *  reason is printed. */
struct fastspool *move_begin(const char *spool, bool disk);
/** On a terminal, what takes longer than a second: a bar. */
void move_progress(const char *what, uint64_t done, uint64_t total);
void move_progress_end(void);
/** Say on standard error that @path stays, and why. */
void move_tell(const char *path, const char *why);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Progress on a terminal, of what takes longer than a second.
 */
#ifndef FASTSPOOL_PROGRESS_H
#define FASTSPOOL_PROGRESS_H

#include <stdint.h>

/** From here on, if standard error is a terminal: after a second a line says @what ("exporting") and for how long.  One
 *  at a time.  A child of fork(2) shows nothing. */
void progress_begin(const char *what);
/** The line has a bar, too: @done of @total.  0 of 0: none. */
void progress_at(uint64_t done, uint64_t total);
/** Before something else is written to standard error: the line ends, and a new one follows. */
void progress_pause(void);
void progress_end(void);

#endif

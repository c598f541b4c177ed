/* SPDX-License-Identifier: MIT
 *
 * What must be true of a segment whenever nobody is inside a critical section, and what its tree looks like.
 */
#ifndef FASTSPOOL_CHECK_H
#define FASTSPOOL_CHECK_H

#include "fastspool.h"
#include "store/store.h"

/** Is the whole segment intact?  Takes the store's lock (and so repairs first what a dead process has left).  0, or a
 *  negative errno with a sentence in @error. */
int check_segment(struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX]);

/** A line for each file below @path: name, type, mode, owner, links, size, times ("old": before 2020), a hash of the
 *  content.  Goes through the public calls.  The text is the caller's to free; what fails stands in the text. */
char *check_dump(struct fastspool *fs, const char *path);

#endif

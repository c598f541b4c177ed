/* SPDX-License-Identifier: MIT
 *
 * A tree of files as text.
 */
#ifndef FASTSPOOL_DUMP_H
#define FASTSPOOL_DUMP_H

#include "store/store.h"

/** A line for each file below @path: name, type, mode, owner, links, size, times ("old": before 2020), a hash of the
 *  content.  Goes through the public calls.  The text is the caller's to free; what fails stands in the text. */
char *dump_text(struct fastspool *fs, const char *path);

#endif

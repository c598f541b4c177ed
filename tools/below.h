/* SPDX-License-Identifier: MIT
 *
 * The files of the store that an operator names.
 */
#ifndef FASTSPOOL_TOOLS_BELOW_H
#define FASTSPOOL_TOOLS_BELOW_H

#include "fastspool.h"

#include <limits.h>

/** The operator's @path as the store's functions take it, into @below.  It is relative to the spool, or absolute: below
 *  the spool, also by a symbolic link to it, or by "..".  0; 1 after a sentence: it leads elsewhere. */
int below_find(const struct fastspool *fs, const char *path, char below[PATH_MAX]);
/** Tell that @error, negative, has come of the file @below.  Returns 1. */
int below_error(const struct fastspool *fs, const char *below, int error);

#endif

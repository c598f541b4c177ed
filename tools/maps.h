/* SPDX-License-Identifier: MIT
 *
 * Which files a process has mapped.
 */
#ifndef FASTSPOOL_TOOLS_MAPS_H
#define FASTSPOOL_TOOLS_MAPS_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/** Has @pid mapped a file whose path has @start in it, and behind that @end?  False, too, where it can't be said. */
bool maps_find(pid_t pid, const char *start, const char *end);

/** Has @pid mapped @file, by a path that has @name in it?  False, too, where it can't be said. */
bool maps_has(pid_t pid, const char *name, const struct stat *file);

#endif

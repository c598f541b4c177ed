/* SPDX-License-Identifier: MIT
 *
 * Directories that the kernel knows, and asks about also when they are removed.
 */
#ifndef FASTSPOOL_VIEW_DIRECTORIES_H
#define FASTSPOOL_VIEW_DIRECTORIES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** The kernel is about to learn of @node, with @st, once more.  Call before the answer: what it says of the node may
 * overtake the caller. */
void directories_add(uint64_t node, const struct stat *st);
/** The kernel has forgotten @count of those times.  @node may be no directory. */
void directories_forget(uint64_t node, uint64_t count);
/** The attributes of a directory that the store doesn't have any more.  False: the kernel knows no such directory. */
bool directories_removed(uint64_t node, struct stat *st);

#endif

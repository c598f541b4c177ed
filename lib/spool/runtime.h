/* SPDX-License-Identifier: MIT
 *
 * The runtime directory: in which file system the memory of a store is made.
 */
#ifndef FASTSPOOL_RUNTIME_H
#define FASTSPOOL_RUNTIME_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** Have room for a store of @memory bytes of the spool at the real path @spool, which @st describes: a root process
 *  that may mount does that, or enlarges what is mounted.  @memory 0: only mount.  For any other process, and wherever
 *  it can't be had, this does nothing. */
void runtime_prepare(const char *spool, const struct stat *st, uint64_t memory);

/** The same ahead of the first use, by a program that may have given up its rights by then.  @memory 0: the default.
 *  One system call if all is there. */
void runtime_prepare_ahead(const char *spool, uint64_t memory);

/** The directory of this spool's memory in the file system of root's.  False: there is none that this process sees. */
bool runtime_own(const char *spool, const struct stat *st, char base[FASTSPOOL_PATH_MAX]);

/** Is the store's memory @runtime in the file system of root's? */
bool runtime_is_own(const char *runtime);
/** Is it there, and has that file system less room for it than @memory needs? */
bool runtime_lacks(const char *spool, const char *runtime, uint64_t memory);

#endif

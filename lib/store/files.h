/* SPDX-License-Identifier: MIT
 *
 * The calls on files.
 */
#ifndef FASTSPOOL_FILES_H
#define FASTSPOOL_FILES_H

#include <stdint.h>
#include <sys/types.h>

struct fastspool;

/** As fastspool_open(), on a @description from descriptions_take().  On failure gives the description back. */
int files_open(struct fastspool *fs, const char *path, int flags, mode_t mode, uint32_t description);
/** As fastspool_open().  *@placeholder: the descriptor of the description that was taken; the pool owns it.  *@fresh:
 * as by descriptions_take(), the caller's; -1 after a failure. */
int files_open_new(struct fastspool *fs, const char *path, int flags, mode_t mode, int *placeholder, int *fresh);

#endif

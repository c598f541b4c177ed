/* SPDX-License-Identifier: MIT
 *
 * Opening files by path.
 */
#ifndef FASTSPOOL_OPENING_H
#define FASTSPOOL_OPENING_H

#include <stdbool.h>
#include <sys/types.h>

struct store_path;

/** open(2) of @target: a descriptor or -errno.  *@foreign: the disk has it, call the real function. */
int opening_place(struct store_path *target, int flags, mode_t mode, bool *foreign);
/** The process's umask, without a system call. */
mode_t opening_umask(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Spilled files: open files whose data has no room in memory, and is read from the disk.
 */
#ifndef FASTSPOOL_SPILLED_H
#define FASTSPOOL_SPILLED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;

/** After an open: if the file is spilled, open its spill file for the description.  So later reads need no rights, even
 *  if the process changes its user. */
int spilled_attach(struct fastspool *fs, uint32_t description);
/** A new descriptor of the spill file, for reading; the caller closes it.  -ENOENT: the file is not spilled (any more).
 */
int spilled_open(struct fastspool *fs, uint32_t description);
/** pread(2) from the spill file; -ENOENT: the file is not spilled (any more). */
ssize_t spilled_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, uint64_t offset);

#endif

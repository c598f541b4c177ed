/* SPDX-License-Identifier: MIT
 *
 * Spilled files: open files whose data has no room in memory, read from the disk.
 */
#ifndef FASTSPOOL_SPILLED_H
#define FASTSPOOL_SPILLED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;

/** The description was opened: if its file is spilled, it reads from the spill file, whoever the process will be. */
int spilled_attach(struct fastspool *fs, uint32_t description);
/** A descriptor of the spill file, for reading, the caller's; -ENOENT: the file isn't spilled (any more). */
int spilled_open(struct fastspool *fs, uint32_t description);
ssize_t spilled_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, uint64_t offset);

#endif

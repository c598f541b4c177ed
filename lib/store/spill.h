/* SPDX-License-Identifier: MIT
 *
 * Spill files: open files whose data has no room in memory.
 */
#ifndef FASTSPOOL_SPILL_H
#define FASTSPOOL_SPILL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct fault;

/** The mirror alone: an empty spill file for the fault, of its size; a descriptor for reading and writing. */
int spill_create(struct fastspool *fs, const struct fault *fault);
/** The description was opened: if its file is spilled, it reads from the spill file, whoever the process will be. */
int spill_attach(struct fastspool *fs, uint32_t description);
/** A descriptor of the spill file, for reading, the caller's; -ENOENT: the file isn't spilled (any more). */
int spill_open(struct fastspool *fs, uint32_t description);
ssize_t spill_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, uint64_t offset);
/** The mirror alone: files that nobody has open are evicted again, and spill files without an inode are removed.  How
 * many are left. */
int spill_sweep(struct fastspool *fs);

#endif

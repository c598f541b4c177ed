/* SPDX-License-Identifier: MIT
 *
 * The way that the clients go to their files: the library, or a view of the store, as processes without the library go.
 * The calls are those of POSIX, below the store's root.  Each returns a negative number if it fails.
 */
#ifndef FASTSPOOL_WAY_H
#define FASTSPOOL_WAY_H

#include "fastspool.h"

#include <stddef.h>
#include <sys/types.h>

/** From now on by a view: it is mounted at @directory, for this process and its children alone, and a child of this
 * process answers from @fs with @durability.  0; -errno: there can be no view here. */
int way_mount(struct fastspool *fs, enum fastspool_durability durability, const char *directory);
/** Unmount it, and end its server. */
void way_unmount(void);

int way_open(struct fastspool *fs, const char *name, int flags, mode_t mode);
ssize_t way_write(struct fastspool *fs, int d, const char *bytes, size_t size);
ssize_t way_read(struct fastspool *fs, int d, char *bytes, size_t size);
int way_fsync(struct fastspool *fs, int d);
int way_close(struct fastspool *fs, int d);
int way_rename(struct fastspool *fs, const char *from, const char *to);
int way_unlink(struct fastspool *fs, const char *name);

#endif

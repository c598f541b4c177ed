/* SPDX-License-Identifier: MIT
 *
 * Lock owners: the record locks that processes hold through the view.
 */
#ifndef FASTSPOOL_OWNERS_H
#define FASTSPOOL_OWNERS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct flock;

/** Start the thread that waits for locks.  Once, before the first request.  0 or -errno. */
int owners_start(struct fastspool *fs);
/** fcntl(2), F_SETLK or (@wait) F_SETLKW, of @owner on file @handle by its @description.  Answers @req, at once or
 * later. */
void owners_set(fuse_req_t req, uint64_t handle, uint64_t owner, int description, const struct flock *lock, bool wait);
/** F_GETLK.  0 or -errno. */
int owners_get(uint64_t handle, uint64_t owner, int description, struct flock *lock);
/** @owner has closed a descriptor of the file: POSIX drops his locks on it. */
void owners_flush(uint64_t handle, uint64_t owner);
/** The last descriptor of @description is closed: so are the locks of open file descriptions that came by it. */
void owners_release(int description);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Record locks.
 */
#ifndef FASTSPOOL_LOCKS_H
#define FASTSPOOL_LOCKS_H

#include <stdint.h>

struct fastspool;
struct flock;

/** As fastspool_lock(). */
int locks_control(struct fastspool *fs, uint32_t description, int command, struct flock *lock);
/** As fastspool_lock_for() and fastspool_lock_owner(). */
int locks_control_for(struct fastspool *fs, uint32_t description, int owner, int command, struct flock *lock);
int locks_owner(struct fastspool *fs);
/** A descriptor of this file is being closed: POSIX drops the process's locks on it. */
void locks_drop(struct fastspool *fs, uint32_t description, uint32_t inode);
/** As locks_drop(), then descriptions_close(): 0 or a negative errno. */
int locks_close(struct fastspool *fs, uint32_t description, uint32_t inode);
/** In the child of a fork: it holds none of its parent's locks. */
void locks_after_fork_child(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Open file descriptions: offset, flags and inode in the segment, identity and life in the kernel.
 */
#ifndef FASTSPOOL_DESCRIPTIONS_H
#define FASTSPOOL_DESCRIPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct stat;

/** Take a description with an open placeholder.  @fd: the placeholder's descriptor, a high number; the pool owns it.
 *  @fresh: a duplicate with the lowest number that was free, close-on-exec, which is the caller's; -1: there is none,
 *  as the placeholder was open before. */
int descriptions_take(struct fastspool *fs, uint32_t *description, int *fd, int *fresh);
/** Has the pool one whose placeholder is open? */
bool descriptions_idle(const struct fastspool *fs);
/** The program has a descriptor of @description: the pool needs none.  Returns the pool's, now the caller's, or -1: it
 *  has none, or @few and it has few, and keeps it for the next open. */
int descriptions_give(struct fastspool *fs, uint32_t description, bool few);
/** In a section: make it an open file. */
int descriptions_open(struct fastspool *fs, uint32_t description, uint32_t inode, int flags);
/** The process has closed its last descriptor of the description.  If no fork, exec or message can have copied it, it
 *  goes back to the pool.  Otherwise the last process to close it frees it.  What this process has noted by it ends.
 *  Returns 1 if somebody waits for that. */
int descriptions_close(struct fastspool *fs, uint32_t description);
/** The same, by a process that leaves the store.  The kernel isn't asked whether another process holds it:
 *  that one frees it, or descriptions_reap() does. */
int descriptions_leave(struct fastspool *fs, uint32_t description);
/** The descriptor of @description that the pool has besides the program's, and keeps; -1: none. */
int descriptions_kept(struct fastspool *fs, uint32_t description);
/** From now on another process may hold every description that is open in this one.  Call before a fork, an exec and a
 *  message with descriptors; fastspool_after_fork_child() does not. */
void descriptions_shared(struct fastspool *fs);
/** In the child of a fork: close the pool's idle descriptors. */
void descriptions_after_fork_child(struct fastspool *fs);
/** The number of the description that kernel descriptor @fd stands for; 0: for none of this spool. */
uint32_t descriptions_identify(struct fastspool *fs, int fd);
/** Is the file of @st a placeholder of this spool? */
bool descriptions_is_placeholder(const struct fastspool *fs, const struct stat *st);
/** Set, or get, the descriptor of the spill file that an open description reads from.  The pool owns it.  -1: none. */
int descriptions_set_spill(struct fastspool *fs, uint32_t description, int fd);
int descriptions_spill(struct fastspool *fs, uint32_t description);
/** The lowest of the pool's own descriptors from @from up to @to; UINT_MAX: there is none. */
unsigned descriptions_next_own(struct fastspool *fs, unsigned from, unsigned to);
/** Free what dead processes had open.  The mirror calls it once a second. */
int descriptions_reap(struct fastspool *fs);
/** The inode and generation of an open description.  -EBADF: it is not open. */
int descriptions_file(const struct fastspool *fs, uint32_t description, uint32_t *inode, uint32_t *generation);
/** Close all that the process has open, and free the pool. */
void descriptions_pool_close(struct fastspool *fs);

#endif

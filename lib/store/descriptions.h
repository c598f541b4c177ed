/* SPDX-License-Identifier: MIT
 *
 * Open file descriptions: offset, flags and inode in the segment, identity and life in the kernel.
 */
#ifndef FASTSPOOL_DESCRIPTIONS_H
#define FASTSPOOL_DESCRIPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Take a description: its placeholder is open, with its identity in the kernel's offset and its liveness lock.
 *  @fd: the placeholder's descriptor (a high number, owned by the pool). */
int descriptions_take(struct fastspool *fs, uint32_t *description, int *fd);
/** In a section: it now is an open file. */
int descriptions_open(struct fastspool *fs, uint32_t description, uint32_t inode, int flags);
/** The process has closed its last descriptor of it.  Where no fork, exec or message can have copied it, it goes
 *  back to the pool; else the kernel is asked whether anybody holds it, and the last one frees it. */
int descriptions_close(struct fastspool *fs, uint32_t description);
/** Every description that is open in this process may from now on be held by another one too. */
void descriptions_shared(struct fastspool *fs);
/** The child of a fork: close what the pool has open. */
void descriptions_after_fork_child(struct fastspool *fs);
/** Does the kernel descriptor @fd stand for a description of this spool?  Its number, or 0. */
uint32_t descriptions_identify(struct fastspool *fs, int fd);
/** The pool's own descriptor of a description that this process opened, -1: none (inherited). */
int descriptions_fd(struct fastspool *fs, uint32_t description);
/** The descriptor of the spill file that an open description reads from: the pool's from now on; -1: none. */
int descriptions_set_spill(struct fastspool *fs, uint32_t description, int fd);
int descriptions_spill(struct fastspool *fs, uint32_t description);
/** Is @fd one of the pool's own descriptors? */
bool descriptions_owns(struct fastspool *fs, int fd);
/** Free what the dead had open.  The mirror calls it once a second, recovery once. */
int descriptions_reap(struct fastspool *fs);
/** Read inode and generation of an open description; -EBADF. */
int descriptions_file(const struct fastspool *fs, uint32_t description, uint32_t *inode, uint32_t *generation);
void descriptions_pool_close(struct fastspool *fs);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The content of files: which block holds what.
 */
#ifndef FASTSPOOL_DATA_H
#define FASTSPOOL_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct inode;

#define DATA_STEP 65536u /* bytes of one section */
ssize_t data_read(struct fastspool *fs, uint32_t inode, uint32_t generation, void *buffer, size_t size,
                  uint64_t offset);
/** In a section; at most DATA_STEP bytes. */
int data_write(struct fastspool *fs, uint32_t inode, const void *buffer, size_t size, uint64_t offset);
/** In a section: set the size, freeing at most DATA_FREE_STEP blocks; 1: there is more to free, call again (in a
 *  section of its own; the file is that much shorter already), 0: done. */
int data_truncate(struct fastspool *fs, uint32_t inode, uint64_t size);
#define DATA_FREE_STEP 128u
/** In a section: free the file's blocks from its end down to block @to, at most @most of them; inode.size follows.
 *  1: there is more to free, 0: done. */
int data_shrink(struct fastspool *fs, uint32_t inode, uint32_t to, uint32_t most);
/** Whether one section can free all of the file. */
bool data_small(const struct inode *inode);
/** In a section: give at most @most of the file's blocks back, but not its size: what it holds is in the database.  1:
 *  there are more, 0: it has none. */
int data_empty(struct fastspool *fs, uint32_t inode, uint32_t most);
/** In a section, of an evicted file, whose data nobody can read yet: @size bytes at @offset, a multiple of BLOCK_SIZE;
 * at most DATA_STEP. */
int data_load(struct fastspool *fs, uint32_t inode, const void *buffer, size_t size, uint64_t offset);
/** In a section, of any file: its blocks (index blocks, too) that lie in chunk @chunk move to others, from block
 * *@index of the file on, some of them; 1: there may be more, go on in a section of its own, 0: none is left. */
int data_vacate(struct fastspool *fs, uint32_t inode, uint32_t chunk, uint32_t *index);
/** In a section or with the lock: block number of the file's block @index, 0: a hole. */
uint32_t data_block(const struct fastspool *fs, const struct inode *inode, uint32_t index);

/** Blocks that @size bytes reach. */
uint32_t data_blocks(uint64_t size);
/** In a section: published blocks of the file are about to change (odd), or have changed (even): see data.c. */
void data_version_next(struct fastspool *fs, const struct inode *inode);

#endif

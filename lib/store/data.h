/* SPDX-License-Identifier: MIT
 *
 * The content of files: its blocks, reading, writing, truncating.
 */
#ifndef FASTSPOOL_DATA_H
#define FASTSPOOL_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct inode;

/** Bytes that one section reads or writes, at most. */
#define DATA_STEP 65536u
/** Outside sections: read from an inode of which a description is open.  Returns the bytes read, 0 at the end of the
 *  file, possibly fewer than @size.  -EIO: the segment is damaged. */
ssize_t data_read(struct fastspool *fs, uint32_t inode, uint32_t generation, void *buffer, size_t size,
                  uint64_t offset);
/** Inside a section: write at most DATA_STEP bytes, and set size and times.  -EFBIG: behind the largest offset.
 *  -EAGAIN: no block is free (section_want()).  -EIO: the segment is damaged. */
int data_write(struct fastspool *fs, uint32_t inode, const void *buffer, size_t size, uint64_t offset);
/** Inside a section: set the size, and free at most DATA_FREE_STEP blocks.  0: done.  1: there is more to free, and the
 *  file is shorter by what is freed; call again in another section.  Errors as data_write(). */
int data_truncate(struct fastspool *fs, uint32_t inode, uint64_t size);
/** Blocks that one section frees, at most. */
#define DATA_FREE_STEP 128u
/** Inside a section: free the blocks of the file from its end down to block @to, at most @most of them.  The size
 *  shrinks with them.  0: done.  1: there is more to free.  -EIO: the segment is damaged. */
int data_shrink(struct fastspool *fs, uint32_t inode, uint32_t to, uint32_t most);
/** Under the lock: whether one section can free all blocks of the file. */
bool data_small(const struct inode *inode);
/** Inside a section: free at most @most blocks of a file whose data is in the database.  The size stays.  0: it has no
 *  blocks.  1: there are more.  -EIO: the segment is damaged. */
int data_empty(struct fastspool *fs, uint32_t inode, uint32_t most);
/** Inside a section: a page-in writes @size bytes, at most DATA_STEP, at @offset, a multiple of BLOCK_SIZE.  The file
 *  is EVICTED, so no process reads its blocks.  The size stays.  Errors as data_write(). */
int data_load(struct fastspool *fs, uint32_t inode, const void *buffer, size_t size, uint64_t offset);
/** Inside a section: move some blocks of the file, or pieces, index blocks too, out of chunk @chunk, from block *@index
 * of the file on.  Sets *@index to where the next call goes on.  0: no block is left in the chunk.  1: there may be
 * more; call again in another section.  -ENOSPC: no other chunk has a free block.  Other errors as data_write(). */
int data_vacate(struct fastspool *fs, uint32_t inode, uint32_t chunk, uint32_t *index);
/** Under the lock or in a read: the piece (layout.h) that is block @index of the file, 0: a hole (or damage). */
uint32_t data_piece(const struct fastspool *fs, const struct inode *inode, uint32_t index);

/** Number of blocks of a file of @size bytes without holes.  Of a size beyond FILE_SIZE_MAX: more than a file can have.
 */
uint32_t data_blocks(uint64_t size);
/** Inside a section: published blocks of the file are about to change (data.c). */
void data_changes(struct fastspool *fs, const struct inode *inode);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Blocks: the memory of the content of files, and the chunks that it comes in.
 */
#ifndef FASTSPOOL_BLOCKS_H
#define FASTSPOOL_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct header;

/** Inside a section: take a piece (layout.h) that has room for @size bytes, from 1 to BLOCK_SIZE: *@piece.  Its content
 *  is undefined.  -EAGAIN: none is free, or for processes other than the mirror only the reserve (section_want()).
 *  -EIO: the segment is damaged. */
int blocks_take(struct fastspool *fs, uint32_t size, uint32_t *piece);
/** The same, out of another chunk than @chunk, whose blocks are taken last.  -ENOSPC: no other has room. */
int blocks_take_elsewhere(struct fastspool *fs, uint32_t size, uint32_t chunk, uint32_t *piece);
/** Inside a section: free a piece.  While a commit copies, it goes to quarantine. */
void blocks_give(struct fastspool *fs, uint32_t piece);
/** Number of blocks that are free with all their parts, the reserve included.  From anywhere. */
uint64_t blocks_spare(const struct header *header);
/** Outside sections: take memory for one more chunk.  Errors as table_grow(). */
int blocks_add_chunk(struct fastspool *fs);
/** This thread has taken one of the last free blocks. */
extern __thread bool blocks_few_left __attribute__((tls_model("initial-exec")));
void blocks_add_for_others(struct fastspool *fs);
/** Outside sections, after one that has changed something: add a chunk if few free blocks were left. */
static inline void blocks_add_ahead(struct fastspool *store)
{
    if (__builtin_expect(blocks_few_left, 0))
        blocks_add_for_others(store);
}
/** Outside sections: end the quarantine. */
int blocks_release_held(struct fastspool *fs);
/** Outside sections, for the mirror alone, once a second: give memory of chunks that are empty for UNUSED_TIME
 * (blocks.c) back to the system, by the huge page, and not all at once.  @keep bytes of free blocks stay.  If tables
 * want memory, an empty chunk leaves the lists at once, whatever @keep is; its memory goes after EMPTY_TIME. */
int blocks_give_back(struct fastspool *fs, uint64_t keep);
/** Outside sections, for the mirror alone: the chunk to vacate because tables want its memory: the one with the most
 *  free blocks.  CHUNKS_MAX: tables want none, a chunk is empty already, or the other chunks have no room. */
uint32_t blocks_to_vacate(const struct fastspool *fs);
/** Inside a section: blocks of the chunk, and parts of them, are taken after those of all other chunks.  -ESTALE: its
 * memory is gone. */
int blocks_take_last(struct fastspool *fs, uint32_t chunk);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Blocks: the memory that holds the content of files, and the chunks that it comes in.
 */
#ifndef FASTSPOOL_BLOCKS_H
#define FASTSPOOL_BLOCKS_H

#include <stdint.h>

struct fastspool;
struct header;

int blocks_take(struct fastspool *fs, uint32_t *block);    /* inside a section; content undefined */
void blocks_give(struct fastspool *fs, uint32_t block);    /* inside a section */
uint64_t blocks_spare(const struct header *header);        /* how many are free */
int blocks_add_chunk(struct fastspool *fs);                /* outside: TABLE_CHUNKS grows by one; as segment_grow() */
int blocks_release_held(struct fastspool *fs);             /* outside: the quarantine is over */
int blocks_give_back(struct fastspool *fs, uint64_t keep); /* outside, the mirror alone: chunks empty for some seconds,
                                                              but for @keep bytes, go back to the system */
/** Outside, the mirror alone: the chunk that has to become empty because the tables want its memory, the one with the
 *  fewest blocks in use; CHUNKS_MAX: there is no need, or no room for them elsewhere. */
uint32_t blocks_to_vacate(const struct fastspool *fs);
int blocks_take_last(struct fastspool *fs, uint32_t chunk); /* inside: its free blocks are taken after all others */

#endif

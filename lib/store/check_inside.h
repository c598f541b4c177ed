/* SPDX-License-Identifier: MIT
 *
 * What the parts of the check share: what has been counted so far.
 */
#ifndef FASTSPOOL_CHECK_INSIDE_H
#define FASTSPOOL_CHECK_INSIDE_H

#include "store/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct findings;

struct check {
    const struct fastspool *fs;
    struct findings *findings;
    struct snapshot_extent extent;
    uint32_t *opens;          /* per inode: open descriptions that lead to it */
    uint64_t notes;           /* open descriptions with a noted lock */
    uint32_t *subdirectories; /* per inode */
    uint8_t *listed;          /* per inode: in which lists it is */
    uint8_t *named;           /* per name: in which lists it is */
    uint8_t *reached;         /* per block: a bit for each part that a place leads to, then those that others do too */
};

/* ---- check.c ---- */

/** Is @i the number of an inode in use? */
bool check_inode_used(const struct check *check, uint32_t i);
/** Of @what there are as many as the store says? */
void check_count(struct check *check, const char *what, uint64_t counted, uint64_t said);

/* ---- check_names.c: names, and the tree that they make ---- */

/** Hash chains, free names, directories and their lists. */
void check_names(struct check *check);
/** The names of inode @i, and its links. */
void check_names_of(struct check *check, uint32_t i);
/** After all of them: is each name in all of its lists? */
void check_names_met(struct check *check);

/* ---- check_lists.c: lists of inodes ---- */

void check_lists(struct check *check);
/** Is inode @i in the lists in which it has to be? */
void check_lists_of(struct check *check, uint32_t i);

/* ---- check_blocks.c: blocks and chunks ---- */

void check_blocks_of(struct check *check, uint32_t i);
/** After all inodes. */
void check_chunks(struct check *check);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Captures: all that is dirty, at one instant, and what becomes of it when it is on the disk.  For the committing
 * thread.
 */
#ifndef FASTSPOOL_CAPTURE_H
#define FASTSPOOL_CAPTURE_H

#include "store/layout.h"

#include <stddef.h>
#include <stdint.h>

struct fastspool;

/** A dirty inode as it was at the instant of the capture. */
struct captured {
    uint32_t inode;
    struct inode state; /* links == 0: delete it on the disk */
    uint32_t first;     /* block numbers of the file's blocks [first, first + count), pinned until capture_end(): */
    uint32_t count;     /*   the dirty ones and a neighbour on each side; 0: a hole, or behind the end */
    uint32_t *blocks;
    size_t names; /* names of the inode: */
    struct captured_name {
        uint32_t parent;
        uint8_t length;
        char text[255];
    } * name;
};
struct capture {
    uint64_t ticket; /* what becomes durable with it */
    size_t count;
    struct captured *file;       /* oldest change first */
    struct captured_name *names; /* what file[].name and file[].blocks point into */
    uint32_t *blocks;
};
/** The mirror alone: everything dirty, at one instant.  0 with count 0: nothing is dirty. */
int capture_take(struct fastspool *fs, struct capture *capture);
/** The mirror alone: @result 0: it is on the disk; else a negative errno, and all of it stays dirty.  Wakes the
 *  waiters, frees the capture.  @duration ns. */
int capture_end(struct fastspool *fs, struct capture *capture, int result, uint64_t duration);
/** A new mirror: what a dead one had begun is dirty as before. */
int capture_reset(struct fastspool *fs);

/** Commits can't even be tried: @error, a negative errno, is what every fsync that isn't durable returns until one
 * succeeds. */
void capture_fail(struct fastspool *fs, int error);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Captures: all that is dirty, at one instant, and what becomes of it when it is on the disk.  For the committer.
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
    uint32_t first;     /* index in the file of the first captured block: a neighbour of the first dirty one */
    uint32_t count;     /* of captured blocks: the dirty ones, and a neighbour on each side */
    uint32_t *pieces;   /* of these, pinned until its end; 0: a hole, or behind the end */
    size_t names;       /* how many of the inode's names `name` holds */
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
    struct captured_name *names; /* what file[].name and file[].pieces point into */
    uint32_t *pieces;
};

/** For the mirror alone: capture all that is dirty, at one instant.  0 with count 0: nothing is dirty.  Every capture
 *  with a count must be ended by capture_end() or capture_put_back().  A negative errno (-ENOMEM; -EIO: the segment is
 *  damaged): there is no capture, nothing to end. */
int capture_take(struct fastspool *fs, struct capture *capture);

/** The same, and at that instant the store becomes FAILED with the sentence @why: nothing changes after the capture. */
int capture_take_last(struct fastspool *fs, struct capture *capture, const char *why);

/** For the mirror alone: end a capture, wake the waiters, and free it.  @error 0: it is on the disk; else a negative
 *  errno, and all of it stays dirty.  @duration: of the commit, ns. */
int capture_end(struct fastspool *fs, struct capture *capture, int error, uint64_t duration);

/** The same for one that did not get to the disk, for @error, but the next one will at once, by another way: all of it
 *  stays dirty, and nobody is woken.  0 or a negative errno. */
int capture_put_back(struct fastspool *fs, struct capture *capture, int error);

/** For a new mirror: what a dead one had begun is dirty as before. */
int capture_reset(struct fastspool *fs);

/** Commits cannot even be tried: @error, a negative errno, is what every fsync that is not durable returns until one
 *  succeeds. */
void capture_fail(struct fastspool *fs, int error);

#endif

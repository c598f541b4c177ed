/* SPDX-License-Identifier: MIT
 *
 * Tickets and their waiters; the capture that the mirror writes.
 */
#ifndef FASTSPOOL_COMMIT_H
#define FASTSPOOL_COMMIT_H

#include "store/layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fastspool;

/** Bounds of what may be left unwritten: an fsync waits beyond, also one that would return at once. */
#define COMMIT_BYTES_MAX (UINT64_C(64) << 20)
#define COMMIT_FILES_MAX 16384u
#define COMMIT_AGE_MAX   10u /* flush intervals, and at least 1 s */

/** Wait until change number @ticket is durable; @timeout ns, 0 = for ever.  Starts a mirror where none lives. */
int commit_wait(struct fastspool *fs, uint64_t ticket, uint64_t timeout);
/** Commits can't even be tried: @error (positive) is what every fsync that isn't durable returns until one succeeds. */
void commit_fails(struct fastspool *fs, int error);
/** fsync, as the process's durability says, of a file whose last change is @ticket, or of a @directory. */
int commit_sync(struct fastspool *fs, uint64_t ticket, bool directory);
/** So long did a share of @percent of the commits take at most, ns; 0: there was none. */
uint64_t commit_percentile(const struct fastspool *fs, unsigned percent);

/** A dirty inode as it was at the instant of the capture. */
struct captured {
    uint32_t inode;
    struct inode record; /* links == 0: delete it on the disk */
    uint32_t first;      /* block numbers of the file's blocks [first, first + count), pinned until commit_end(): */
    uint32_t count;      /*   the dirty ones and a neighbour on each side; 0: a hole, or behind the end */
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
int commit_capture(struct fastspool *fs, struct capture *capture);
/** The mirror alone: @error 0: it is on the disk; else a positive errno, and all of it stays dirty.  Wakes the
 *  waiters, frees the capture. */
int commit_end(struct fastspool *fs, struct capture *capture, int error, uint64_t duration);
/** A new mirror: what a dead one had begun is dirty as before. */
int commit_reset(struct fastspool *fs);

#endif

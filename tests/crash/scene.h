/* SPDX-License-Identifier: MIT
 *
 * The scene: the tree of files below `t` that an operation finds, and the state of the store.
 */
#ifndef FASTSPOOL_SCENE_H
#define FASTSPOOL_SCENE_H

#include "store/layout.h"
#include "store/store.h"

#define FILE_SIZE 10000
#define HUGE_SIZE (140 * BLOCK_SIZE) /* freed in several sections */

/** What an operation needs: a set of these. */
enum needs {
    HUGE = 1,   /* the scene has a huge file */
    FRESH = 2,  /* a new store that holds only the directory `t` */
    COMMIT = 4, /* a commit runs */
    EVICT = 8,  /* the scene is in the database */
    ALONE = 16, /* no other process works beside it: only the mirror does this */
    QUEUE = 32, /* the scene has files to be read in the order of their names */
};

/** Each file holds a beginning of these bytes.  Fill them before the first scene. */
extern char scene_bytes[HUGE_SIZE];
void scene_fill_bytes(void);

/** Set the scene for @needs in the empty store @fs. */
void scene_set(struct fastspool *fs, unsigned needs);

/** End the commit that scene_set() began for COMMIT.  0, or a negative errno. */
int scene_end_commit(struct fastspool *fs);

/** For operations that add to the scene: abort if @result is negative; make a file; give @path times long ago, so that
 *  the dump of a tree shows what was touched.  All three abort on failure. */
void scene_must(long result, const char *what);
void scene_put(struct fastspool *fs, const char *path, size_t size);
void scene_date(struct fastspool *fs, const char *path);

/** Remove directory @path and all below it.  0, or a negative errno. */
int scene_remove(struct fastspool *fs, const char *path);

#endif

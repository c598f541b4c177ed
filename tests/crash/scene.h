/* SPDX-License-Identifier: MIT
 *
 * The scene of a death: the tree of files below `t` that an operation finds, and the state in which it finds the store.
 */
#ifndef FASTSPOOL_SCENE_H
#define FASTSPOOL_SCENE_H

#include "store/layout.h"
#include "store/store.h"

#define FILE_SIZE 10000
#define HUGE_SIZE (140 * BLOCK_SIZE) /* is freed in several sections */

/** What an operation needs of its scene, and around it: a set of these. */
enum needs {
    HUGE = 1,   /* the scene has a huge file */
    FRESH = 2,  /* in a store in which nothing was ever made */
    COMMIT = 4, /* while a commit runs */
    EVICT = 8,  /* the scene is in the database */
    ALONE = 16, /* nobody works beside it: only the one mirror does such a thing */
    QUEUE = 32, /* the scene has files that are read in the order of their names */
};

/** What the files hold: each a beginning of it.  To be filled before the first scene. */
extern char scene_bytes[HUGE_SIZE];
void scene_fill_bytes(void);

/** Set the scene in the empty store @fs, as @needs say. */
void scene_set(struct fastspool *fs, unsigned needs);

/** End the commit that scene_set() began for COMMIT.  0, or a negative errno. */
int scene_end_commit(struct fastspool *fs);

/** For deeds that add to the scene: abort where @result is negative; make a file; give @path times that are long ago,
 *  so that the dump of a tree shows what was touched.  What fails aborts. */
void scene_must(long result, const char *what);
void scene_put(struct fastspool *fs, const char *path, size_t size);
void scene_date(struct fastspool *fs, const char *path);

/** Remove directory @path with all that is in it.  0, or a negative errno. */
int scene_remove(struct fastspool *fs, const char *path);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Paths: which of a program's paths are the store's.
 */
#ifndef FASTSPOOL_PATHS_H
#define FASTSPOOL_PATHS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** A path of the store. */
struct store_path {
    struct fastspool *fs; /* NULL: the store can't be served, and every call on the path must fail with `error` */
    int error;            /* an errno */
    const char *path;     /* relative to the spool: inside the path that was asked about, or in `text` */
    char text[PATH_MAX];
};
/** Is @path, taken from directory @dirfd, the store's?  Most paths that are not cost a comparison of bytes. */
bool paths_resolve(int dirfd, const char *path, struct store_path *target);
/** paths_resolve() for a call that follows a symbolic link at the end of the path: also of the names that
 * /proc/self/fd, /dev/fd and /dev/stdout give a descriptor. */
bool paths_follow(int dirfd, const char *path, struct store_path *target);
/** Would paths_follow() say no, and by the text of the path alone, as of most paths?  Asked first, where a struct
 *  store_path is a page of the stack that such a call need not touch. */
bool paths_foreign(int dirfd, const char *path);
/** paths_resolve() and paths_follow() of a path of which paths_foreign() has said no: its memory is not looked at
 *  again. */
bool paths_resolve_asked(int dirfd, const char *path, struct store_path *target);
bool paths_follow_asked(int dirfd, const char *path, struct store_path *target);
/** The description that @path, another name of a descriptor, leads to.  0: it is none. */
uint32_t paths_description(const char *path);
/** Does the path, which is not the store's, lead to a placeholder?  By a descriptor of another process, for example.
 *  A change of its attributes would harm the store.  @flags: of fstatat(2). */
bool paths_is_placeholder(int dirfd, const char *path, int flags);
/** The working directory has changed. */
void paths_entered(void);
/** From now on it changes without a call that is seen (nftw(3), fts(3)). */
void paths_wander(void);
/** Is the disk asked, too, where the store has no such file?  Not where there is a view: all is in the store, and the
 *  disk's path leads to the view's server, which this process must not wait for.  A view may come at any time.
 *  @fs: NULL (a path that can't be served): no. */
bool paths_ask_disk(const struct fastspool *fs);
/** Does the disk have @target, or the -D file of its message, and the store neither?  For creating. */
bool paths_on_disk(const struct store_path *target);
/** The real path of @target. */
const char *paths_real(const struct store_path *target, char real_path[PATH_MAX]);
/** The real path of @description, an open directory of the store.  0 or more, or -errno. */
int paths_of(struct fastspool *fs, uint32_t description, char path[PATH_MAX]);
/** Only the disk has the directory above @target: make it in the store.  0 or -errno. */
int paths_adopt(const struct store_path *target);
/** This process has changed names in a served directory of the disk: its next fsync there is the disk's too.  Any
 *  thread may: with LOAD and STORE. */
extern bool paths_disk_changed;

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the rooms of shim/ share.
 *
 * A wrapper is short: it asks whether the path (paths.c) or the descriptor (descriptors.c) is the store's; if not, it
 * calls the function behind it; if so, it calls the store and turns -errno into errno.
 */
#ifndef FASTSPOOL_SHIM_H
#define FASTSPOOL_SHIM_H

#include "real.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>

/* ---- results ---- */

/** -errno to errno and -1; errno is left alone on success. */
static inline long result_of(long result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

/* ---- paths.c ---- */

struct fastspool;

/** A path that has been recognised as the store's. */
struct place_of {
    struct fastspool *fs;
    int error;        /* 0, or the errno with which every call on it must fail: the store can't be served */
    const char *path; /* relative to the spool: inside the path that was asked about, or in `text` */
    char text[PATH_MAX];
};
/** Is @path, taken from directory @dirfd, the store's?  Costs a comparison of bytes for most paths that are not. */
bool paths_resolve(int dirfd, const char *path, struct place_of *place);
/** Does the disk, not the store, have what @place names or the message that it belongs to?  For creating. */
bool paths_on_disk(const struct place_of *place);
/** The real path of @place, for the union with the disk. */
const char *paths_real(const struct place_of *place, char real_path[PATH_MAX]);
/** The real path of an open directory of the store.  0 or more, or -errno. */
int paths_of(struct fastspool *fs, uint32_t description, char path[PATH_MAX]);
/** The directory above @place is on the disk only: make it in the store.  0 or -errno. */
int paths_adopt(const struct place_of *place);
/** This process has changed names in a served directory of the disk: its next fsync there is the disk's too. */
extern bool paths_disk_changed;

/* ---- descriptors.c ---- */

/** The open file description that @fd stands for, 0: none. */
uint32_t descriptors_find(int fd);
/** A new descriptor for an open description whose placeholder is @pool_fd.  -errno: it has been closed. */
int descriptors_new(uint32_t description, int pool_fd, int flags);
/** @fd (returned by a real call) now stands for @description, 0: for something foreign. */
void descriptors_set(int fd, uint32_t description);
/** @fd is about to stand for something else: what it stood for, to be released when that has happened. */
uint32_t descriptors_detach(int fd);
/** One descriptor less stands for @description. */
void descriptors_release(uint32_t description);
/** @new, if it is no error, is a duplicate of @old: returned. */
int descriptors_duplicated(int old, int new);
/** Ask about every descriptor of this process that is still unknown: it may have been inherited. */
void descriptors_discover(void);
/** Call @each with every descriptor of this process that stands for a description. */
void descriptors_each(void (*each)(int fd, uint32_t description, void *argument), void *argument);
/** Is @fd one of the library's own descriptors? */
bool descriptors_is_own(int fd);
/** Is @fd a real file below db/ or scan/, whose fsync is free? */
bool descriptors_is_hint(int fd);
void descriptors_mark_hint(int fd);

/* ---- copies.c ---- */

/** Replace descriptor @fd, a spool file, by a private copy of the file: same number, offset and flags. */
int copies_replace(int fd);
/** An anonymous file with the content, offset and flags of @description: its descriptor, close-on-exec, or -errno. */
int copies_new(uint32_t description);

/* ---- opening.c ---- */

/** open(2) on the store, with the union rules: a descriptor or -errno; *@foreign: the disk has it, call the real one.
 */
int opening_place(struct place_of *place, int flags, mode_t mode, bool *foreign);
mode_t opening_umask(void);

/* ---- serve.c ---- */

/** The attached store of the spool that this process serves, attaching at the first call; NULL: *@error is 0 where
 *  nothing is served, else the errno with which calls on the spool must fail. */
struct fastspool *serve_store(int *error);
/** The attached store, without attaching. */
struct fastspool *serve_attached(void);
/** Offset in @path of what lies below the spool that this process serves, 0: it is no path of a spool.  @path is
 *  absolute and normal ("//" and "." are allowed). */
size_t serve_match(const char *path);
/** The process is about to become an ordinary user: let go of the store.  From then on calls fail with EACCES. */
void serve_leave(void);
/** Is this process served at all? */
bool serve_active(void);
/** How the library came in: must LD_PRELOAD be restored for children? */
bool serve_by_preload(void);
/** Does the image name the library itself, or /etc/ld.so.preload, so that every execution has it? */
bool serve_is_global(void);
/** The bare name for LD_PRELOAD. */
#define SERVE_LIBRARY "libfastspool.so"
/** May this user keep the store mapped besides root and the owner? */
bool serve_trusts(uid_t uid);
/** Is this the image that runs, or another one that the configuration names? */
bool serve_is_program(const struct stat *st);

/* ---- forks.c ---- */

/** What is as before when it is over. */
struct outside {
    sigset_t mask;
    int error;
};
/** Decide or attach: other threads and forks wait, and no signal handler of this thread comes in between: neither may
 *  take an undecided process for one that isn't served.  False: this thread is inside already. */
bool forks_begin(struct outside *outside);
void forks_end(const struct outside *outside);

/* ---- signals.c ---- */

/** Hold signals off, and let them in again: around each critical section of the store. */
void signals_hold(void);
void signals_release(void);

/* ---- identity.c ---- */

/** Is the real uid neither root's nor the spool owner's? */
bool identity_is_foreign(void);

#endif

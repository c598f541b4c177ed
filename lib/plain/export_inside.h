/* SPDX-License-Identifier: MIT
 *
 * Inside the export: what its files share.  export.c has the order of all that happens and finds what is to be moved,
 * export_copy.c copies it to the disk, export_batch.c moves a batch, export_walk.c knows the directories of both sides,
 * export_killed.c goes on with what a killed export has left.  Every function that can fail returns 0 or more, or a
 * negative errno, and then the export's error says why.
 */
#ifndef FASTSPOOL_EXPORT_INSIDE_H
#define FASTSPOOL_EXPORT_INSIDE_H

#include "base/clock.h"
#include "base/places.h"
#include "fastspool.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TREE        PLACES_EXPORTED
#define TARGET      PLACES_TARGET
#define NUMBER      PLACES_NUMBER
#define OWN         "."
#define BATCH       128
#define BATCH_BYTES (UINT64_C(8) << 20)
#define MEMBERS     8 /* files of a message, at most */
#define PIECE       (64 << 10)
#define PATIENCE    (3 * NS_PER_S) /* with a process that has a file open; the dead are noticed once a second */

/* A file of a group. */
struct file {
    char *path;
    uint64_t size, mtime;
    bool copied; /* or the disk had the same before */
    bool taken;  /* it is in the tree */
};

/* A message, or a file that belongs to none. */
struct group {
    struct file file[MEMBERS]; /* the -H file is the first */
    size_t files;
    int description; /* of the -D file, locked, or of the single file; -1: none */
    bool message;
};

struct export_result;

struct export
{
    struct fastspool *fs;
    int disk;
    dev_t device; /* of the spool's own directory */
    const char *to;
    uint64_t number; /* of the copies, which are told from other exports' by it; 0: an earlier version's */
    char copied[PLACES_COPIED_MAX]; /* what their names begin with */
    struct export_result *result;
    uint64_t end; /* what comes into the store later is not exported */
    struct group group[BATCH];
    size_t groups;
    uint64_t bytes; /* of the batch */
    bool late;      /* the second pass: messages without a -D file */
    bool waiting;   /* there are such */
    char piece[PIECE], other[PIECE];
};

/** A visitor of files of the store, by their paths in the spool. */
typedef int visitor(struct export *ex, const char *path);

/** Say why the export ends.  Returns @code. */
int export_fail(struct export *ex, int code, const char *what, const char *path);
/** Tell who has asked for the export that @path stays, or has another name. */
void export_tell(const struct export *ex, const char *path, const char *why);
/** The message of @path stays, as a process works on it.  Returns 0. */
int export_leave_locked(const struct export *ex, const char *path);
/** Is @path found by -D file @data? */
bool export_goes_with(const char *path, const char *data);
/** Take Exim's lock of the message with -D file @data.  Returns the description that holds it.  -EAGAIN: somebody has
 * it, or the message is just being made.  No error is said. */
int export_lock(struct export *ex, const char *data);

/** What became of a group.  A negative errno is the store's or the disk's; no error is said. */
enum outcome {
    DONE,
    CONFLICT, /* the disk has another file of that name */
    CHANGED,  /* while it was copied */
    LEFT,     /* it can't be made on the disk */
};
/** Copy the files of the message with -D file @data, and @path, which may be one of them or belong to none. */
int export_copy_group(struct export *ex, struct group *group, const char *data, const char *path);

/** Make durable what the store has. */
int export_flush(struct export *ex);
/** The files of a group are no longer part of the batch.  The lock goes with the description. */
void export_forget(struct export *ex, struct group *group);
/** All of a group is the store's again: the -H file last, and the copies are removed after that. */
int export_give_back(struct export *ex, struct group *group);
/** Does nobody else have the group's -D file open, or its single file?  No process can open it any more.  Waits for
 * that until @until, by clock_monotonic(). */
bool export_is_alone(const struct export *ex, const struct group *group, uint64_t until);
/** Steps 2 to 4 of the batch, which is empty then.  @decided: it is what a killed export has left in the tree. */
int export_commit(struct export *ex, bool decided);

/** The path of file @path in the tree.  The store has no path that is too long: then it is "", which leads nowhere. */
void export_tree_path(const char *path, char in_tree[PATH_MAX]);
bool export_has(const struct export *ex, const char *path);
/** Make the directories above @path, which are the tree's. */
int export_parents_in_store(struct export *ex, const char *path);
/** Make the directories above @path, as they are in the store. */
int export_parents_on_disk(struct export *ex, const char *path);
/** Visit each file of @root below @path.  Directories of the store ("") are made on the disk, and cleaned of what a
 * killed export has left; those of TREE are removed when they are empty. */
int export_each_file(struct export *ex, const char *root, const char *path, visitor *visit);

/** What a killed export has left in the tree is shown and removed. */
int export_go_on(struct export *ex);

#endif

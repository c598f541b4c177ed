/* SPDX-License-Identifier: MIT
 *
 * Inside the import: what its files share.  import.c has the order of all that happens, scan.c finds what lies on the
 * disk, import_copy.c copies it into the store, staged.c has the trees of what is in the store and not yet in its
 * place. Every function returns 0 or more, or a negative errno, and then the pass's error says why.
 */
#ifndef FASTSPOOL_IMPORT_INSIDE_H
#define FASTSPOOL_IMPORT_INSIDE_H

#include "base/places.h"
#include "fastspool.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define STAGED_NEW   PLACES_STAGED
#define STAGED_TAKEN PLACES_IMPORTED
#define BATCH        128 /* messages: each has a descriptor, and not all have 1,024 */
#define PIECE        (64 << 10)

/* A file that the scan has found, with the -D file of its message or itself: where in `text` their paths begin.  A
 * message with a -D file has that one alone, and what exim_member() does not name. */
struct found {
    uint32_t path, key;
};

/* A group is a message, or a file that belongs to none. */
struct group {
    const char *key;
    size_t first; /* of its files in `moved` */
    int lock;     /* -1: none */
    bool message;
    bool shown; /* the disk has its -H file */
    bool taken; /* which has its other name, as the -D file has, or shall have it */
    bool stays; /* on the disk: a process has its -D file open */
};

struct moved {
    char *path;
    uint64_t size;
    bool staged; /* or in the store before */
};

struct import_result;

struct import {
    struct fastspool *fs;
    int disk;
    struct import_result *result;
    bool whole;                     /* as import_run() was asked */
    bool ended;                     /* as it was asked meanwhile */
    bool marked;                    /* the disk has the mark of an import: something of it is staged, or was, */
    bool staged;                    /* and may be still in the last commit */
    char copied[PLACES_COPIED_MAX]; /* what names begin with that a killed export has left and nobody wants; "": none */
    uint64_t *told;                 /* as in the result, for this pass */
    uint32_t lines;
    char *text;
    size_t text_size, text_room;
    struct found *found;
    size_t found_count, found_room;
    struct group group[BATCH];
    size_t groups;
    struct moved *moved;
    size_t moved_count, moved_room;
    uint64_t bytes; /* of the batch */
    char culprit[PATH_MAX];
    char piece[PIECE], other[PIECE];
};

/** uid 0, whom the store asks for no permission. */
extern const struct fastspool_client import_server;

/** A visitor of files and directories.  @type: DT_REG, DT_DIR, ... */
typedef int visitor(struct import *im, const char *path, int type);

/** Say why the pass ends.  Returns @code. */
int import_fail(struct import *im, int code, const char *what, const char *path);
/** What has to stay on the disk: a line in syslog, but not in each pass again. */
void import_tell(struct import *im, const char *path, const char *why);
/** The same for what can't be taken, which is counted.  Returns 0. */
int import_leave(struct import *im, const char *path, const char *why);
/** Room for one more entry of @size bytes in the array that @array points to.  -ENOMEM. */
int import_grow(void *array, size_t count, size_t *room, size_t size);

/** Find all files below the served directories, and make those directories in the store. */
int scan_run(struct import *im);

/** What became of a group, because of file `culprit`.  A negative errno is the store's. */
enum outcome {
    DONE,
    CONFLICT, /* the store has another file of that name */
    ALIVE,    /* the store has the message without this file: it may have delivered where the disk's has not */
    CHANGED,
    UNREADABLE,
};
/** Note that @path is the culprit.  Returns @outcome. */
int import_because(struct import *im, const char *path, int outcome);
/** Copy all files of a group to STAGED_NEW: those that the scan has found, and those that have come since. */
int copy_group(struct import *im, struct group *group, const struct found *found, size_t count);

/** The path of file @path in the tree @root. */
void staged_path(const char *root, const char *path, char staged[PATH_MAX]);
/** Make the directories above @path in the store. */
void staged_parents(struct import *im, const char *path, mode_t mode);
/** Visit each file of the tree @root below @path, and remove the directories that are empty then. */
int staged_each(struct import *im, const char *root, const char *path, visitor *visit);
int staged_flush(struct import *im);
/** Remove file @path from STAGED_NEW.  A visitor. */
int staged_remove(struct import *im, const char *path, int type);
/** -H file @header of the disk gets its name back, and the -D file before it.  Others are left alone.  A visitor. */
int staged_give_name_back(struct import *im, const char *header, int type);
/** STAGED_NEW goes back: on the disk the -H files get their names, in the store the tree is removed. */
int staged_give_back(struct import *im);
/** The files of STAGED_TAKEN go to their places, -H files last. */
int staged_publish(struct import *im);
/** What a killed pass has left goes on, or back.  -EXDEV: the disk is not the one that it has taken messages from. */
int staged_recover(struct import *im);
/** Before the first file is staged: mark the disk. */
int staged_mark(struct import *im);
/** The pass has ended with @result: remove the mark if nothing is staged any more.  Returns @result, or for 0 why that
 *  failed. */
int staged_unmark(struct import *im, int result);

#endif

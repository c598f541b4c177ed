/* SPDX-License-Identifier: MIT
 *
 * Export: what the store has goes into a plain spool on the disk.
 */
#ifndef FASTSPOOL_EXPORT_H
#define FASTSPOOL_EXPORT_H

#include "base/places.h"
#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>

/** What an export has done.  Zero before it, but for `progress`. */
struct export_result {
    uint64_t messages;  /* moved to the disk */
    uint64_t files;     /* theirs, and others */
    uint64_t total;     /* files that the store had at the start */
    uint32_t locked;    /* messages that stay in the store: a process works on them */
    uint32_t conflicts; /* messages and files that stay: the disk has others of that name */
    uint32_t left;      /* files that stay: they can't be made on the disk */
    void (*progress)(const struct export_result *result); /* at first, and after each batch; NULL: nobody does */
    void (*tell)(const char *path, const char *why);      /* of each that stays; the same */
    bool (*ended)(void);             /* is it to end between two messages?  Asked often; NULL: it is not */
    char error[FASTSPOOL_ERROR_MAX]; /* why it has ended early: "" */
};

/** Move all of the store into the plain spool @directory (a descriptor) with the absolute path @to; NULL: it is the
 *  spool's own, where no view lies over it and none begins.  Root's process gives each file its owner; another one
 *  leaves the files of other users.  An export that was killed goes on where it ended.  Ends the thread's
 *  fastspool_act_for().  One process at a time: -EBUSY.  A negative errno: it has ended early, and @result->error says
 *  why; -ECANCELED: `ended` has said so, and nothing is half done.  Each message is in one of the two places. */
int export_run(struct fastspool *fs, int directory, const char *to, struct export_result *result);

/** Of an export to the spool's own directory that was killed: move those messages that were on their way, and no more.
 *  0: also where there are none.  -EXDEV: this is not the disk that they were on their way to.  @copied: what the names
 *  of its copies begin with, of which nobody wants those that are still there; "": there are none.  Until export_end()
 *  the store knows that name. */
int export_finish(struct fastspool *fs, int directory, struct export_result *result, char copied[PLACES_COPIED_MAX]);
/** After export_finish(): those copies are removed. */
int export_end(struct fastspool *fs, int directory, struct export_result *result);

/** Does an export of the store run now, to wherever? */
bool export_runs(struct fastspool *fs);

#endif

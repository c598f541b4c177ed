/* SPDX-License-Identifier: MIT
 *
 * Import: what lies on the disk below the served directories goes into the store.
 */
#ifndef FASTSPOOL_IMPORT_H
#define FASTSPOOL_IMPORT_H

#include "fastspool.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define IMPORT_LINES 64 /* more say nothing */

/** What the passes have done.  Zero before the first one, and kept for the next. */
struct import_result {
    uint64_t messages; /* moved into the store, by all passes, and the number of their and other files: not those
                          that the store had, and whose copies on the disk were removed */
    uint64_t files;
    uint32_t locked;    /* messages that it has left: an Exim works on them.  Another pass gets them */
    uint32_t conflicts; /* messages and files that it has left: the store has others of that name */
    uint32_t left;      /* files that it can't take: sockets, FIFOs, symbolic links, what can't be read */
    uint32_t lines;     /* what syslog has a line of: hashes of paths.  A pass tells of others alone */
    uint64_t told[IMPORT_LINES];
    struct import_directory *directories; /* uthash by path: the disk's, as the last pass has seen them */
    char in_work[PATH_MAX];               /* the -D file of one of the locked messages: "" */
    uint64_t done, total;                 /* files of the disk that this pass has come to, and that it has found */
    void (*progress)(const struct import_result *result); /* at first, and after each batch; NULL: nobody does */
    void (*tell)(const char *path, const char *why);      /* of each that stays; NULL: syslog, of the first ones */
    bool (*ended)(void);             /* is it to end between two messages?  Asked often; NULL: it is not */
    char error[FASTSPOOL_ERROR_MAX]; /* why it has ended early: "" */
};

/** One pass over the served directories of the disk, @spool_fd.  To be called by the spool's owner where no view lies
 *  over them, by one process at a time.  Ends the thread's fastspool_act_for().  @whole: who looks at the disk must
 *  not see a part of the queue, so no message is moved while any is locked.  If one is locked after that, the rest
 *  stays.  A negative errno: the pass has ended early, and @result->error says why.  -ECANCELED: `ended` has said so,
 *  and nothing is half done.  What is not moved is on the disk as before; the next pass goes on. */
int import_run(struct fastspool *fs, int spool_fd, bool whole, struct import_result *result);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What export and import share: the store without a view, and what is told.
 */
#ifndef FASTSPOOL_MOVE_H
#define FASTSPOOL_MOVE_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

#define MOVE_INTERRUPTED 130 /* an exit status: end by the signal that came */

enum move {
    MOVE_IN,        /* from the spool's own directory */
    MOVE_OUT,       /* to it */
    MOVE_ELSEWHERE, /* to another one */
};

/** Attach the store of @spool, NULL: the configured one; recover it after a reboot; start no view.  Of the spool's own
 *  directory: no view may be mounted, and none begins as long as this process lives.  Refused beside an Exim that would
 *  be in the way (beside.h).  NULL: the reason is printed. */
struct fastspool *move_begin(const char *spool, enum move move);
/** Detach, and end a mirror that move_begin() has started and nobody else uses.  Returns the exit status @result, but
 * for MOVE_INTERRUPTED. */
int move_end(struct fastspool *fs, int result);

/** What interrupt_note() says of a second signal. */
#define MOVE_CUT_OFF(verb) \
    "at once: messages may be half moved, and none is lost: run `fastspool " verb "` again, which finishes them"

/** Say on standard error that @path stays, and why.  Of many the first ones are named. */
void move_tell(const char *path, const char *why);
/** How many more there were. */
void move_told(void);

/** `fastspool @verb` has ended early with @code, as @why says.  Returns 1. */
int move_failed(const char *verb, int code, const char *why);
/** The same by a signal: @left messages, -1: unknown, are @where ("on the disk") as before.  Returns MOVE_INTERRUPTED.
 */
int move_interrupted(const char *verb, int64_t left, const char *where);

#endif

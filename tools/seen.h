/* SPDX-License-Identifier: MIT
 *
 * What programs without the library see of a spool: the state of its view.
 */
#ifndef FASTSPOOL_SEEN_H
#define FASTSPOOL_SEEN_H

#include "spool/locker.h"

#include <stdbool.h>
#include <sys/types.h>

struct fastspool;

enum seen_state {
    SEEN_MOUNTED,
    SEEN_STARTING,    /* a view lives, or it or the store was just started, and it is not mounted yet */
    SEEN_DEAD,        /* it is mounted, and nobody answers */
    SEEN_UNMOUNTED,   /* none is mounted, and none was tried since the last one */
    SEEN_OFF,         /* the configuration says so */
    SEEN_UNAVAILABLE, /* this machine allows no mount, the view of another state is mounted, or what is none has its
                         lock */
    SEEN_UNKNOWN,     /* this user may not look; seen_look() never says so */
};

#define SEEN_LINE   4096
#define SEEN_MEND   LOCKER_SENTENCE
#define SEEN_CLOSED LOCKER_SENTENCE

struct seen {
    enum seen_state state;
    char line[SEEN_LINE]; /* the same in words */
    char mend[SEEN_MEND]; /* what helps against SEEN_DEAD, or against a view that is stopped */
    bool covered;         /* SEEN_MOUNTED, and programs of this mount namespace do not see it */
    pid_t stopped; /* the view's process, if that is stopped or frozen, so that any look at the view waits; 0: not */
    char locker[LOCKER_SENTENCE]; /* why none can be mounted, or none after the one that is: what else has a lock of
                                     the view, or what it can't open; "": neither */
    unsigned late; /* SEEN_STARTING: seconds since the start, if it takes longer than it should; 0: not */
};

/** The process of the view whose state directory is @state, if it is stopped or frozen: nobody replaces its server
 * then. 0: not, or it can't be said. */
pid_t seen_stopped(const char *state);
/** Look, and touch no view: its server may hang.  A view that should be mounted, and is not, gets a moment to be.
 * @wanted: the configuration says `view = auto`. */
void seen_look(struct fastspool *fs, bool wanted, struct seen *seen);
/** Is the configuration closed to the spool's owner, as whom the view runs?  Then @line says so, and what to do.  Only
 *  a process of root's can know it of another user. */
bool seen_closed(uid_t owner, gid_t group, char line[SEEN_CLOSED]);
/** "mounted", "starting", ...; NULL: SEEN_UNKNOWN. */
const char *seen_name(enum seen_state state);

#endif

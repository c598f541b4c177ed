/* SPDX-License-Identifier: MIT
 *
 * Census: how many messages a spool has in the store and on the plain disk.  Each counts once, wherever a killed import
 * or export has left it.
 */
#ifndef FASTSPOOL_CENSUS_H
#define FASTSPOOL_CENSUS_H

#include "fastspool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fastspool;

/** What a name in the store says of where a message is. */
enum census_kind {
    CENSUS_NOTHING,
    CENSUS_MESSAGE,   /* Exim finds it */
    CENSUS_STAGED,    /* half moved by an import: the disk has it */
    CENSUS_DECIDED,   /* the same: the store has it */
    CENSUS_COPIED,    /* half moved by an export: the disk has it */
    CENSUS_EXPORTED,  /* an export has moved it, to this disk or to another */
    CENSUS_ASIDE,     /* Exim has put it aside (Finput), and finds it no more */
    CENSUS_ELSEWHERE, /* not of a message: it was to another */
    CENSUS_KINDS
};

struct census {
    uint64_t store;   /* messages in the store, or in the state on the disk that was given instead */
    int64_t disk;     /* on the plain disk, and not in the store; negative: it can't be looked at (an errno) */
    uint64_t half;    /* of both: no Exim finds them until an import or an export has moved them whole */
    uint64_t remains; /* messages of the one place with -H files in the other, too, as a killed move leaves them */
    bool exports;     /* it is an export that has `half` of them, else an import; */
    bool elsewhere;   /* and one to another directory */
    unsigned journal; /* of a state without a store: an enum tally_journal */
    char to[FASTSPOOL_PATH_MAX]; /* that directory, as the mail user may have written it; "": unknown */
    /* Of this file alone: */
    uint64_t kinds[CENSUS_KINDS];
    char **hidden; /* the -H files on the disk whose names Exim does not know, sorted */
    size_t hiddens, room;
};

/** Count in the store @fs and on the plain disk of its spool.  @view: a view covers the disk, below which only root may
 *  look.  Takes the store's lock for no longer than a look at a name. */
void census_take(struct census *census, struct fastspool *fs, bool view);

/** The same in three steps, where no store is in memory: the disk of @spool; the names of the state, by census_kind(),
 *  whose numbers go into `kinds`; and the sums. */
void census_begin(struct census *census, const char *spool, bool view);
unsigned census_kind(const void *census, const char *path, uint64_t size);
void census_end(struct census *census);

/** Messages that plain Exim would not find, as the store has them, whole or in part. */
uint64_t census_held(const struct census *census);

#endif

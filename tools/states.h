/* SPDX-License-Identifier: MIT
 *
 * The state directories of a spool: the one that the configuration names, and others, also of Exim's own spool.
 */
#ifndef FASTSPOOL_TOOLS_STATES_H
#define FASTSPOOL_TOOLS_STATES_H

#include "fastspool.h"
#include "plain/census.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** A state with mail, or a mirror, that the configuration does not lead to. */
struct states_other {
    char spool[FASTSPOOL_PATH_MAX]; /* Exim's, which no `spool` names; "": it is `state` that does not name it */
    char state[FASTSPOOL_PATH_MAX]; /* "": there is none that matters */
    pid_t mirror;                   /* that serves it, 0: none */
    int64_t messages;               /* that it holds; -1: it can't be said */
    char of[FASTSPOOL_PATH_MAX];    /* the spool whose state it is */
    bool used;                      /* by an Exim, or that can't be said; false: by none */
};

#define STATES_SENTENCE (5 * FASTSPOOL_ERROR_MAX)

/** Can the next process of root's or the owner's use config->spool[0] with its state directory, or make that?  Makes
 *  nothing.  0; or a negative errno with a sentence, which says what to do for -EPERM, -EROFS, -ENOSPC: there is
 *  no store, and no room for its memory; and -EWOULDBLOCK: another process than a mirror has the lock of its mirror. */
int states_usable(const struct fastspool_config *config, char error[FASTSPOOL_ERROR_MAX]);

/** Count the names in the state directory @state, of which no store is in memory, in @census, which has begun.  0;
 *  -EBUSY: not now, as the journal has changes that the database lacks, or both change; another negative errno: they
 *  can't be read, as where the database is damaged. */
int states_census(const char *state, struct census *census);

/** Look for another state of config->spool[0], one with mail first: SPOOL/.fastspool, and those that mirrors serve.
 *  False: there is none that holds mail or has a mirror, or this user may not look. */
bool states_find_other(const struct fastspool_config *config, struct states_other *other);
/** The same of all, at most STATES_MOST.  How many. */
#define STATES_MOST 6
size_t states_find_others(const struct fastspool_config *config, struct states_other others[STATES_MOST]);
/** Is Exim's own spool, @spool, none of @config, which has all that Exim believes?  Needs root: it runs Exim. */
bool states_unnamed_spool(const struct fastspool_config *config, char spool[FASTSPOOL_PATH_MAX]);
/** The same as states_find_other() of Exim's own spool, where that is none of @config, which has all that Exim
 *  believes.  Needs root: it runs Exim.  Where its state is there, and empty, false with other->spool. */
bool states_find_unnamed(const struct fastspool_config *config, struct states_other *other);
/** What @other is, and what to do about it. */
void states_describe(const struct states_other *other, char found[STATES_SENTENCE], char mend[STATES_SENTENCE]);

#endif

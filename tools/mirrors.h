/* SPDX-License-Identifier: MIT
 *
 * Mirrors that run, by their command lines.
 */
#ifndef FASTSPOOL_MIRRORS_H
#define FASTSPOOL_MIRRORS_H

#include "fastspool.h"

#include <stdbool.h>
#include <sys/types.h>

/** What a mirror's command line says. */
struct mirrors_words {
    char state[FASTSPOOL_PATH_MAX];
    char spool[FASTSPOOL_PATH_MAX];
};

/** Is @pid a mirror that the library has started, and root's or @owner's?  Then @words are its own. */
bool mirrors_read(pid_t pid, uid_t owner, struct mirrors_words *words);
/** The mirror of the state directory @state, whose user is @owner; 0: none is found. */
pid_t mirrors_find(const char *state, uid_t owner);
/** Wait until no mirror lives whose locks were removed, a moment at most: what is said meanwhile of the store of the
 *  first spool of @config, which nobody can find, would be wrong. */
void mirrors_settle(const struct fastspool_config *config);

#endif

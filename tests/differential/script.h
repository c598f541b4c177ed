/* SPDX-License-Identifier: MIT
 *
 * What the master of a sequence makes up: each step, from the seed and from what succeeded before.
 */
#ifndef FASTSPOOL_SCRIPT_H
#define FASTSPOOL_SCRIPT_H

#include "step.h"

/** Close more often, in all sequences: what others work on are files that nobody has open. */
void script_close_often(void);

/** Begin the sequence of @seed on the spool @root: actor 0 lives, and has nothing open. */
void script_begin(const char *root, uint64_t seed);

/** Make up the @number-th step, from 1.  The actor that is to do it, or -1: it would be improper, and is left out. */
int script_next(long number, struct step *step);

/** What @actor was answered to @step. */
void script_learn(int actor, const struct step *step, const struct answer *answer);

/** Does @actor live? */
bool script_alive(int actor);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The script of a sequence: the master makes each step from the seed and from earlier results.
 */
#ifndef FASTSPOOL_SCRIPT_H
#define FASTSPOOL_SCRIPT_H

#include "step.h"

/** Close more often in all sequences, because only closed files can be evicted. */
void script_close_often(void);

/** For processes with and without the library: leave out what is a documented limit. */
void script_mix(void);

/** Begin the sequence of @seed on the spool @root.  Actor 0 lives, and has nothing open. */
void script_begin(const char *root, uint64_t seed);

/** Make the @number-th step, counted from 1.  Returns the actor that has to do it, or -1 if the step would be improper.
 */
int script_next(long number, struct step *step);

/** Learn from @actor's @answer to @step. */
void script_learn(int actor, const struct step *step, const struct answer *answer);

/** True if @actor lives. */
bool script_alive(int actor);

#endif

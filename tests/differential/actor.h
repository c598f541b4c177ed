/* SPDX-License-Identifier: MIT
 *
 * The processes that do a sequence's steps, as their master sees them: by number, 0 to ACTORS - 1.
 */
#ifndef FASTSPOOL_ACTOR_H
#define FASTSPOOL_ACTOR_H

#include "step.h"

/** Find out where this program lies, for actors that execute themselves anew.  False: it can't be said. */
bool actor_find_program(void);

/** The life of actor @self: what the program does that an actor has executed, with the arguments `--actor SELF`. */
void actor_live(int self) __attribute__((noreturn));

/** Make the pipes between master and actors.  All descriptors but the first three are closed before. */
void actor_make_pipes(void);

/** Begin a sequence: actor 0, and no other, lives. */
void actor_begin(void);

/** Let @actor do @step, and wait for its answer.  FORK makes actor @step->to.  Whose lock GETLK found is said by
 * number: only the master knows all actors. */
void actor_play(int actor, const struct step *step, struct answer *answer);

/** Let @actor exit, with @flush by exit(), which writes its streams out, and wait for its end. */
void actor_dismiss(int actor, bool flush);

#endif

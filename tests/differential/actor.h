/* SPDX-License-Identifier: MIT
 *
 * The processes that do the steps of a sequence.  The master knows them by number, 0 to ACTORS - 1.
 */
#ifndef FASTSPOOL_ACTOR_H
#define FASTSPOOL_ACTOR_H

#include "step.h"

/** Find the path of this program, for actors that re-execute themselves.  Returns false if that fails. */
bool actor_find_program(void);

/** Even actors run the program @even, by default this one, odd ones run @odd. */
void actor_use_programs(const char *even, const char *odd);

/** Do actors @one and @other run different programs?  Then one that forks the other hands on no descriptors. */
bool actor_of_other_kind(int one, int other);

/** Live as actor @self.  A re-executed actor calls this for its arguments `--actor SELF EVEN ODD`. */
void actor_live(int self) __attribute__((noreturn));

/** Make the pipes between the master and the actors.  Closes all other descriptors except the first three. */
void actor_make_pipes(void);

/** Begin a sequence, with actor 0 as the only one. */
void actor_begin(void);

/** Let @actor do @step, and wait for its answer.  FORK makes actor @step->to.  For GETLK the master adds the number of
 * the actor that holds the lock, because only the master knows all actors. */
void actor_play(int actor, const struct step *step, struct answer *answer);

/** Make @actor exit and wait for its end.  With @flush it uses exit(), which flushes its streams, else _exit(). */
void actor_dismiss(int actor, bool flush);

#endif

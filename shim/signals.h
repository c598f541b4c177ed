/* SPDX-License-Identifier: MIT
 *
 * Signals: what surrounds each critical section of the store.
 */
#ifndef FASTSPOOL_SIGNALS_H
#define FASTSPOOL_SIGNALS_H

#include <stdbool.h>

/** From here on no handler of the program's runs in this thread.  Doesn't nest. */
void signals_hold(void);
/** Let them run again, and those of the signals that came meanwhile first. */
void signals_release(void);
/** signals_hold(), if that takes no system call.  False: it would, or it may, and nothing is held. */
bool signals_hold_for_free(void);

/** Before signals_hold_for_free(), in a process that uses a store or may: what that needs to know is asked, if it
 * wasn't.  (Before a fork: else each child would ask.) */
void signals_ask(void);
/** In the child of a fork, before its first section. */
void signals_after_fork(void);

/** The program sets a handler that signals.c doesn't see. */
void signals_unknown(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Signals: what surrounds each critical section of the store.
 */
#ifndef FASTSPOOL_SIGNALS_H
#define FASTSPOOL_SIGNALS_H

/** Block all signals, and hide an ordinary user's real uid. */
void signals_hold(void);
/** Restore both. */
void signals_release(void);
/** The process's user may have changed: look again. */
void signals_user_changed(void);

#endif

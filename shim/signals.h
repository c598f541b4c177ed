/* SPDX-License-Identifier: MIT
 *
 * Signals: what surrounds each critical section of the store.
 */
#ifndef FASTSPOOL_SIGNALS_H
#define FASTSPOOL_SIGNALS_H

/** Block all signals. */
void signals_hold(void);
/** Restore them. */
void signals_release(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What a service tells the service manager that has started it.
 */
#ifndef FASTSPOOL_MOUNT_NOTIFY_H
#define FASTSPOOL_MOUNT_NOTIFY_H

#include <stdbool.h>

/** Send @state, such as "READY=1", to the manager that $NOTIFY_SOCKET names.  Does nothing without one. */
void notify(const char *state);

/** Is there one, which waits for READY=1? */
bool notify_is_awaited(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The view's supervisor.
 */
#ifndef FASTSPOOL_MOUNT_SUPERVISOR_H
#define FASTSPOOL_MOUNT_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

#define SUPERVISOR_UNAVAILABLE 69 /* exit status: this machine allows no mount (EX_UNAVAILABLE) */
#define SUPERVISOR_SECOND      75 /* exit status: another one runs (EX_TEMPFAIL) */

/** Mount the view of @spool, and keep it mounted until SIGTERM.  @state: its state directory, NULL: the default.
 * @memory: of a store that this view may be the first to make; 0: it is there.  @replaces: a view that runs is ended
 * before.  Tells a service manager when the view is mounted (notify.h).  Returns the process's exit status. */
int supervisor_run(const char *spool, const char *state, uint64_t memory, bool replaces);

#endif

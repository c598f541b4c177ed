/* SPDX-License-Identifier: MIT
 *
 * The unit of systemd that has started a daemon of Exim.
 */
#ifndef FASTSPOOL_UNIT_H
#define FASTSPOOL_UNIT_H

#include <stdbool.h>
#include <sys/types.h>

/** What gives the daemon @daemon, which has not got it, the library: "restart Exim, `systemctl restart exim4`", or what
 *  is to be done besides.  @enabled: `fastspool enable` was run.  0: no daemon in particular.  Valid until the next
 *  call. */
const char *unit_restart(pid_t daemon, bool enabled);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The view's server: the process that answers the kernel's requests.
 */
#ifndef FASTSPOOL_MOUNT_SERVER_H
#define FASTSPOOL_MOUNT_SERVER_H

#include <stdbool.h>

/** Serve @spool on @fuse, a descriptor of /dev/fuse whose file system is mounted, and follow the supervisor's messages
 * on @control (control.h), until the supervisor or the file system ends.  Call as the spool's owner, for good, in a
 * mount namespace in which no view is mounted over the spool.  @state: the state directory.  @again: an earlier
 * server's view lies there for all others.  An exit status. */
int server_run(const char *spool, const char *state, int fuse, int control, bool again);

#endif

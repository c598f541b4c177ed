/* SPDX-License-Identifier: MIT
 *
 * A process whose store has its state directory elsewhere than where it was, or hidden by a mount.
 */
#ifndef FASTSPOOL_TOOLS_MOVED_H
#define FASTSPOOL_TOOLS_MOVED_H

#include "fastspool.h"
#include "mountpoint.h"

#include <stdbool.h>
#include <sys/types.h>

/** Has process @pid the store of one of @config's spools, with a state directory, @state, that is not the one that is
 *  named, and that no mirror serves?  False, too, where it can't be said.  Needs root. */
bool moved_find(pid_t pid, const struct fastspool_config *config, char state[FASTSPOOL_PATH_MAX]);

/** Has process @pid a store whose state directory, @state, can't be seen any more, as something was mounted at @over,
 *  which is that directory or one above?  False, too, where it can't be said.  Needs root. */
bool moved_below(pid_t pid, char state[FASTSPOOL_PATH_MAX], char over[MOUNTPOINT_PLACE]);

/* What is said of either, and what to do. */
#define MOVED_FOUND                                                                                                   \
    "has the store of %s, which no mirror serves, and which is not the state directory of the spool: was it moved?  " \
    "Then it takes no mail"
#define MOVED_MEND  "stop Exim, run `fastspool stop`, move that directory back, and start Exim"
#define MOVED_BELOW "has the store of %s, which is hidden by what is mounted over %s: it takes no mail"
#define MOVED_UNMOUNT                                                                                               \
    "`umount %s`; if it has to be mounted there, stop Exim then, run `fastspool stop` until its exit status is 0, " \
    "and mount it again"

#endif

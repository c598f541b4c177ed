/* SPDX-License-Identifier: MIT
 *
 * Launching the mirror and the view.
 */
#ifndef FASTSPOOL_LAUNCH_H
#define FASTSPOOL_LAUNCH_H

#include "store/await.h"
#include "store/layout.h"

#include <stdbool.h>
#include <sys/types.h>

struct fastspool;

#define LAUNCH_TIME UINT64_C(2000000000) /* ns: for a new mirror or view to take its lock */

/** Does a mirror of the store live?  Its lock file decides, never a pid.  1 or 0; -errno: it can't be said.  Keeps
 *  errno. */
int launch_lives(struct fastspool *fs);
/** Start the mirror, unless a process did so in the last two seconds.  The caller gets no child to wait for, and no
 *  signal.  0 or -errno; keeps errno. */
int launch_start(struct fastspool *fs);

/** As launch_lives(): a mirror of whatever version, by its state directory. */
int launch_mirror_lives(const char *state);
/** As launch_lives(): the view whose state directory is @state. */
int launch_view_lives(const char *state);
/** As launch_lives(): a view of @spool, its real path, of whichever state.  -EACCES: this user can't say. */
int launch_place_viewed(const char *spool);
/** Start the view if none lives, of whichever state, and if this process is root's, may mount, and was not started by
 *  an ordinary user.  Keeps errno. */
void launch_view(struct fastspool *fs);
/** Why this process can mount no view: an errno of *@obstacle; 0: nothing is in the way. */
int launch_view_obstructed(enum view_obstacle *obstacle);
/** Has a process started the mirror or the view, as @starting of the header notes, so lately (LAUNCH_TIME) that it may
 * not have its lock yet? */
bool launch_is_young(const uint64_t *starting);
/** Wait until it has, by @lives and @state, or LAUNCH_TIME has passed: the mail user may write @starting anew all the
 *  time. */
void launch_settle(const uint64_t *starting, int (*lives)(const char *state), const char *state);
/** The process that holds the view's lock, as the kernel says; 0: none; -errno: it can't be said.  The mail user can
 *  lock in no other process's name, but may put there a file that another process of root's has locked: only a
 *  fastspool command counts. */
pid_t launch_view_holder(const char *state);
/** Does a server of this state's view live?  It has a lock of its own, where that of the view was removed. */
bool launch_view_serves(const char *state);
/** Does @pid run the fastspool command? */
bool launch_is_tool(pid_t pid);
/** Note, in the header and once in syslog, that no view can be mounted here, because of @error (an errno) of @obstacle.
 */
void launch_view_unavailable(struct fastspool *fs, enum view_obstacle obstacle, int error);
const char *launch_view_obstacle(uint32_t obstacle);

extern const struct keeper launch_keeper;

#endif

/* SPDX-License-Identifier: MIT
 *
 * A lock that one call of a command holds at a time.
 */
#ifndef FASTSPOOL_LOCK_H
#define FASTSPOOL_LOCK_H

#include <stdbool.h>

/** flock(2) of @fd, exclusively; it lasts as long as the open file.  Waits some seconds for a holder that is about to
 *  end.  @lives_on, NULL: it can't be said; else it is asked with @context whether the holder is one that lives on, for
 *  which nobody waits.  0; -EWOULDBLOCK: it is held; or -errno. */
int lock_take(int fd, bool (*lives_on)(const void *context), const void *context);

#endif

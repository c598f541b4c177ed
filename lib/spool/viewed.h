/* SPDX-License-Identifier: MIT
 *
 * Is there a view: is the store mounted where every program sees it?
 */
#ifndef FASTSPOOL_VIEWED_H
#define FASTSPOOL_VIEWED_H

/** Does this process see the view of @spool, a live one or a dead one?  1 or 0.  -errno: it can't be said; then the
 *  directories of @spool are neither the view nor the disk.  Asks the kernel alone, never the view.  Keeps errno. */
int viewed(const char *spool);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Is there a view: is the store mounted where every program sees it?
 */
#ifndef FASTSPOOL_VIEWED_H
#define FASTSPOOL_VIEWED_H

#include <stdbool.h>

/** Does this process see the view of @spool, a live one or a dead one?  Asks the kernel alone, never the view. */
bool viewed(const char *spool);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Changes: a section whose body may need memory.
 */
#ifndef FASTSPOOL_CHANGE_H
#define FASTSPOOL_CHANGE_H

#include "store/section.h"

/** Run @body as one section.  Where it wants a table (section_want()), the table grows, and the body runs again from
 * its start; where there is no memory for that, the call waits until some is evicted, for ten seconds at most, then
 * -ENOSPC. Returns what the body returned, or as change_run(). */
int change_run(struct fastspool *fs, section_body *body, void *argument);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Changes: sections whose body may need memory.
 */
#ifndef FASTSPOOL_CHANGE_H
#define FASTSPOOL_CHANGE_H

#include "store/history.h"
#include "store/section.h"

/** Outside sections: run @body as one section.  If it wants a table (section_want()), grow the table and run @body
 *  again from its start.  If there is no memory to grow, wait for an eviction, for ten seconds at most. Returns as
 *  section_run(); -ENOSPC: no memory; -ENFILE: too many descriptions. */
#define change_run(fs, body, argument) change_run_named((fs), HISTORY_NAME_OF(body), (body), (argument))
int change_run_named(struct fastspool *fs, const char *name, section_body *body, void *argument);

#endif

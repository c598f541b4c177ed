/* SPDX-License-Identifier: MIT
 *
 * Loss: what an attached store has lost, and whom it keeps out.
 */
#ifndef FASTSPOOL_LOSS_H
#define FASTSPOOL_LOSS_H

#include "fastspool.h"

#include <stdbool.h>

enum loss {
    LOSS_NOTHING,
    LOSS_SPOOL,  /* no directory is at the spool's path; the store is whole */
    LOSS_MOVED,  /* the state directory is not at its path, but exists; the store is whole */
    LOSS_MEMORY, /* the segment was removed, or STATE/runtime leads to another one: nobody can attach any more */
    LOSS_STATE,  /* the state directory was removed or replaced: nothing may be written to what is there now */
};

/** What has @fs lost?  What can't be said, because the disk fails, counts as nothing.  Else a sentence is in @error. */
enum loss loss_look(const struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX]);
/** Does no other process use @fs, and does one wait that can't?  Then a mirror ought to end, and from now on no process
 *  joins it. */
bool loss_is_in_the_way(const struct fastspool *fs);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Attaching: finding, creating and leaving a store.
 */
#ifndef FASTSPOOL_ATTACH_H
#define FASTSPOOL_ATTACH_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** Open the descriptors and map the segment of an existing store: for the mirror and the tools.  Creates nothing,
 *  starts no mirror, and does not wait.  -ENOENT: there is no store. */
int attach_open(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                char error[FASTSPOOL_ERROR_MAX]);
/** As attach_open(), but create an empty store in state RECOVERING if none is usable. */
int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX]);
/** What an attached store has lost. */
enum attach_loss {
    ATTACH_NOTHING,
    ATTACH_SPOOL,  /* no directory is at the spool's path; the store is whole */
    ATTACH_MOVED,  /* the state directory is not at its path, but exists; the store is whole */
    ATTACH_MEMORY, /* the segment was removed, or STATE/runtime leads to another one: nobody can attach any more */
    ATTACH_STATE,  /* the state directory was removed or replaced: nothing may be written to what is there now */
};

/** What has @fs lost?  What can't be said, because the disk fails, counts as nothing.  Else a sentence is in @error. */
enum attach_loss attach_look(const struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX]);
/** Does no other process use @fs, and does one wait that can't?  Then a mirror ought to end, and from now on no process
 *  joins it. */
bool attach_is_in_the_way(const struct fastspool *fs);
/** Remove the memory of a store that has lost its state directory, or that nobody else uses.  Processes that have it
 * mapped keep the mapping. */
void attach_discard(const struct fastspool *fs);

/** What became of a segment of another version. */
enum attach_release {
    RELEASE_DONE,      /* its mirror has ended, and its memory is given back */
    RELEASE_IN_USE,    /* its mirror has ended; other processes use it still */
    RELEASE_MIRROR,    /* its mirror does not end */
    RELEASE_UNWRITTEN, /* it has changes that are not on the disk, and no mirror: it stays */
    RELEASE_FAILED     /* it can't be opened, or does not say how it is released: a sentence is in @error */
};

/** End the mirror of the segment of state directory @state, which is of another version, and remove it, if nobody uses
 * it and the disk has all of it.  @spool: the spool directory.  @version: that of the segment. */
enum attach_release attach_release(const char *state, const struct stat *spool, uint32_t *version,
                                   char error[FASTSPOOL_ERROR_MAX]);

#endif

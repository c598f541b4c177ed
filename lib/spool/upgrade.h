/* SPDX-License-Identifier: MIT
 *
 * Upgrade: the end of a segment of another version.
 */
#ifndef FASTSPOOL_UPGRADE_H
#define FASTSPOOL_UPGRADE_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** What became of it. */
enum upgrade {
    UPGRADE_DONE,      /* its mirror has ended, and its memory is given back */
    UPGRADE_IN_USE,    /* its mirror has ended; other processes use it still */
    UPGRADE_MIRROR,    /* its mirror does not end */
    UPGRADE_UNWRITTEN, /* it has changes that are not on the disk, and no mirror: it stays */
    UPGRADE_FAILED     /* it can't be opened, or does not say how it is released: a sentence is in @error */
};

/** End the mirror of the segment of state directory @state, which is of another version, and remove it, if nobody uses
 *  it and the disk has all of it.  @spool: the spool directory.  @version: that of the segment. */
enum upgrade upgrade_release(const char *state, const struct stat *spool, uint32_t *version,
                             char error[FASTSPOOL_ERROR_MAX]);

/** Has the segment of state directory @state, of whatever version, changes that are not on the disk, and no mirror that
 *  would write them?  False, too, where it can't be said. */
bool upgrade_is_unwritten(const char *state, const struct stat *spool);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Release: what every version of fastspool may do with the segment of every other one.
 */
#ifndef FASTSPOOL_RELEASE_H
#define FASTSPOOL_RELEASE_H

#include "fastspool.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/** The header of a segment, mapped.  All words are the mail user's to write. */
struct release {
    void *header;
    size_t size;
    uint32_t version;
    uint32_t *ending;          /* 1: its mirror shall write everything to the disk, and end; atomic */
    uint32_t *wanted;          /* the futex on which it sleeps */
    const uint64_t *unwritten; /* files with changes that are not on the disk; atomic */
};

/** Open the segment in directory @runtime, whatever its version.  @spool: the spool directory.  0, or a negative errno
 *  with a sentence; -ENOENT: there is none; -EPROTO: it is of a version that does not say how it is released. */
int release_open(const char *runtime, const struct stat *spool, struct release *release,
                 char error[FASTSPOOL_ERROR_MAX]);
void release_close(const struct release *release);

#endif

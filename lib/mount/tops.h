/* SPDX-License-Identifier: MIT
 *
 * The supervisor's table of top directories: what the view is mounted over, or will be.
 */
#ifndef FASTSPOOL_MOUNT_TOPS_H
#define FASTSPOOL_MOUNT_TOPS_H

#include "mount/mounts.h"

#include <stdbool.h>
#include <stddef.h>

#define TOPS_MAX 1024

/* A top directory that was found on the disk, or that the server has named. */
struct top {
    char name[MOUNTS_NAME];
    bool known;   /* to the server that runs now */
    bool mounted; /* by the hand, from the server that runs now */
    bool present; /* on the disk, when last looked for */
};

struct tops {
    struct top top[TOPS_MAX];
    size_t count;
};

/** The place of directory @name: its own, a new one, or that of a directory that is gone.  NULL: there is none. */
struct top *tops_find(struct tops *tops, const char *name);
/** Note which lie on the disk now, @names; what does not is neither known nor mounted any more: the kernel has
 * unmounted it.  False: there is no place for some of them. */
bool tops_present(struct tops *tops, char (*names)[MOUNTS_NAME], size_t count);
/** A new server knows none, and none of its is mounted. */
void tops_forget(struct tops *tops);

#endif

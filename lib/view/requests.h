/* SPDX-License-Identifier: MIT
 *
 * Requests: what the kernel asks of the view, answered from the store.
 */
#ifndef FASTSPOOL_VIEW_REQUESTS_H
#define FASTSPOOL_VIEW_REQUESTS_H

#include "fastspool.h"

#include <sys/types.h>

struct requests {
    struct fastspool *fs;
    uid_t owner; /* of the spool: may look up handles, as root may */
    enum fastspool_durability durability;
};

/** Answer what the kernel asks on @fuse, a descriptor of /dev/fuse whose file system is mounted, until it is unmounted,
 * in as many threads as there are callers.  Once a process, after shares_begin().  0 or -errno. */
int requests_serve(const struct requests *requests, int fuse);

#endif

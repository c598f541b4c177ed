/* SPDX-License-Identifier: MIT
 *
 * Requests: what the kernel asks of the view, answered from the store.
 */
#ifndef FASTSPOOL_REQUESTS_H
#define FASTSPOOL_REQUESTS_H

#define FUSE_USE_VERSION 312
#include "fastspool.h"

#include <fuse_lowlevel.h>
#include <sys/types.h>

/** The file system's operations.  The session's user data is a struct requests. */
extern const struct fuse_lowlevel_ops requests_operations;
struct requests {
    struct fastspool *fs;
    uid_t owner; /* of the spool: may look up handles, as root may */
    enum fastspool_durability durability;
};

#endif

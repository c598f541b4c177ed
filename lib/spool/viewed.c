/* SPDX-License-Identifier: MIT
 *
 * Is there a view: is the store mounted where every program sees it?
 *
 * Happy path: SPOOL/input is of the FUSE file system, and the spool directory isn't of the same one.  So a spool that
 * lies on some FUSE file system as a whole has no view.
 *
 * Failure modes: the view's server is dead.  What is left of its mount says ENOTCONN.  Still it is the view's: nobody
 * takes the disk's directory below it for the queue.
 */
#include "spool/viewed.h"

#include "fastspool.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#define FUSE 0x65735546 /* FUSE_SUPER_MAGIC of linux/magic.h */

bool viewed(const char *spool)
{
    char input[FASTSPOOL_PATH_MAX + sizeof("/input")];
    struct statfs file_system;
    struct stat above, below;
    int saved = errno;

    snprintf(input, sizeof(input), "%s/input", spool);
    bool connected = statfs(input, &file_system) == 0;
    bool is_view = !connected && errno == ENOTCONN;
    if (connected && file_system.f_type == FUSE) {
        bool known = stat(spool, &above) == 0 && stat(input, &below) == 0;
        is_view = !known || above.st_dev != below.st_dev;
    }
    errno = saved;
    return is_view;
}

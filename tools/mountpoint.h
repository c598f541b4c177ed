/* SPDX-License-Identifier: MIT
 *
 * The mount that a path lies in: its file system and its options.
 */
#ifndef FASTSPOOL_MOUNTPOINT_H
#define FASTSPOOL_MOUNTPOINT_H

#include <limits.h>
#include <stdbool.h>

#define MOUNTPOINT_PLACE  256 /* of one that hides a state: no longer than the path of that */
#define MOUNTPOINT_VALUE  32
#define MOUNTPOINT_KERNEL 128

struct mountpoint {
    char place[PATH_MAX];
    char type[64];
    char options[1024]; /* those of the mount and of the file system, "rw,relatime,rw,nobarrier" */
    bool read_only;     /* the file system itself is, by whichever mount it is reached */
    bool bound;         /* the mount alone is read-only, and the file system is not: so does a service's sandbox */
};

/** What to do about a `bound` one, with the directory that has to be written. */
#define MOUNTPOINT_BOUND                                                                                            \
    "the mount is read-only, and its file system is not: where the sandbox of a service does that, ProtectSystem= " \
    "or ReadOnlyPaths=, say `ReadWritePaths=%s` in its unit"

/** Asks the kernel alone.  False: it can't be said. */
bool mountpoint_of(const char *path, struct mountpoint *mount);
/** Is @option, "nobarrier" or "huge=always", among the options? */
bool mountpoint_has(const struct mountpoint *mount, const char *option);
/** Has a file of this mount, a tmpfs, huge pages where the machine has them?  @value: the mount's `huge`, "" if it has
 *  none.  @kernel: what shmem_enabled says, which only overrules it by "deny" and "force"; "unknown": it can't be read.
 */
bool mountpoint_is_huge(const struct mountpoint *mount, char value[MOUNTPOINT_VALUE], char kernel[MOUNTPOINT_KERNEL]);

#endif

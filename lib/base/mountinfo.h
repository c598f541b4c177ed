/* SPDX-License-Identifier: MIT
 *
 * The lines of /proc/PID/mountinfo, of which views are some.  Reading them asks no file system.
 */
#ifndef FASTSPOOL_MOUNTINFO_H
#define FASTSPOOL_MOUNTINFO_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

struct mountinfo {
    int id;
    int parent;
    unsigned minor; /* of its superblock; a FUSE file system's connection has this number */
    bool fuse;
    bool view; /* of the view's type: a view, or what a user calls so */
    char root[PATH_MAX];
    char place[PATH_MAX];
};

/** Write the field at @text, of such a line, to @path.  It ends with a blank; blanks and such in a path are \ooo. */
void mountinfo_unescape(const char *text, char path[PATH_MAX]);

/** The type of a view's file system. */
#define MOUNTINFO_VIEW "fuse.fastspool"

/** The next line of @file.  False: there is none, or @file is NULL. */
bool mountinfo_next(FILE *file, struct mountinfo *mount);

/** Does this process see a view anywhere below @spool?  One of its directories may be unmounted, and the server of the
 *  others not answer. */
bool mountinfo_has_view(const char *spool);

#endif

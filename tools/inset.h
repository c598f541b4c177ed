/* SPDX-License-Identifier: MIT
 *
 * Insets: our lines in a file of the system's, which go again and leave every other byte as it is.
 */
#ifndef FASTSPOOL_INSET_H
#define FASTSPOOL_INSET_H

#include "base/error.h"

#include <stdbool.h>

/** Has @path our lines? */
bool inset_is_in(const char *path);
/** Are they @text? */
bool inset_is(const char *path, const char *text);
/** Put @text, whole lines, at the end of @path, between two marks; lines of ours that are there go.  A file that is
 *  missing is made (0644), and its directory (0755).  The file is replaced at one instant, and keeps owner and mode.
 *  0; or -errno, with a sentence in @error. */
int inset_put(const char *path, const char *text, char error[ERROR_MAX]);
/** Take our lines away, and a file or directory that inset_put() has made, unless somebody has put more there.
 *  Without our lines nothing is changed.  0; or -errno, with a sentence in @error. */
int inset_take(const char *path, char error[ERROR_MAX]);

/* The same for one line at the head of a file that has no comments (the loader's /etc/ld.so.preload: glibc takes only
 * the first one for a comment).  The line itself is the mark.  A file that is empty without it goes. */
bool inset_has_head(const char *path, const char *line);
int inset_put_head(const char *path, const char *line, char error[ERROR_MAX]);
int inset_take_head(const char *path, const char *line, char error[ERROR_MAX]);

#endif

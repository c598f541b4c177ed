/* SPDX-License-Identifier: MIT
 *
 * Exim: the names of the directories and files in its spool, and the library's policy for each.
 */
#ifndef FASTSPOOL_EXIM_H
#define FASTSPOOL_EXIM_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

enum exim_policy {
    EXIM_DISK,  /* on the real file system */
    EXIM_STORE, /* in the store, unless the disk has the message from before */
    EXIM_HINTS, /* on the real file system, and fsync does nothing: hints and scanned mail are expendable */
};
/** The policy for @path, which is relative to the spool. */
enum exim_policy exim_policy(const char *path);
/** Is @name, of @length bytes, the name of a directory of the table? */
bool exim_is_directory(const char *name, size_t length);
/** The slash before the first component with such a name, NULL: @path has none.  (What is before its first slash does
 *  not count.) */
const char *exim_telling(const char *path);
/** Is @path a directory of the table, at the top of the spool or of a queue (input, q/msglog)?  Such a directory is
 *  made on the disk too. */
bool exim_is_top(const char *path);
/** Is @path a top directory of the store, in the one form that is used for a mount: no ".", no slash too many? */
bool exim_is_place(const char *path);
/** The path of the -D file of the message that @path belongs to, relative to the spool.  False: it belongs to none. */
bool exim_family(const char *path, char data[PATH_MAX]);

/** The paths that a message's files have, for the -D file @data of exim_family(): the @n-th from 0.  The first one, the
 *  -H file, makes Exim know the message.  Files with the number of a process in their names are not among them.  False:
 *  there is no @n-th, or @data is no -D file. */
bool exim_member(const char *data, unsigned n, char path[PATH_MAX]);
/** Is @name that of a -H or -D file? */
bool exim_is_file_of_message(const char *name);
/** Is @name that of a -H file? */
bool exim_shows(const char *name);

/** Does Exim find a message by @path, relative to the spool?  It is the -H file in `input` of the spool or of a queue,
 *  or in a split directory there. */
bool exim_is_message(const char *path);

#endif

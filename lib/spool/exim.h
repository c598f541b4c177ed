/* SPDX-License-Identifier: MIT
 *
 * Exim: the names which it gives to directories and files of its spool, and what the library does with each.
 */
#ifndef FASTSPOOL_EXIM_H
#define FASTSPOOL_EXIM_H

#include <limits.h>
#include <stdbool.h>

enum exim_policy {
    EXIM_DISK,  /* the real file system's */
    EXIM_STORE, /* the store's, unless the disk has the message from before */
    EXIM_HINTS, /* the real file system's, with fsync for nothing: hints and scanned mail are expendable */
};
/** What @path, relative to the spool and without repeated slashes at its start, is. */
enum exim_policy exim_policy(const char *path);
/** Is it a directory that the spool shows at its top (input, q/msglog...), made on the disk too? */
bool exim_is_top(const char *path);
/** Where the -D file of the message that @path belongs to would be, relative to the spool; false: it belongs to none.
 */
bool exim_family(const char *path, char data[PATH_MAX]);

/** Is @name, below a directory of this name at the top of the spool or of a queue, the data of a message: is there a
 * message for each? */
bool exim_is_message(const char *name, const char *directory);

#endif

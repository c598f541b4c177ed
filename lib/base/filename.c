/* SPDX-License-Identifier: MIT
 *
 * The names that a file can have.  Segment, journal and database can be written by the mail user.  A name of theirs
 * such as "../../etc/x" would lead a program of root's, as `find -delete` or `chown -R`, out of the spool.
 */
#include "base/filename.h"

#include <limits.h>
#include <string.h>

bool filename_possible(const char *text, size_t length)
{
    bool dots = length <= 2 && memcmp(text, "..", length) == 0; /* no byte, ".", ".." */

    return !dots && length <= NAME_MAX && !memchr(text, '/', length) && !memchr(text, '\0', length);
}

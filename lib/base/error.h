/* SPDX-License-Identifier: MIT
 *
 * Errors: a negative errno for the program, and a sentence for the operator.
 */
#ifndef FASTSPOOL_ERROR_H
#define FASTSPOOL_ERROR_H

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

/** Size of a sentence's buffer, NUL included.  Equals FASTSPOOL_ERROR_MAX of the public header. */
#define ERROR_MAX 512

/** Write the sentence to @error (ERROR_MAX bytes), truncated to fit.  Returns @code, for `return error_set(...)`. */
int error_set(char *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/** Is @code the error of a full disk, or of a quota that is reached? */
static inline bool error_is_full(int code)
{
    return code == -ENOSPC || code == -EDQUOT;
}

/** Room for a user in a sentence. */
#define ERROR_USER 20

/** "root", or "user 101", in @name.  Returns @name. */
const char *error_user(uid_t uid, char name[ERROR_USER]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Errors: a code, and a sentence that explains it.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(char *error, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, ERROR_MAX, format, arguments);
    va_end(arguments);
    /* Part of it may be what another user has written, and it ends on a terminal. */
    for (; *error; error++) {
        if ((unsigned char)*error < ' ' || *error == 0x7f)
            *error = '?';
    }
    return code;
}

const char *error_user(uid_t uid, char name[ERROR_USER])
{
    snprintf(name, ERROR_USER, uid == 0 ? "root" : "user %u", (unsigned)uid);
    return name;
}

/* SPDX-License-Identifier: MIT
 *
 * Escaping.  The names in a spool are anybody's bytes: a control sequence in one would be the terminal's command.
 */
#include "base/escape.h"

#include <stdio.h>
#include <string.h>

char *escape_bytes(char *to, size_t room, const void *bytes, size_t length)
{
    const unsigned char *from = bytes;
    char *at = to;

    *at = '\0';
    for (size_t i = 0; i < length; i++) {
        char one[8] = {(char)from[i]};
        if (from[i] == '\n' || from[i] == '\t' || from[i] == '\\')
            snprintf(one, sizeof(one), "\\%c", from[i] == '\n' ? 'n' : from[i] == '\t' ? 't' : '\\');
        else if (from[i] < ' ' || from[i] > '~')
            snprintf(one, sizeof(one), "\\x%02x", from[i]);
        size_t size = strlen(one);
        if ((size_t)(at - to) + size >= room)
            break;
        memcpy(at, one, size + 1);
        at += size;
    }
    return to;
}

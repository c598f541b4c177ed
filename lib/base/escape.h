/* SPDX-License-Identifier: MIT
 *
 * Escaping: anybody's bytes, on a terminal.
 */
#ifndef FASTSPOOL_ESCAPE_H
#define FASTSPOOL_ESCAPE_H

#include <stddef.h>

/** Bytes that @length bytes may become, the NUL included. */
#define ESCAPE_ROOM(length) (4 * (length) + 1)

/** Write @bytes to @to (@room bytes) so that nothing but printable ASCII is left: others become \n, \t, \\ or \xNN.
 * What doesn't fit is cut.  Returns @to. */
char *escape_bytes(char *to, size_t room, const void *bytes, size_t length);

#endif

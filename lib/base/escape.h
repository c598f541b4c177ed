/* SPDX-License-Identifier: MIT
 *
 * Escaping: anybody's bytes, on a terminal.
 */
#ifndef FASTSPOOL_ESCAPE_H
#define FASTSPOOL_ESCAPE_H

#include <stddef.h>

/** Bytes that @length bytes may become, the NUL included. */
#define ESCAPE_ROOM(length) (4 * (length) + 1)

/** The same of escape_word(). */
#define ESCAPE_WORD_ROOM(length) (4 * (length) + 4)

/** Write @bytes to @to (@room bytes) so that nothing but printable ASCII is left: others become \n, \t, \\ or \xNN.
 * What doesn't fit is cut.  Returns @to. */
char *escape_bytes(char *to, size_t room, const void *bytes, size_t length);

/** Write @text to @to (@room bytes) with its control characters, and what is no UTF-8, as \n, \t and \xNN: all other
 *  UTF-8 stays as it is, as in a sentence.  What doesn't fit is cut.  Returns @to. */
char *escape_controls(char *to, size_t room, const char *text);

/** Write @path to @to (@room bytes) as one word of a command that an operator is told to type: as it is, or quoted for
 *  bash.  What doesn't fit is cut.  Returns @to. */
char *escape_word(char *to, size_t room, const char *path);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Escaping.  The names in a spool are anybody's bytes: a control sequence in one would be the terminal's command.
 */
#include "base/escape.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct line {
    char *at, *end; /* the end of what is written, and of its room */
};

/* All of @text, or nothing. */
static bool add(struct line *line, const char *text)
{
    size_t size = strlen(text);

    if (size >= (size_t)(line->end - line->at))
        return false;
    memcpy(line->at, text, size + 1);
    line->at += size;
    return true;
}

static bool is_control(unsigned char c)
{
    return c < ' ' || c == 0x7f;
}

/* The bytes of the character at @text; 0: it is a control character, or none of UTF-8.  (U+0080 to U+009F are controls:
 * U+009B begins what ESC [ begins.  So is a lone byte to a terminal that knows no UTF-8.) */
static size_t printable(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t size = *c < 0x80 ? 1 : *c < 0xc2 ? 0 : *c < 0xe0 ? 2 : *c < 0xf0 ? 3 : *c < 0xf5 ? 4 : 0;
    const unsigned char least = *c == 0xc2 || *c == 0xe0 ? 0xa0 : *c == 0xf0 ? 0x90 : 0x80; /* of the second */

    for (size_t i = 1; i < size; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    }
    return is_control(*c) || (size > 1 && c[1] < least) ? 0 : size;
}

static bool add_escaped(struct line *line, unsigned char c)
{
    char one[8];

    if (c == '\n' || c == '\t' || c == '\\')
        snprintf(one, sizeof(one), "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : '\\');
    else
        snprintf(one, sizeof(one), "\\x%02x", c);
    return add(line, one);
}

char *escape_bytes(char *to, size_t room, const void *bytes, size_t length)
{
    const unsigned char *from = bytes;
    struct line line = {.at = to, .end = to + room};

    *to = '\0';
    for (size_t i = 0; i < length; i++) {
        const char as_it_is[] = {(char)from[i], '\0'};
        bool printable = from[i] >= ' ' && from[i] <= '~' && from[i] != '\\';
        if (!(printable ? add(&line, as_it_is) : add_escaped(&line, from[i])))
            break;
    }
    return to;
}

char *escape_controls(char *to, size_t room, const char *text)
{
    struct line line = {.at = to, .end = to + room};
    bool fits = true;

    *to = '\0';
    while (*text && fits) {
        char as_it_is[5] = "";
        size_t size = printable(text);
        memcpy(as_it_is, text, size);
        fits = size ? add(&line, as_it_is) : add_escaped(&line, (unsigned char)*text);
        text += size ? size : 1;
    }
    return to;
}

/* Between quotes, '...' or, with @controls, $'...'. */
static bool add_quoted(struct line *line, unsigned char c, bool controls)
{
    const char as_it_is[] = {(char)c, '\0'};

    if (c == '\'')
        return add(line, controls ? "\\'" : "'\\''");
    return controls && (is_control(c) || c == '\\' || c > '~') ? add_escaped(line, c) : add(line, as_it_is);
}

char *escape_word(char *to, size_t room, const char *path)
{
    static const char usual[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+,:@%";
    struct line line = {.at = to, .end = to + room};
    const char *end = path;

    *to = '\0';
    if (*path && path[strspn(path, usual)] == '\0') {
        snprintf(to, room, "%s", path);
        return to;
    }
    while (*end && printable(end))
        end += printable(end);
    bool controls = *end;
    add(&line, controls ? "$'" : "'");
    while (*path && add_quoted(&line, (unsigned char)*path, controls))
        path++;
    add(&line, "'");
    return to;
}

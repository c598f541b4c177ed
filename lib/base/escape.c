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

    *to = '\0';
    for (; *text; text++) {
        const char as_it_is[] = {*text, '\0'};
        if (!(is_control((unsigned char)*text) ? add_escaped(&line, (unsigned char)*text) : add(&line, as_it_is)))
            break;
    }
    return to;
}

/* Between quotes, '...' or, with @controls, $'...'. */
static bool add_quoted(struct line *line, unsigned char c, bool controls)
{
    const char as_it_is[] = {(char)c, '\0'};

    if (c == '\'')
        return add(line, controls ? "\\'" : "'\\''");
    return controls && (is_control(c) || c == '\\') ? add_escaped(line, c) : add(line, as_it_is);
}

char *escape_word(char *to, size_t room, const char *path)
{
    static const char usual[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+,:@%";
    struct line line = {.at = to, .end = to + room};
    bool controls = false;

    *to = '\0';
    if (*path && path[strspn(path, usual)] == '\0') {
        snprintf(to, room, "%s", path);
        return to;
    }
    for (const char *at = path; *at; at++)
        controls = controls || is_control((unsigned char)*at);
    add(&line, controls ? "$'" : "'");
    while (*path && add_quoted(&line, (unsigned char)*path, controls))
        path++;
    add(&line, "'");
    return to;
}

/* SPDX-License-Identifier: MIT
 *
 * What Exim says of its own configuration (-bP): that of its default configuration file.
 *
 * Failure modes: nothing is said by an Exim that does not start, as with a typo in its own configuration, that waits
 * for a resolver for longer than PATIENCE, or that is not root's alone to write; nor by a program that is not called
 * exim.
 */
#include "asked.h"

#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE    "3"                  /* seconds */
#define USUAL_LIMIT (UINT64_C(50) << 20) /* Exim's own, by default */

const char *asked_program(const struct fastspool_config *config)
{
    const char *found = NULL;

    for (size_t i = 0; i < config->programs && !found; i++)
        found = access(config->program[i], X_OK) == 0 ? config->program[i] : NULL;
    return found;
}

/* Exim prints a byte that is no ASCII as "\\303". */
static void unescape(char *text)
{
    char *to = text;

    for (const char *at = text; *at; to++) {
        bool is = at[0] == '\\' && (at[1] == '2' || at[1] == '3') && strspn(at + 1, "01234567") >= 3;
        *to = is ? (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0')) : *at;
        at += is ? 4 : 1;
    }
    *to = '\0';
}

bool asked_option(const char *options, const char *name, char *value, size_t room)
{
    size_t length = strlen(name);

    for (const char *line = options; *line;) {
        size_t size = strcspn(line, "\n");
        if (size > length && strncmp(line, name, length) == 0 && strncmp(line + length, " =", 2) == 0) {
            const char *from = line + length + 2 + (line[length + 2] == ' ');
            snprintf(value, room, "%.*s", (int)(size - (size_t)(from - line)), from);
            unescape(value);
            return true;
        }
        line += size + (line[size] == '\n');
    }
    return false;
}

/* Another mail server would not know what it is asked. */
const char *asked_exim(const struct fastspool_config *config)
{
    struct stat st;
    const char *program = asked_program(config), *name = program ? strrchr(program, '/') : NULL;
    bool is =
        name && strncmp(name, "/exim", 5) == 0 && stat(program, &st) == 0 && st.st_uid == 0 && !(st.st_mode & 022);

    return is ? program : NULL;
}

/* Once in a process.  "": it says nothing. */
static const char *options_of(const struct fastspool_config *config)
{
    static char said[COMMAND_OUTPUT];
    static bool asked;
    const char *program = asked_exim(config);
    const char *const arguments[] = {"timeout", PATIENCE, program, "-bP", "spool_directory", "message_size_limit",
                                     NULL};

    if (!asked && (geteuid() != 0 || !program || command_run(arguments, NULL, said) != 0))
        said[0] = '\0';
    asked = true;
    return said;
}

bool asked_spool(const struct fastspool_config *config, char spool[PATH_MAX])
{
    char path[PATH_MAX];
    struct stat st;

    if (!asked_option(options_of(config), "spool_directory", path, sizeof(path)) || !realpath(path, spool) ||
        stat(spool, &st) < 0 || !S_ISDIR(st.st_mode))
        spool[0] = '\0';
    return spool[0];
}

/* Past "//" and "/./", which are no part of a name. */
static const char *skip(const char *at)
{
    while (*at == '/' || (at[0] == '.' && (at[1] == '/' || at[1] == '\0')))
        at++;
    return at;
}

static bool is_same(const char *one, const char *other)
{
    size_t length;

    do {
        one = skip(one);
        other = skip(other);
        length = strcspn(one, "/");
        if (length != strcspn(other, "/") || strncmp(one, other, length) != 0)
            return false;
        one += length;
        other += length;
    } while (length > 0);
    return true;
}

bool asked_is_known(const struct fastspool_config *config, const char *path)
{
    bool known = false;

    for (size_t i = 0; i < config->spools && !known; i++) {
        char *real = realpath(config->spool[i], NULL);
        known = is_same(path, config->spool[i]) || (real && is_same(path, real));
        free(real);
    }
    return known;
}

bool asked_miscalled(const struct fastspool_config *config, char path[FASTSPOOL_PATH_MAX])
{
    char spool[PATH_MAX], said[PATH_MAX];

    bool is = asked_spool(config, spool) && asked_option(options_of(config), "spool_directory", said, sizeof(said)) &&
              strlen(said) < FASTSPOOL_PATH_MAX && !asked_is_known(config, said);
    strcpy(path, is ? said : "");
    return is;
}

uint64_t asked_message_limit(const char *options)
{
    static const char units[] = "KMG";
    char value[64], *end;

    if (!asked_option(options, "message_size_limit", value, sizeof(value)))
        return 0;
    uint64_t limit = strtoull(value, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (end == value || (*end && (!unit || end[1])))
        return 0;
    return limit == 0 ? USUAL_LIMIT : unit ? limit << 10 * (unit - units + 1) : limit;
}

uint64_t asked_limit(const struct fastspool_config *config)
{
    return asked_message_limit(options_of(config));
}

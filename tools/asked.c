/* SPDX-License-Identifier: MIT
 *
 * What Exim says of its own configuration (-bP): that of its default configuration file.
 *
 * Failure modes: Exim does not start, as with a typo in its own configuration, or is not root's alone to write: nothing
 * is said.
 */
#include "asked.h"

#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *asked_program(const struct fastspool_config *config)
{
    const char *found = NULL;

    for (size_t i = 0; i < config->programs && !found; i++)
        found = access(config->program[i], X_OK) == 0 ? config->program[i] : NULL;
    return found;
}

bool asked_option(const char *options, const char *name, char *value, size_t room)
{
    size_t length = strlen(name);

    for (const char *line = options; *line;) {
        size_t size = strcspn(line, "\n");
        if (size > length && strncmp(line, name, length) == 0 && strncmp(line + length, " =", 2) == 0) {
            const char *from = line + length + 2 + (line[length + 2] == ' ');
            snprintf(value, room, "%.*s", (int)(size - (size_t)(from - line)), from);
            return true;
        }
        line += size + (line[size] == '\n');
    }
    return false;
}

/* As root no program is run that another user can write. */
static bool is_roots(const char *program)
{
    struct stat st;

    return stat(program, &st) == 0 && st.st_uid == 0 && !(st.st_mode & 022);
}

static void ask_spool(const char *program, char spool[PATH_MAX])
{
    const char *const arguments[] = {program, "-bP", "spool_directory", NULL};
    char output[COMMAND_OUTPUT], path[PATH_MAX];
    struct stat st;

    if (!program || !is_roots(program) || command_run(arguments, NULL, output) != 0 ||
        !asked_option(output, "spool_directory", path, sizeof(path)) || !realpath(path, spool) ||
        stat(spool, &st) < 0 || !S_ISDIR(st.st_mode))
        spool[0] = '\0';
}

bool asked_spool(const struct fastspool_config *config, char spool[PATH_MAX])
{
    static char said[PATH_MAX];
    static bool asked;

    if (geteuid() != 0)
        return false;
    if (!asked)
        ask_spool(asked_program(config), said);
    asked = true;
    strcpy(spool, said);
    return said[0];
}

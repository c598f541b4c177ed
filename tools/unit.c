/* SPDX-License-Identifier: MIT
 *
 * The unit of systemd that has started a daemon of Exim.
 *
 * Happy path: it is Exim's service, and a restart of that gives the daemon the library.
 *
 * Failure modes: the daemon is of another unit, the operator's, which has to name the library itself; or of none, as it
 * was started by hand.  A restart of Exim's service ends neither, and the next one finds its port taken.  Where systemd
 * is not process 1, or does not answer, each daemon counts as one of the service.
 */
#include "unit.h"

#include "base/escape.h"
#include "command.h"
#include "exims.h"
#include "ways.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME 256 /* the longest name of a unit, and a NUL */

/* The service in @path, the name of a control group: its outermost, as that may have groups of its own below. */
static bool take_service(char *path, char name[NAME])
{
    static const char suffix[] = ".service";
    bool found = false;
    char *rest = NULL;

    for (char *part = strtok_r(path, "/\n", &rest); part && !found; part = strtok_r(NULL, "/\n", &rest)) {
        size_t length = strlen(part);
        found = length > strlen(suffix) && length < NAME && strcmp(part + length - strlen(suffix), suffix) == 0;
        if (found)
            strcpy(name, part);
    }
    return found;
}

/* The service in whose control group @pid is. */
static bool find_service(pid_t pid, char name[NAME])
{
    char path[48], *line = NULL;
    size_t room = 0;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/cgroup", (long)pid);
    FILE *groups = fopen(path, "re");
    while (groups && !found && getline(&line, &room, groups) > 0) {
        char *group = strchr(line, '/');
        found = group && (strncmp(line, "0::", 3) == 0 || strstr(line, ":name=systemd:")) && take_service(group, name);
    }
    if (groups)
        fclose(groups);
    free(line);
    return found;
}

/* Has it started @pid itself, and not a shell, or a job, of which that is?  False, too, where it can't be said. */
static bool is_main(pid_t pid, const char *name)
{
    const char *const show[] = {"systemctl", "show", "--property=MainPID", "--value", name, NULL};
    char said[COMMAND_OUTPUT];

    return command_run(show, NULL, said) == 0 && atol(said) == (long)pid;
}

const char *unit_restart(pid_t daemon, bool enabled)
{
    static char advice[2 * ESCAPE_WORD_ROOM(NAME) + 256];
    char name[NAME] = "", word[ESCAPE_WORD_ROOM(NAME)];
    const char *enable = enabled ? "restart Exim, " : "restart Exim with the library: `fastspool enable`, ";
    bool in = daemon && ways_booted() && find_service(daemon, name);

    if (!daemon || !ways_booted() || (in && ways_is_unit(name)))
        snprintf(advice, sizeof(advice), "%s%s", enable, ways_command("restart"));
    else if (in && is_main(daemon, name))
        snprintf(advice, sizeof(advice),
                 "say `Environment=LD_PRELOAD=" EXIMS_LIBRARY
                 "` below [Service] in its unit, by `systemctl edit %s`, "
                 "and `systemctl restart %s`",
                 escape_word(word, sizeof(word), name), word);
    else
        snprintf(advice, sizeof(advice), "%s`kill %ld`, as its service has not started that one, and %s", enable,
                 (long)daemon, ways_command("restart"));
    return advice;
}

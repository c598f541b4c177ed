/* SPDX-License-Identifier: MIT
 *
 * What may not be done beside a running Exim: one rule for disable, export and compact, and its reverse for import.
 *
 * An Exim that has the store puts new mail into it while it is emptied, and plain Exim would never see that.  An Exim
 * that has it not would lose sight of what is imported.
 *
 * Failure modes:
 *   - An Exim that an ordinary user has started is served by no store, and disturbs neither.
 *   - No process tells which spool it uses.  So each Exim that has the library counts for every configured spool.
 *   - Processes can't be looked at, as without CAP_SYS_PTRACE: nothing is taken out of the store beside them.
 *   - An Exim starts meanwhile: each message is still in one place.
 */
#include "beside.h"

#include "exims.h"
#include "fastspool.h"
#include "spool/viewed.h"
#include "tool.h"
#include "ways.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct found {
    const char *memory; /* that it has to have mapped; NULL: none */
    bool on_view;       /* a view is mounted, by which any Exim of this machine works */
    bool is;            /* @process is such a one */
    struct exims_process process;
};

static bool has_memory(pid_t pid, const char *memory)
{
    char path[48], line[PATH_MAX + 128];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/maps", (long)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !found && fgets(line, sizeof(line), maps))
        found = strstr(line, memory) != NULL;
    if (maps)
        fclose(maps);
    return found;
}

/* The last that a daemon does is to run itself so, as root, to remove its pid file.  That touches no mail, and is there
 * a moment longer than the daemon. */
static bool is_ending(const struct exims_process *process)
{
    const char *option = strstr(process->command, " -oPX");

    return option && option[strlen(" -oPX")] == '\0';
}

static bool has_store(void *context, const struct exims_process *process)
{
    struct found *found = context;
    bool served = process->served && (!found->memory || has_memory(process->pid, found->memory));

    found->is = !is_ending(process) && (served || (found->on_view && !process->elsewhere));
    if (found->is)
        found->process = *process;
    return found->is;
}

static bool has_no_store(void *context, const struct exims_process *process)
{
    struct found *found = context;

    found->is = !is_ending(process) && !process->served && !process->users && !process->elsewhere;
    if (found->is)
        found->process = *process;
    return found->is;
}

static bool is_viewed(const struct fastspool_config *config)
{
    bool is = false;

    for (size_t i = 0; i < config->spools; i++)
        is = is || viewed(config->spool[i]) > 0;
    return is;
}

int beside_no_exim(const struct fastspool_config *config, const char *memory)
{
    struct found found = {.memory = memory, .on_view = is_viewed(config)};

    exims_each(config, NULL, has_store, &found);
    size_t hidden = memory ? 0 : exims_hidden(config);
    if (!found.is && hidden)
        return tool_error(
            "nothing was changed: %zu process%s called like Exim and can't be looked at: stop Exim, or %s", hidden,
            hidden == 1 ? " is" : "es are", geteuid() == 0 ? "give this process CAP_SYS_PTRACE" : "run it as root");
    return !found.is ? 0
                     : tool_error(
                           "nothing was changed: Exim, process %ld (%s), %s, and may put mail into the store: stop "
                           "it first, %s",
                           (long)found.process.pid, found.process.command,
                           found.process.served ? "has the library" : "works on the view", ways_command("stop"));
}

int beside_no_plain_exim(const struct fastspool_config *config)
{
    struct found served = {.on_view = is_viewed(config)}, plain = {0};

    exims_each(config, NULL, has_store, &served);
    if (!served.is)
        exims_each(config, NULL, has_no_store, &plain);
    return !plain.is ? 0
                     : tool_error(
                           "nothing was moved: Exim, process %ld (%s), has not got the library, and would not see "
                           "the mail in the store: start it with the library (`fastspool enable`, %s), or stop it "
                           "first",
                           (long)plain.process.pid, plain.process.command, ways_command("restart"));
}

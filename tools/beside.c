/* SPDX-License-Identifier: MIT
 *
 * What may not be done beside a running Exim: one rule for disable, export and compact, and its reverse for import.
 * And what is said of the Exims, and of other programs, beside which a store was stopped.
 *
 * An Exim that has the store puts new mail into it while it is emptied, and plain Exim would never see that.  An Exim
 * that has it not would lose sight of what is imported.
 *
 * Failure modes:
 *   - An Exim that an ordinary user has started is served by no store, and disturbs neither.
 *   - No process tells which spool it uses.  So each Exim that has the library counts for every configured spool.
 *   - Processes can't be looked at, as without CAP_SYS_PTRACE: nothing is taken out of the store beside them.
 *   - An Exim starts meanwhile: each message is still in one place.
 *   - The stop of Exim's service ends its daemon alone: a queue run or a delivery that was started from it goes on.
 */
#include "beside.h"

#include "base/escape.h"
#include "base/places.h"
#include "base/started.h"
#include "exims.h"
#include "fastspool.h"
#include "maps.h"
#include "spool/launch.h"
#include "spool/viewed.h"
#include "store/store.h"
#include "tool.h"
#include "ways.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMED 20 /* of the Exims that use a store */
#define HELP  192

struct found {
    const char *memory; /* that it has to have mapped; NULL: none */
    bool on_view;       /* a view is mounted, by which any Exim of this machine works */
    bool is;            /* @process is such a one */
    struct exims_process process;
};

static bool has_memory(pid_t pid, const char *memory)
{
    return maps_find(pid, memory, "/" PLACES_SEGMENT);
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

    found->is = !is_ending(process) && (served || (found->on_view && !process->elsewhere && !process->foreign));
    if (found->is)
        found->process = *process;
    return found->is;
}

static bool has_no_store(void *context, const struct exims_process *process)
{
    struct found *found = context;

    found->is = !is_ending(process) && !process->served && !process->users && !process->elsewhere && !process->foreign;
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

/* How @process is brought to its end. */
static const char *end_of(const struct exims_process *process, char help[HELP])
{
    long pid = (long)process->pid;

    if (process->daemon)
        snprintf(help, HELP, "stop it first, %s; where that does not end it, `kill %ld`", ways_command("stop"), pid);
    else
        snprintf(help, HELP, "wait for it, or `kill %ld`", pid);
    return help;
}

int beside_no_exim(const struct fastspool_config *config, const char *memory)
{
    struct found found = {.memory = memory, .on_view = is_viewed(config)};
    char help[HELP];

    exims_each(config, NULL, has_store, &found);
    size_t hidden = memory ? 0 : exims_hidden(config);
    if (!found.is && hidden)
        return tool_error(
            "nothing was changed: %zu process%s called like Exim and can't be looked at: stop Exim, or %s", hidden,
            hidden == 1 ? " is" : "es are", geteuid() == 0 ? "give this process CAP_SYS_PTRACE" : "run it as root");
    return !found.is
               ? 0
               : tool_error("nothing was changed: Exim, process %ld (%s), %s, and may put mail into the store: %s",
                            (long)found.process.pid, found.process.command,
                            found.process.served ? "has the library" : "works on the view",
                            end_of(&found.process, help));
}

bool beside_is_used(const struct fastspool_config *config, const struct fastspool *fs)
{
    struct found found = {.memory = fs->runtime, .on_view = is_viewed(config)};

    exims_each(config, NULL, has_store, &found);
    return found.is || exims_hidden(config) > 0;
}

/* ---- after a stop ---- */

struct users {
    const struct fastspool_config *config;
    const struct fastspool *fs;
    size_t number;
};

static bool name_user(void *context, const struct exims_process *process)
{
    struct users *users = context;
    char help[HELP];

    if (!process->served || is_ending(process) || !has_memory(process->pid, users->fs->runtime))
        return false;
    if (users->number++ < NAMED)
        tool_error("Exim, process %ld (%s), uses the store of %s still, and starts its mirror again: %s",
                   (long)process->pid, process->command, users->fs->spool, end_of(process, help));
    return false;
}

/* Any other program, as by `fastspool run`.  A command of fastspool's looks, and is soon gone. */
static void name_other(struct users *users, pid_t pid)
{
    char name[STARTED_NAME], shown[ESCAPE_ROOM(STARTED_NAME)];

    if (launch_is_tool(pid) || exims_is_powerless(pid, users->config) || !has_memory(pid, users->fs->runtime))
        return;
    started_at(pid, name);
    if (users->number++ < NAMED)
        tool_error(
            "process %ld (%s) uses the store of %s still, and starts its mirror again: wait for it, or `kill %ld`",
            (long)pid, escape_bytes(shown, sizeof(shown), name, strlen(name)), users->fs->spool, (long)pid);
}

static void name_others(struct users *users)
{
    DIR *directory = opendir("/proc");

    for (const struct dirent *entry; directory && (entry = readdir(directory));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        if (pid > 0)
            name_other(users, pid);
    }
    if (directory)
        closedir(directory);
}

bool beside_users(const struct fastspool_config *config, const struct fastspool *fs)
{
    struct users users = {.config = config, .fs = fs};

    exims_each(config, NULL, name_user, &users);
    size_t hidden = users.number ? 0 : exims_hidden(config);
    if (!users.number)
        name_others(&users);
    if (users.number > NAMED)
        tool_error("and %zu more", users.number - NAMED);
    if (hidden)
        tool_error(
            "the store of %s is used still, and %zu process%s called like Exim and can't be looked at: stop Exim, or "
            "%s",
            fs->spool, hidden, hidden == 1 ? " is" : "es are",
            geteuid() == 0 ? "give this process CAP_SYS_PTRACE" : "run it as root");
    if (users.number || hidden)
        tool_error("then run `fastspool stop` again");
    return users.number || hidden;
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

/* SPDX-License-Identifier: MIT
 *
 * fastspool disable: Exim's next start is plain.
 *
 * The happy path: Exim is stopped; the view and the mirror end; what mail the store holds is written to the plain spool
 * by `fastspool export`; what `fastspool enable` has written goes, byte for byte.
 *
 * Failure modes:
 *   - An Exim with the library runs, or another one on the view: it could put mail into the store meanwhile, or deliver
 *     a message that is being moved.  Refused, also where it has come while the question was asked.  One that an
 *     ordinary user has started is not served, and disturbs not.
 *   - The export is not wanted, or leaves something in the store: what `fastspool enable` has written stays.
 *   - Another state of the spool holds mail, which `state` does not name, or one of Exim's own spool, which `spool`
 *     does not name: the same refusal.
 *   - The store can't be asked how many messages it holds: the same refusal, with the reason.
 *   - Nothing was written by `fastspool enable`: the mail of the store is looked after all the same.
 */
#include "base/places.h"
#include "beside.h"
#include "config.h"
#include "fastspool.h"
#include "own.h"
#include "plain/census.h"
#include "progress.h"
#include "spool/attach.h"
#include "spool/viewed.h"
#include "standstill.h"
#include "states.h"
#include "store/inside.h"
#include "store/store.h"
#include "tool.h"
#include "ways.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool disable [--yes]\n"
    "Takes away what `fastspool enable` has written, so that Exim's next start is plain.  Exim has to be stopped\n"
    "before.  Mail that is in the store is written to the plain spool first, by `fastspool export`.\n"
    "--yes: don't ask.\n"
    "Exit status: 0 it is taken away, or was before; 1 not; 64 wrong arguments; 77 it has to be run as root.\n";

static int refuse(const struct states_other *other)
{
    char found[STATES_SENTENCE], mend[STATES_SENTENCE];

    states_describe(other, found, mend);
    return tool_error("nothing was changed, as plain Exim would not see this mail: %s; %s", found, mend);
}

/* Mail of a state that `state` or `spool` does not lead to would be left behind unseen. */
static int refuse_elsewhere(const struct fastspool_config *config)
{
    struct states_other other;

    if (states_find_unnamed(config, &other) && other.messages != 0)
        return refuse(&other);
    for (size_t i = 0; i < config->spools; i++) {
        const struct fastspool_config one = tool_config_of(config, i);
        if (states_find_other(&one, &other) && other.messages != 0)
            return refuse(&other);
    }
    return 0;
}

/* ---- mail in the store ---- */

/* End view and mirror.  The view would show the store still, and no export goes below it.  A program that is no Exim
 * may use the store on: it takes no mail, and what it holds a lock on the export leaves.  Of what stop says only the
 * reason of a failure counts here: what follows makes the rest untrue. */
static int stop(const struct fastspool_config *believed, const char *spool)
{
    struct fastspool_config config;
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX], output[COMMAND_OUTPUT];
    const char *const arguments[] = {"sh",           "-c",  "exec \"$0\" stop --spool \"$1\" 2>&1 >/dev/null",
                                     FASTSPOOL_TOOL, spool, NULL};

    if (fastspool_config_load(&config, NULL, false, error) < 0 || attach_open(spool, &config, &fs, error) < 0)
        return 0;
    fastspool_detach(fs);
    progress_begin("stopping");
    standstill_begin(spool, &config, NULL);
    int status = command_run(arguments, NULL, output);
    standstill_end();
    progress_end();
    if (status == 0)
        return 0;
    if (beside_no_exim(believed, NULL) != 0) /* it has come since */
        return 1;
    if (status == TOOL_STILL_USED)
        return 0;
    fflush(stdout);
    fprintf(stderr, "%s\n", output);
    return tool_error(
        "nothing was taken away, as the store of %s could not be stopped: when that is mended run `fastspool disable` "
        "again",
        spool);
}

/* Attach.  1: there is a store, or it is brought back from the disk, as after a reboot; 0: there was never one. */
static int open_store(const char *spool, const struct fastspool_config *config, struct fastspool **fs, char *error)
{
    char database[PLACES_PATH_MAX], state[FASTSPOOL_PATH_MAX + sizeof(PLACES_STATE) + 1];

    int result = attach_open(spool, config, fs, error);
    if (result != -ENOENT)
        return result < 0 ? result : 1;
    snprintf(state, sizeof(state), "%s%s", config->state[0] ? config->state : spool,
             config->state[0] ? "" : "/" PLACES_STATE);
    if (strlen(state) >= FASTSPOOL_PATH_MAX)
        return -ENAMETOOLONG;
    places_in_state(state, PLACES_DATABASE "/data.mdb", database);
    if (access(database, F_OK) < 0)
        return 0;
    result = fastspool_attach(spool, config, fs, error);
    return result < 0 ? result : 1;
}

/* How many messages plain Exim would not see.  A store that was brought back for this goes again.  0; or 1, with the
 * reason printed. */
static int count_messages(const char *spool, const struct fastspool_config *config, uint64_t *messages)
{
    struct fastspool_config without_view = *config;
    struct census census;
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX] = "its path is too long";

    *messages = 0;
    without_view.view = false;
    bool own = own_mirror(spool, config);
    standstill_begin(spool, config, NULL);
    int result = access(spool, F_OK) < 0 ? 0 : open_store(spool, &without_view, &fs, error);
    standstill_end();
    if (result == 0)
        return 0;
    if (result < 0)
        return tool_error("nothing was changed, as it can't be said what mail the store of %s holds: %s", spool, error);
    bool failed = inside_failed(fs);
    census_take(&census, fs, viewed(fs->spool) > 0);
    *messages = census_held(&census);
    if (own)
        own_end(fs);
    else
        fastspool_detach(fs);
    return failed ? tool_error("nothing was changed: the store of %s has failed: see `fastspool status`", spool) : 0;
}

/* @tried: the export has said why. */
static int stays(const char *spool, uint64_t messages, bool tried)
{
    return tool_error("nothing was taken away: %" PRIu64
                      " message%s in the store of %s, and plain Exim would not see %s: %s",
                      messages, messages == 1 ? " is" : "s are", spool, messages == 1 ? "it" : "them",
                      tried ? "do what the export says above, and run `fastspool disable` again"
                            : "write what is there to the plain spool first, by `fastspool export`");
}

/* 0: the store holds no mail any more.  @written: there is something to take away.  *@yes: the operator has agreed to
 * all of it. */
static int export_mail(const char *spool, const struct fastspool_config *config, bool written, bool *yes)
{
    const char *const export[] = {FASTSPOOL_TOOL, "export", "--yes", "--spool", spool, NULL};
    uint64_t messages;

    if (count_messages(spool, config, &messages) != 0)
        return 1;
    if (messages == 0)
        return 0;
    printf("%s: %" PRIu64 " message%s in the store.\n", spool, messages, messages == 1 ? " is" : "s are");
    fflush(stdout);
    if (!tool_confirm(*yes, written ? "Write the mail to the plain spool (`fastspool export`), and take it away?"
                                    : "Write the mail to the plain spool (`fastspool export`)?"))
        return stays(spool, messages, false);
    *yes = true;
    if (stop(config, spool) != 0)
        return 1;
    command_show(export, NULL); /* it says what it has done; what stays is counted */
    if (count_messages(spool, config, &messages) != 0)
        return 1;
    return messages ? stays(spool, messages, true) : 0;
}

/* ---- taking away ---- */

static size_t say(void)
{
    size_t count = 0;

    for (size_t i = 0; ways_files[i]; i++) {
        if (!ways_is_in(ways_files[i]))
            continue;
        if (count++ == 0)
            puts("What `fastspool enable` has written goes:");
        printf("  %s\n", ways_files[i]);
    }
    return count;
}

static int take(void)
{
    char error[ERROR_MAX];
    int result = 0;

    for (size_t i = 0; ways_files[i]; i++) {
        if (ways_take(ways_files[i], error) < 0)
            result = tool_error("%s", error);
    }
    ways_reload();
    return result;
}

static int disable(bool yes)
{
    struct fastspool_config config;

    if (tool_config(&config, NULL) != 0 || beside_no_exim(&config, NULL) != 0 || refuse_elsewhere(&config) != 0)
        return 1;
    bool written = say() > 0;
    for (size_t i = 0; i < config.spools; i++) {
        if (export_mail(config.spool[i], &config, written, &yes) != 0)
            return 1;
    }
    if (!written) {
        puts(
            "`fastspool enable` has written nothing here, and the store holds no mail: there is nothing to do.\n"
            "If Exim has the library in another way, take it away there.");
        return 0;
    }
    if (!tool_confirm(yes, "Take it away?"))
        return tool_error("nothing was taken away");
    for (size_t i = 0; i < config.spools; i++) {
        if (stop(&config, config.spool[i]) != 0)
            return 1;
    }
    if (take() != 0)
        return 1;
    puts("Done.  Exim's next start is plain.");
    return 0;
}

int tool_disable(int argc, char **argv)
{
    static const struct option options[] = {{"yes", no_argument, NULL, 'y'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool yes = false;

    while (tool_option(argc, argv, options, usage) != -1)
        yes = true;
    tool_operands(argc, argv, 0, 0, NULL, usage);
    if (geteuid() == 0)
        return ways_lock() != 0 ? 1 : disable(yes);
    tool_error("only root can write the files of Exim's service: run `fastspool disable` as root");
    return EX_NOPERM;
}

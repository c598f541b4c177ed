/* SPDX-License-Identifier: MIT
 *
 * fastspool status: one line that says whether all is well, then the numbers.  With --json: one object; with
 * --prometheus: metrics; with --watch: again and again, until somebody ends it.
 *
 * The happy path: the store is ready, its mirror gives signs of life, its commits succeed.  status_look.c finds that
 * out.
 *
 * Failure modes, the worst first: status_health.c has them.
 */
#include "status.h"

#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

static const char usage[] =
    "usage: fastspool status [--spool DIR] [--json | --prometheus | --watch]\n"
    "Shows the state of the spool.  --json: as one JSON object.  --prometheus: as metrics in Prometheus' text format.\n"
    "--watch: on a terminal, each second anew; q or ^C ends it.\n"
    "Exit status: 0 all is well; 1 something needs attention; 2 mail stands: Exim can't take or deliver any; 3 the\n"
    "spool is not in use; 64 wrong arguments.\n";

static void print(const struct shown *shown, struct fastspool *fs, char form)
{
    if (form == 'p') {
        status_add_prometheus(shown, fs);
    } else if (form == 'j') {
        status_print_json(shown);
    } else if (!shown->store) {
        tool_refused(shown->refused, shown->line);
        if (shown->more[0])
            tool_error("%s", shown->more);
        status_print_rest(shown);
    } else {
        if (shown->refusal[0])
            tool_error("%s", shown->refusal);
        status_print_text(shown);
    }
}

/* No spool can be looked at, as @error says: there is none, or this call has the wrong environment. */
static enum health print_error(const struct fastspool_config *config, enum condition condition, const char *error,
                               char form)
{
    struct shown shown = {.config = config,
                          .spool = config->spools ? config->spool[0] : "",
                          .health = severity_of(condition),
                          .unknown = condition != NOT_USED,
                          .without = -1,
                          .in_state = -1,
                          .on_disk = -1};

    snprintf(shown.line, sizeof(shown.line), "%s", error);
    status_look_at_configuration(&shown);
    print(&shown, NULL, form);
    return shown.health;
}

/* All spools of the configuration. */
static enum health print_all(const struct fastspool_config *config, char form)
{
    enum health health = NOT_IN_USE;
    struct shown shown;
    struct fastspool *fs;

    for (size_t i = 0; i < config->spools; i++) {
        const struct fastspool_config one = tool_config_of(config, i);
        progress_begin("counting");
        status_look(&one, &shown, &fs);
        progress_end();
        print(&shown, fs, form);
        health = severity_worse(health, shown.health);
        if (fs)
            fastspool_detach(fs);
    }
    return health;
}

/* A configuration that can't be understood names the spools all the same, and each says how it is. */
static enum health show(const struct fastspool_config *config, int result, const char *error, char form)
{
    struct fastspool_config believed;
    char why[FASTSPOOL_ERROR_MAX];

    if (result == -ENOENT)
        return print_error(config, NOT_USED, error, form);
    if (result < 0 && (config->spools == 0 || fastspool_config_load(&believed, NULL, false, why) == 0))
        return print_error(config, config->spools ? ENVIRONMENT_REFUSED : CONFIGURATION_REFUSED, error, form);
    return print_all(config, form);
}

/* 's', 'j', 'p' or 'w': the first letter of what was asked for.  Does not return where the arguments are wrong. */
static char parse(int argc, char **argv, const char **spool)
{
    static const struct option options[] = {{"spool", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'},
                                            {"prometheus", no_argument, NULL, 'p'},  {"watch", no_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},        {0}};
    char form = 's';
    int option;

    while ((option = tool_option(argc, argv, options, usage)) != -1) {
        if (option == 's')
            *spool = tool_path("spool", optarg, usage);
        else if (form == 's' || form == option)
            form = (char)option;
        else
            tool_wrong(usage, "status takes one of --json, --prometheus and --watch");
    }
    tool_operands(argc, argv, 0, 0, NULL, usage);
    return form;
}

int tool_status(int argc, char **argv)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];
    const char *spool = NULL;
    char form = parse(argc, argv, &spool);

    int result = tool_load_config(&config, spool, error);
    if (form == 'w' && result == 0 && config.spools > 1)
        return tool_error("--watch shows one spool, and the configuration names %zu spools: say --spool",
                          config.spools);
    if (form == 'w' && result == 0)
        return status_watch(&config);
    enum health health = show(&config, result, error, form);
    if (form == 'p')
        status_print_prometheus();
    return (int)health;
}

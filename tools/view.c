/* SPDX-License-Identifier: MIT
 *
 * fastspool view: the options of the process that mounts the store (lib/mount/supervisor.c).
 */
#include "fastspool.h"
#include "mount/supervisor.h"
#include "spool/launch.h"
#include "tool.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool view [--replace | --wanted] [--state DIR] SPOOL\n"
    "Mounts the store of SPOOL over its queue directories, and serves it, until SIGTERM; the library starts it by\n"
    "itself.  There is one for each spool.  It needs root.\n"
    "  --replace    end the one that runs, and take its place\n"
    "  --wanted     mount nothing: exit status 1 where the configuration says `view = off`, else 0\n"
    "  --state DIR  the directory of the state on the disk (SPOOL/.fastspool)\n"
    "Exit status: 0 after SIGTERM, 69 no mount is possible, or `view = off`, 75 another one runs, 1 an error, 64\n"
    "wrong arguments.\n";

/* A configuration that can't be understood is for the view itself to tell. */
static bool is_off(void)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];

    return fastspool_config_load(&config, NULL, false, error) == 0 && !config.view &&
           tool_error("nothing is mounted: the configuration says `view = off`");
}

/* Of a start by hand.  The library has looked itself, and notes in the store what it finds. */
static bool is_impossible(void)
{
    enum view_obstacle obstacle;
    int error = launch_view_obstructed(&obstacle);

    if (error)
        tool_error("nothing can be mounted: %s: %s", launch_view_obstacle(obstacle), strerrordesc_np(error));
    return error;
}

/* Where a view could be mounted over what is no queue. */
static bool is_no_spool(const struct fastspool_config *config, const char *spool)
{
    struct fastspool_config of_spool = *config;

    if (strlen(spool) >= FASTSPOOL_PATH_MAX)
        return tool_error("the path %.64s... is too long for a spool", spool);
    strcpy(of_spool.spool[0], spool);
    return tool_check_spool(&of_spool, true) != 0;
}

int tool_view(int argc, char **argv)
{
    static const struct option known[] = {{"replace", no_argument, NULL, 'r'},
                                          {"wanted", no_argument, NULL, 'w'},
                                          {"state", required_argument, NULL, 's'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    const char *state = NULL;
    struct fastspool_config config = {0};
    bool replaces = false, asks = false;

    for (int option; (option = tool_option(argc, argv, known, usage)) != -1;) {
        if (option == 's')
            state = tool_path("state", optarg, usage);
        else
            *(option == 'w' ? &asks : &replaces) = true;
    }
    const char *spool = *tool_operands(argc, argv, 1, 1, "a SPOOL", usage);
    if (asks)
        return is_off();
    if (geteuid() != 0)
        return tool_error("only root can mount: run `fastspool view` as root");
    if (!state) { /* the library gives it, and has looked */
        char error[FASTSPOOL_ERROR_MAX];
        if (fastspool_config_load(&config, NULL, false, error) < 0)
            return tool_error("nothing is mounted, as the configuration can't be understood: %s", error);
        if (is_off() || is_impossible())
            return SUPERVISOR_UNAVAILABLE;
        if (is_no_spool(&config, spool))
            return 1;
    }
    return supervisor_run(spool, state, config.runtime[0] ? 0 : config.memory, replaces);
}

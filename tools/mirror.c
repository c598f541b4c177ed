/* SPDX-License-Identifier: MIT
 *
 * fastspool mirror: the options of the process that writes the store to the disk (lib/mirror/process.c).
 */
#include "fastspool.h"
#include "mirror/journal_files.h"
#include "mirror/process.h"
#include "mountpoint.h"
#include "store/store.h"
#include "tool.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

static const char usage[] =
    "usage: fastspool mirror [--state DIR] [--memory BYTES] [--journal BYTES] SPOOL\n"
    "Writes the store of SPOOL to the disk; the library starts it by itself.  There is one for each spool.\n"
    "  --state DIR      the directory of the state on the disk (SPOOL/.fastspool)\n"
    "  --memory BYTES   what the store may hold from now on (as it was made)\n"
    "  --journal BYTES  the size of the journal at which a checkpoint is made (67108864)\n"
    "Exit status: 0 after SIGTERM or `fastspool stop`, 75 another one runs, 1 an error, 64 wrong arguments.\n";

/* One line, from which on the mirror serves the spool. */
static void say_ready(struct fastspool *fs)
{
    char error[FASTSPOOL_ERROR_MAX], huge[MOUNTPOINT_VALUE], kernel[MOUNTPOINT_KERNEL];
    struct fastspool_config config = {.durability = FASTSPOOL_ACKED};
    struct fastspool_status status;
    struct mountpoint mount;

    if (fastspool_status(fs, &status) < 0)
        return;
    fastspool_config_load(&config, NULL, true, error); /* of which Exim's start tells */
    bool large = mountpoint_of(fs->runtime, &mount) && mountpoint_is_huge(&mount, huge, kernel);
    syslog(LOG_MAIL | LOG_INFO,
           "%s: fastspool %s: %" PRIu64 " message%s, `durability` %s, `memory` %" PRIu64 " MiB in pages of %s",
           fs->spool, fastspool_version(), status.messages, status.messages == 1 ? "" : "s",
           fastspool_durability_name(config.durability), status.memory_limit >> 20, large ? "2 MiB" : "4 KiB");
}

int tool_mirror(int argc, char **argv)
{
    static const struct option known[] = {{"state", required_argument, NULL, 's'},
                                          {"memory", required_argument, NULL, 'm'},
                                          {"journal", required_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    struct process_options options = {.journal = JOURNAL_BYTES, .ready = say_ready};

    for (int option; (option = tool_option(argc, argv, known, usage)) != -1;) {
        if (option == 's')
            options.state = tool_path("state", optarg, usage);
        else if (option == 'm')
            options.memory = tool_number("memory", "bytes", optarg, 0, usage); /* 0: as it was made */
        else
            options.journal = tool_number("journal", "bytes", optarg, 1, usage);
    }
    return process_run(*tool_operands(argc, argv, 1, 1, "a SPOOL", usage), &options);
}

/* SPDX-License-Identifier: MIT
 *
 * The options of the subcommands.
 *
 * The happy path: a subcommand asks for one option after the other, and then for the number of its operands.
 *
 * Failure modes: what is not in its table, or too many or too few operands, ends the program with the usage and exit
 * status 64; --help ends it with the usage and 0.
 */
#include "tool.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

void tool_wrong(const char *usage)
{
    fputs(usage, stderr);
    exit(EX_USAGE);
}

int tool_option(int argc, char **argv, const struct option *options, const char *usage)
{
    int option = getopt_long(argc, argv, "", options, NULL);

    if (option == '?')
        tool_wrong(usage);
    if (option != 'h')
        return option;
    fputs(usage, stdout);
    exit(0);
}

char **tool_operands(int argc, char **argv, int least, int most, const char *usage)
{
    if (argc - optind < least || argc - optind > most)
        tool_wrong(usage);
    return argv + optind;
}

const char *tool_options(int argc, char **argv, bool *json, const char *usage)
{
    static const struct option options[] = {{"spool", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *spool = NULL;

    for (int option; (option = tool_option(argc, argv, options, usage)) != -1;) {
        if (option == 's')
            spool = optarg;
        else if (json)
            *json = true;
        else
            tool_wrong(usage);
    }
    return spool;
}

const char *tool_only_options(int argc, char **argv, bool *json, const char *usage)
{
    const char *spool = tool_options(argc, argv, json, usage);

    if (optind < argc) {
        tool_error("it takes no argument like `%s`", argv[optind]);
        tool_wrong(usage);
    }
    return spool;
}

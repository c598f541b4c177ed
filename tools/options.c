/* SPDX-License-Identifier: MIT
 *
 * The options of the subcommands.
 *
 * The happy path: a subcommand asks for one option after the other, and then for the number of its operands.
 *
 * Failure modes: what is not in its table, an option with two values, or too many or too few operands, ends the program
 * with a sentence, the usage and exit status 64; --help ends it with the usage and 0.
 */
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

void tool_wrong(const char *usage, const char *format, ...)
{
    va_list arguments;

    fputs("fastspool: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n%s", usage);
    exit(EX_USAGE);
}

/* The name that getopt(3) begins its sentences with, without "fastspool: ". */
static const char *name_of(char **argv)
{
    const char *colon = strstr(argv[0], ": ");

    return colon ? colon + 2 : argv[0];
}

/* Of two values one would be forgotten. */
static void refuse_second(int option, char **argv, const struct option *options, const char *usage)
{
    static uint32_t given; /* a bit a letter */
    uint32_t bit = UINT32_C(1) << (option & 31);

    while (options->val != option)
        options++;
    if (options->has_arg == required_argument && given & bit)
        tool_wrong(usage, "%s: option '--%s' is given twice", name_of(argv), options->name);
    given |= bit;
}

static int next_option(int argc, char **argv, const char *letters, const struct option *options, const char *usage)
{
    int option = getopt_long(argc, argv, letters, options, NULL);

    if (option == '?') { /* getopt(3) has said why */
        fputs(usage, stderr);
        exit(EX_USAGE);
    }
    if (option == 'h') {
        fputs(usage, stdout);
        exit(0);
    }
    if (option != -1)
        refuse_second(option, argv, options, usage);
    return option;
}

int tool_option(int argc, char **argv, const struct option *options, const char *usage)
{
    return next_option(argc, argv, "h", options, usage);
}

int tool_option_before_command(int argc, char **argv, const struct option *options, const char *usage)
{
    return next_option(argc, argv, "+h", options, usage);
}

char **tool_operands(int argc, char **argv, int least, int most, const char *needs, const char *usage)
{
    if (needs && argc - optind < least)
        tool_wrong(usage, "%s needs %s", name_of(argv), needs);
    if (argc - optind > most)
        tool_wrong(usage, "%s takes %s like `%s`", name_of(argv), most ? "no further argument" : "no argument",
                   argv[optind + most]);
    return argv + optind;
}

uint64_t tool_number(const char *option, const char *of, const char *text, uint64_t least, const char *usage)
{
    char *end;

    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || end == text || *end || strchr(text, '-') || number < least)
        tool_wrong(usage, "--%s needs a number of %s, and not `%s`", option, of, text);
    return number;
}

const char *tool_path(const char *option, const char *text, const char *usage)
{
    if (!*text || strlen(text) >= FASTSPOOL_PATH_MAX)
        tool_wrong(usage, "--%s needs a path of 1 to %d bytes", option, FASTSPOOL_PATH_MAX - 1);
    return text;
}

const char *tool_options_of(int argc, char **argv, const struct option *options, bool *given, const char *usage)
{
    const char *spool = NULL;

    for (int option; (option = tool_option(argc, argv, options, usage)) != -1;) {
        if (option == 's')
            spool = tool_path("spool", optarg, usage);
        else
            *given = true;
    }
    return spool;
}

const char *tool_options(int argc, char **argv, bool *json, const char *usage)
{
    static const struct option options[] = {{"spool", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"json", no_argument, NULL, 'j'},
                                            {0}};
    static const struct option without_json[] = {
        {"spool", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {0}};

    return tool_options_of(argc, argv, json ? options : without_json, json, usage);
}

const char *tool_only_options(int argc, char **argv, bool *json, const char *usage)
{
    const char *spool = tool_options(argc, argv, json, usage);

    tool_operands(argc, argv, 0, 0, NULL, usage);
    return spool;
}

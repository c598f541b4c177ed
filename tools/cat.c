/* SPDX-License-Identifier: MIT
 *
 * fastspool cat: print files of the store.
 */
#include "below.h"
#include "fastspool.h"
#include "tool.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>

static const char usage[] =
    "usage: fastspool cat [--spool DIR] PATH...\n"
    "Prints each file of the store.  A PATH is relative to the spool, or absolute and below it.\n"
    "Exit status: 0, 1 after an error, 64 wrong arguments.\n";

static int print_file(struct fastspool *fs, const char *path)
{
    static char bytes[65536];
    ssize_t got = 0;
    int file = fastspool_open(fs, path, O_RDONLY, 0);

    if (file < 0)
        return below_error(fs, path, file);
    while (!ferror(stdout) && (got = fastspool_read(fs, file, bytes, sizeof(bytes))) > 0)
        fwrite(bytes, 1, (size_t)got, stdout);
    fastspool_close(fs, file);
    return got < 0 ? below_error(fs, path, (int)got) : 0;
}

int tool_cat(int argc, char **argv)
{
    const char *spool = tool_options(argc, argv, NULL, usage);
    char below[PATH_MAX];
    int result = 0;

    tool_operands(argc, argv, 1, argc, "a PATH", usage);
    struct fastspool *fs = tool_attach(spool);
    if (!fs)
        return 1;
    for (int i = optind; i < argc; i++)
        result |= below_find(fs, argv[i], below) || print_file(fs, below);
    fastspool_detach(fs);
    return result;
}

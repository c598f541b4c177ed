/* SPDX-License-Identifier: MIT
 *
 * fastspool ls: list the files of the store.  `fastspool run -- ls` lists those of the store and the disk together.
 */
#include "fastspool.h"
#include "tool.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: fastspool ls [--spool DIR] [PATH...]\n"
    "Lists each PATH, and everything below a directory.  Paths are relative to the spool; default: the whole spool.\n";

static void print_line(const char *path, const struct stat *st)
{
    char mode[] = "-rwxrwxrwx", when[32];
    struct tm tm;

    if (S_ISDIR(st->st_mode))
        mode[0] = 'd';
    for (int bit = 0; bit < 9; bit++) {
        if (!(st->st_mode & (0400 >> bit)))
            mode[bit + 1] = '-';
    }
    strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&st->st_mtime, &tm));
    printf("%s %2lu %5u %5u %9lld %s %s\n", mode, (unsigned long)st->st_nlink, (unsigned)st->st_uid,
           (unsigned)st->st_gid, (long long)st->st_size, when, path);
}

static int list(struct fastspool *fs, const char *path);

static int list_directory(struct fastspool *fs, const char *path)
{
    struct fastspool_entry entries[64];
    uint64_t after = 0;
    ssize_t count = 0;
    int result = 0, directory = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);

    if (directory < 0)
        return tool_error("%s: %s", path, strerrordesc_np(-directory));
    while ((count = fastspool_list(fs, directory, after, entries, 64)) > 0) {
        after = entries[count - 1].position;
        for (ssize_t i = 0; i < count; i++) {
            char below[1024];
            if (snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name) < (int)sizeof(below))
                result |= list(fs, below);
        }
    }
    fastspool_close(fs, directory);
    return count < 0 ? tool_error("%s: %s", path, strerrordesc_np((int)-count)) : result;
}

static int list(struct fastspool *fs, const char *path)
{
    struct stat st;
    int result = fastspool_stat(fs, path, &st);

    if (result < 0)
        return tool_error("%s: %s", path, strerrordesc_np(-result));
    if (*path)
        print_line(path, &st);
    return S_ISDIR(st.st_mode) ? list_directory(fs, path) : 0;
}

int tool_ls(int argc, char **argv)
{
    struct fastspool *fs = tool_attach(tool_options(argc, argv, NULL, usage));
    int result = 0;

    if (!fs)
        return 1;
    if (optind == argc)
        result = list(fs, "");
    for (int i = optind; i < argc; i++)
        result |= list(fs, argv[i]);
    fastspool_detach(fs);
    return result;
}

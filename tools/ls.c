/* SPDX-License-Identifier: MIT
 *
 * fastspool ls: list the files of the store.  `fastspool run -- ls` lists those of the store and the disk together.
 *
 * The happy path: the directories on the way down are a list, so the depth of the tree costs no stack.  Each goes on
 * behind the name that was printed last.
 *
 * Failure modes:
 *   - A name has control characters, which a terminal would obey: they are escaped.
 *   - A path is too long, or not below the spool, a directory can't be listed: a line on standard error, exit status 1,
 *     and the listing goes on.
 */
#include "base/escape.h"
#include "below.h"
#include "fastspool.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: fastspool ls [--spool DIR] [PATH...]\n"
    "Lists each PATH of the store, and everything below a directory; without a PATH all of the store.  A PATH is\n"
    "relative to the spool, or absolute and below it.\n"
    "Exit status: 0, 1 after an error, 64 wrong arguments.\n";

static void print_line(const char *path, const struct stat *st)
{
    char mode[] = "-rwxrwxrwx", when[32], shown[ESCAPE_ROOM(PATH_MAX)];
    struct tm tm;

    if (S_ISDIR(st->st_mode))
        mode[0] = 'd';
    for (int bit = 0; bit < 9; bit++) {
        if (!(st->st_mode & (0400 >> bit)))
            mode[bit + 1] = '-';
    }
    strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&st->st_mtime, &tm));
    printf("%s %2lu %5u %5u %9lld %s %s\n", mode, (unsigned long)st->st_nlink, (unsigned)st->st_uid,
           (unsigned)st->st_gid, (long long)st->st_size, when, escape_bytes(shown, sizeof(shown), path, strlen(path)));
}

/* ---- walking down ---- */

/* A directory on the way down. */
struct level {
    uint64_t after; /* position of the name that was printed last */
    size_t length;  /* of its path */
};

struct walk {
    struct fastspool *fs;
    char path[PATH_MAX];
    struct level *levels;
    size_t depth;
    size_t room; /* of `levels` */
};

static int walk_error(const struct walk *walk, int error)
{
    return below_error(walk->fs, walk->path, error);
}

/* The directory at walk->path is the next one. */
static int descend(struct walk *walk)
{
    if (walk->depth == walk->room) {
        size_t room = 2 * walk->room + 16;
        struct level *levels = realloc(walk->levels, room * sizeof(*levels));
        if (!levels)
            return walk_error(walk, -ENOMEM);
        walk->levels = levels;
        walk->room = room;
    }
    walk->levels[walk->depth++] = (struct level){0, strlen(walk->path)};
    return 0;
}

/* Print what is at walk->path, and go down if that is a directory. */
static int visit(struct walk *walk)
{
    struct stat st;
    int result = fastspool_stat(walk->fs, walk->path, &st);

    if (result == -ENOENT && !*walk->path)
        return 0; /* nothing was ever written */
    if (result < 0)
        return walk_error(walk, result);
    if (*walk->path)
        print_line(walk->path, &st);
    return S_ISDIR(st.st_mode) ? descend(walk) : 0;
}

/* Print names of the last level, up to one that leads further down. */
static int go_on(struct walk *walk)
{
    struct fastspool_entry entries[64];
    const size_t own = walk->depth;
    struct level level = walk->levels[own - 1];
    char *end = walk->path + level.length;
    ssize_t count = 0;
    int result = 0;

    *end = '\0';
    int directory = fastspool_open(walk->fs, walk->path, O_RDONLY | O_DIRECTORY, 0);
    if (directory >= 0)
        count = fastspool_list(walk->fs, directory, level.after, entries, 64);
    for (ssize_t i = 0; i < count && walk->depth == own; i++) {
        walk->levels[own - 1].after = entries[i].position;
        size_t room = sizeof(walk->path) - level.length;
        if ((size_t)snprintf(end, room, "%s%s", level.length ? "/" : "", entries[i].name) < room)
            result |= visit(walk);
        else
            result |= walk_error(walk, -ENAMETOOLONG);
    }
    if (directory >= 0)
        fastspool_close(walk->fs, directory);
    if (count > 0)
        return result;
    walk->depth--;
    *end = '\0';
    return directory < 0 ? walk_error(walk, directory) : count < 0 ? walk_error(walk, (int)count) : 0;
}

static int list(struct fastspool *fs, const char *below)
{
    struct walk walk = {.fs = fs};

    strcpy(walk.path, below);
    int result = visit(&walk);
    while (walk.depth > 0)
        result |= go_on(&walk);
    free(walk.levels);
    return result;
}

int tool_ls(int argc, char **argv)
{
    struct fastspool *fs = tool_attach(tool_options(argc, argv, NULL, usage));
    char below[PATH_MAX];
    int result = 0;

    if (!fs)
        return 1;
    if (optind == argc)
        result = list(fs, "");
    for (int i = optind; i < argc; i++)
        result |= below_find(fs, argv[i], below) || list(fs, below);
    fastspool_detach(fs);
    return result;
}

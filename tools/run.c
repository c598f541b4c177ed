/* SPDX-License-Identifier: MIT
 *
 * fastspool run: run a command on the spool (`fastspool run -- mailq`, `exipick`, `ls`).
 *
 * Root's call has the view mounted, and waits for it some seconds, if the configuration wants one.
 *
 * With a view every program sees the spool, and the command runs as it is.  But a `program` of the configuration gets
 * the library all the same: `exim -MG` renames from one top directory to another, and those are mounts.
 *
 * Without a view a user that may not use the store is refused: set-user-ID Exim would count the disk alone, and end
 * with 0.  Else every command gets the library by LD_PRELOAD.  The library goes by its bare name, because a set-user-ID
 * program preloads nothing else, and only from the loader's own directory.  Such a program does not believe FASTSPOOL_*
 * either.  So root registers a spool that the configuration does not name (spool/registry.c).
 */
#include "base/clock.h"
#include "config.h"
#include "fastspool.h"
#include "progress.h"
#include "seen.h"
#include "spool/attach.h"
#include "spool/registry.h"
#include "spool/sight.h"
#include "spool/viewed.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY  "libfastspool.so"
#define PATIENCE (5 * NS_PER_S) /* with a view that starts */

static const char usage[] =
    "usage: fastspool run [--spool DIR] [--durability MODE] -- COMMAND [ARGUMENT...]\n"
    "Runs COMMAND with the spool served by fastspool.  Where the view is mounted, COMMAND runs as it is, unless the\n"
    "configuration names it as a `program`.\n"
    "Exit status: COMMAND's own; 126 it cannot be run, or there is no spool, 127 it does not exist, 64 wrong "
    "arguments.\n";

struct request {
    const char *spool;
    const char *durability;
};

static bool is_configured(const char *spool)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];

    if (fastspool_config_load(&config, NULL, false, error) < 0)
        return false;
    for (size_t i = 0; i < config.spools; i++) {
        if (strcmp(config.spool[i], spool) == 0)
            return true;
    }
    return false;
}

/* What execvp(3) would execute. */
static bool find_image(const char *command, struct stat *st)
{
    const char *path = getenv("PATH");
    bool found = strchr(command, '/') && stat(command, st) == 0;

    if (strchr(command, '/'))
        return found;
    for (const char *at = path ? path : "/bin:/usr/bin"; at && !found; at = strchr(at, ':')) {
        char file[PATH_MAX];
        at += *at == ':';
        int length = (int)strcspn(at, ":");
        int size = snprintf(file, sizeof(file), "%.*s%s%s", length, at, length ? "/" : "", command);
        found = size < (int)sizeof(file) && access(file, X_OK) == 0 && stat(file, st) == 0 && S_ISREG(st->st_mode);
    }
    return found;
}

static bool is_program(const struct fastspool_config *config, const char *command)
{
    struct stat image, st;
    bool is = false;

    if (!find_image(command, &image))
        return false;
    for (size_t i = 0; i < config->programs && !is; i++)
        is = stat(config->program[i], &st) == 0 && st.st_dev == image.st_dev && st.st_ino == image.st_ino;
    return is;
}

/* Put the library first in LD_PRELOAD. */
static int preload(void)
{
    const char *before = getenv("LD_PRELOAD");
    char *value;

    if (access(FASTSPOOL_TRUSTED_LIBDIR "/" LIBRARY, F_OK) < 0)
        return tool_error("cannot find the library %s/%s: %s", FASTSPOOL_TRUSTED_LIBDIR, LIBRARY,
                          strerrordesc_np(errno));
    if (before && strstr(before, LIBRARY))
        return 0;
    if (asprintf(&value, "%s%s%s", LIBRARY, before && *before ? ":" : "", before ? before : "") < 0)
        return tool_error("out of memory");
    setenv("LD_PRELOAD", value, 1);
    free(value);
    return 0;
}

/* Attach.  Root's call starts what the first use of the spool starts: the store, its mirror, and the view.  -EACCES
 * and -ENXIO are for the caller to say; any other failure COMMAND says, if it needs the spool. */
static struct fastspool *use(const struct fastspool_config *config, int *failure, char *error)
{
    struct fastspool *fs = NULL;
    int result = sight_check(config->spool[0], config, error);

    if (result == 0)
        result = geteuid() == 0 ? fastspool_attach(config->spool[0], config, &fs, error)
                                : attach_open(config->spool[0], config, &fs, error);
    *failure = result;
    return result < 0 ? NULL : fs;
}

/* Is there a view, and does it live?  @wait: COMMAND needs it, so wait for one that starts.  An ordinary user can't ask
 * the store: any view counts.  1 or 0; -EACCES: there is none, and this user may not use the store, which is said. */
static int is_mounted(const struct fastspool_config *config, bool wait)
{
    char error[FASTSPOOL_ERROR_MAX];
    int failure;
    struct fastspool *fs = use(config, &failure, error);
    struct seen seen;

    if (!fs && viewed(config->spool[0]) > 0)
        return 1;
    if (failure == -EACCES)
        tool_error("no view is mounted, so the command would see the disk alone: %s", error);
    if (failure == -ENXIO)
        tool_error("%s", error);
    if (!fs)
        return failure == -EACCES || failure == -ENXIO ? failure : 0;
    uint64_t since = clock_monotonic();
    bool needed = wait;
    progress_begin("waiting for the view");
    do {
        seen_look(fs, config->view, &seen);
        bool starts = seen.state == SEEN_STARTING || (config->view && tool_mount_again(fs, seen.state));
        wait = wait && starts && clock_monotonic() - since < PATIENCE;
        if (wait)
            clock_sleep(20 * NS_PER_MS);
    } while (wait);
    progress_end();
    fastspool_detach(fs);
    if (seen.state == SEEN_DEAD && needed)
        tool_error(
            "the view is dead, and only the programs of the configuration see the mail: `fastspool status` says "
            "more");
    return seen.state == SEEN_MOUNTED && viewed(config->spool[0]) > 0;
}

/* With none of them COMMAND would have the plain disk, as if the queue was empty. */
static int find_spools(const struct fastspool_config *config)
{
    bool found = false;
    struct stat st;

    for (size_t i = 0; i < config->spools && !found; i++)
        found = stat(config->spool[i], &st) == 0 ? S_ISDIR(st.st_mode) : errno != ENOENT && errno != ENOTDIR;
    if (found)
        return 0;
    return tool_error(
        "cannot find the spool %s: there is no such directory; make it, mount its file system, or say "
        "`spool = DIR` in " FASTSPOOL_CONFIG,
        config->spool[0]);
}

static int prepare(const struct request *request, const char *command)
{
    struct fastspool_config config;

    if (request->durability)
        setenv("FASTSPOOL_DURABILITY", request->durability, 1);
    if (request->spool) {
        char *real = realpath(request->spool, NULL);
        if (!real)
            return tool_error("cannot find the spool %s: %s", request->spool, strerrordesc_np(errno));
        setenv("FASTSPOOL_SPOOL", real, 1);
        free(real);
    }
    if (tool_config(&config, NULL) != 0 || (!request->spool && find_spools(&config) != 0) ||
        (request->spool && geteuid() == 0 && tool_check_spool(&config, true) != 0))
        return 1;
    if (!is_configured(config.spool[0]) && geteuid() == 0) {
        int result = registry_add(&config);
        if (result < 0)
            return tool_error("cannot register the spool %s: %s", config.spool[0], strerrordesc_np(-result));
    }
    bool served = is_program(&config, command);
    int mounted = is_mounted(&config, !served);
    if (mounted < 0)
        return 1;
    if (!mounted || served)
        return preload();
    if (isatty(STDERR_FILENO))
        fputs("fastspool: every program sees the spool, as it is mounted: `fastspool run` is not needed\n", stderr);
    return 0;
}

static bool is_durability(const char *word)
{
    return strcmp(word, "acked") == 0 || strcmp(word, "lazy") == 0 || strcmp(word, "strict") == 0;
}

int tool_run(int argc, char **argv)
{
    static const struct option options[] = {{"spool", required_argument, NULL, 's'},
                                            {"durability", required_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct request request = {0};

    for (int option; (option = tool_option_before_command(argc, argv, options, usage)) != -1;) {
        if (option == 's')
            request.spool = tool_path("spool", optarg, usage);
        else
            request.durability = optarg;
    }
    tool_operands(argc, argv, 1, argc, "a COMMAND", usage);
    if (request.durability && !is_durability(request.durability))
        tool_wrong(usage, "--durability needs acked, lazy or strict, and not `%s`", request.durability);
    if (prepare(&request, argv[optind]) != 0)
        return 126;
    execvp(argv[optind], argv + optind);
    tool_error("cannot run %s: %s", argv[optind], strerrordesc_np(errno));
    return errno == ENOENT ? 127 : 126;
}

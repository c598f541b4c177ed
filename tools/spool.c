/* SPDX-License-Identifier: MIT
 *
 * Is a directory a spool?  Attaching makes a store wherever it is told to, and a view mounts over what is there, so the
 * subcommands ask before.
 *
 * The happy path: it has a queue, or a state.  Where a store may begin, a spool that the configuration names and an
 * empty directory are as good.
 *
 * Failure modes:
 *   - This user may not look: that is said, and is no "no".
 *   - A dead or hanging view lies over the queue: the state is looked for first, and an answer that is an error means
 *     that something is there.
 */
#include "base/places.h"
#include "fastspool.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* 1: it is there; 0: not; -EACCES: this user may not look. */
static int has_directory(const char *above, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", above, name);
    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode);
    return errno == EACCES ? -EACCES : errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG;
}

static bool is_empty(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    bool empty = directory;

    while (empty && (entry = readdir(directory)))
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (directory)
        closedir(directory);
    return empty;
}

bool tool_is_configured(const char *spool)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];
    struct stat st, named;
    bool found = false;

    if (stat(spool, &st) < 0 || fastspool_config_load(&config, NULL, false, error) < 0)
        return false;
    for (size_t i = 0; i < config.spools && !found; i++)
        found = stat(config.spool[i], &named) == 0 && named.st_dev == st.st_dev && named.st_ino == st.st_ino;
    return found;
}

const char *tool_of_spool(const char *spool, char words[TOOL_OF_SPOOL])
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX], word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    words[0] = '\0';
    if (fastspool_config_load(&config, NULL, false, error) == 0 && config.spools > 1)
        snprintf(words, TOOL_OF_SPOOL, "FASTSPOOL_SPOOL=%s ", escape_word(word, sizeof(word), spool));
    return words;
}

int tool_check_spool(const struct fastspool_config *config, bool fresh)
{
    const char *spool = config->spool[0];
    char error[FASTSPOOL_ERROR_MAX];
    struct stat st;
    int found = config->state[0] ? has_directory(config->state, PLACES_JOURNAL) : 0;

    if (found == 0)
        found = has_directory(spool, PLACES_STATE);
    if (found == 0)
        found = has_directory(spool, "input");
    if (found > 0 || (found == 0 && fresh && (tool_is_configured(spool) || is_empty(spool))))
        return 0;
    if (found == 0 && stat(spool, &st) < 0)
        return tool_error("cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    if (found == 0)
        return tool_error("%s is no spool: it has no directory input, and no " PLACES_STATE, spool);
    snprintf(error, sizeof(error), "cannot look into the spool %.256s: %s", spool, strerrordesc_np(-found));
    return tool_refused(found, error);
}

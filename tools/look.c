/* SPDX-License-Identifier: MIT
 *
 * Where a spool's parts are: its real path, its state directory, its store in memory.
 *
 * Failure modes: no store, or one that can't be attached, is no failure here: there is the disk still.
 */
#include "look.h"

#include "base/places.h"
#include "config.h"
#include "fastspool.h"
#include "spool/attach.h"
#include "states.h"
#include "tool.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int cannot_open(struct look *look, const char *spool)
{
    int result = error_set(look->why, -errno, "cannot open the spool %.256s: %s", spool, strerrordesc_np(errno));

    return tool_refused(result, look->why);
}

static int find_paths(struct look *look, const struct fastspool_config *config)
{
    char path[PATH_MAX];
    struct stat st;

    if (!realpath(config->spool[0], path) || stat(path, &st) < 0)
        return cannot_open(look, config->spool[0]);
    look->owner = st.st_uid;
    look->group = st.st_gid;
    look->view = config->view;
    if (strlen(path) + sizeof(PLACES_STATE) >= sizeof(look->state))
        return tool_error("the path %.64s... is too long for a spool", config->spool[0]);
    strcpy(look->spool, path);
    if (config->state[0])
        strcpy(look->state, config->state);
    else
        stpcpy(stpcpy(look->state, look->spool), "/" PLACES_STATE);
    return 0;
}

int look_begin(struct look *look, const char *spool)
{
    struct fastspool_config config;
    struct stat st;

    *look = (struct look){0};
    if (tool_config_of_one(&config, spool) != 0 || find_paths(look, &config) != 0)
        return 1;
    int result = attach_open(config.spool[0], &config, &look->fs, look->why);
    if (result < 0)
        look->fs = NULL;
    look->code = result;
    if (result == -EACCES && geteuid() != 0)
        return tool_refused(result, look->why); /* the disk is closed to this user, too */
    if (result == 0 || result == -ENOENT)
        look->why[0] = '\0';
    if (stat(look->state, &st) < 0 && look->why[0])
        return tool_refused(result, look->why);
    if (stat(look->state, &st) == 0)
        return 0;
    if (errno != ENOENT)
        return tool_error("no store in memory, and cannot open %s: %s", look->state, strerrordesc_np(errno));
    if (tool_check_spool(&config, true) != 0)
        return 1;
    struct states_other other;
    char found[STATES_SENTENCE], mend[STATES_SENTENCE];
    if (!states_find_other(&config, &other))
        return tool_error("%s has no store, neither in memory nor on the disk", look->spool);
    states_describe(&other, found, mend);
    return tool_error("%s has no store in %s, but %s; %s", look->spool, look->state, found, mend);
}

void look_end(struct look *look)
{
    if (look->fs)
        fastspool_detach(look->fs);
}

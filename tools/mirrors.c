/* SPDX-License-Identifier: MIT
 *
 * Mirrors that run, by their command lines: "fastspool mirror --state STATE --memory N SPOOL", as the library starts
 * them.
 *
 * Failure modes: any user can run a mirror: only one of root's or the spool owner's counts, and the kernel says whose
 * it is.  One that was started by hand names no state, and is not found; nor is one of another PID namespace.
 *
 * A mirror whose locks were removed, as by an `rm` of the state's files, sees that within a second, and ends.
 */
#include "mirrors.h"

#include "base/clock.h"
#include "base/places.h"
#include "base/started.h"
#include "spool/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTLE     (3 * NS_PER_S) /* a mirror whose lock was removed has ended by then, unless it is stopped */
#define LOOK_EVERY (50 * NS_PER_MS)

bool mirrors_read(pid_t pid, uid_t owner, struct mirrors_words *words)
{
    char path[48], text[4 * FASTSPOOL_PATH_MAX], *state = NULL, *last = NULL;
    struct started_now now;

    if (!launch_is_tool(pid) || !started_look(pid, &now) || (now.uid != 0 && now.uid != owner))
        return false;
    snprintf(path, sizeof(path), "/proc/%ld/cmdline", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (size <= 0)
        return false;
    text[size] = '\0';
    char *verb = text + strlen(text) + 1;
    for (char *word = verb; word < text + size; word += strlen(word) + 1) {
        state = last && strcmp(last, "--state") == 0 ? word : state;
        last = word;
    }
    return state && strcmp(verb, "mirror") == 0 &&
           snprintf(words->state, sizeof(words->state), "%s", state) < (int)sizeof(words->state) &&
           snprintf(words->spool, sizeof(words->spool), "%s", last) < (int)sizeof(words->spool);
}

pid_t mirrors_find(const char *state, uid_t owner)
{
    DIR *directory = opendir("/proc");
    struct mirrors_words words;
    pid_t found = 0;

    for (const struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        if (pid > 0 && mirrors_read(pid, owner, &words) && strcmp(words.state, state) == 0)
            found = pid;
    }
    if (directory)
        closedir(directory);
    return found;
}

static bool is_missing(const char *state, const char *name)
{
    char path[PLACES_PATH_MAX];

    places_in_state(state, name, path);
    return access(path, F_OK) < 0 && errno == ENOENT;
}

void mirrors_settle(const struct fastspool_config *config)
{
    char state[PATH_MAX + sizeof(PLACES_STATE) + 1], spool[PATH_MAX];
    uint64_t began = clock_monotonic();
    struct stat st;

    if (!realpath(config->spool[0], spool) || stat(spool, &st) < 0)
        return;
    snprintf(state, sizeof(state), "%s%s", config->state[0] ? config->state : spool,
             config->state[0] ? "" : "/" PLACES_STATE);
    while (strlen(state) < FASTSPOOL_PATH_MAX && clock_monotonic() - began < SETTLE &&
           (is_missing(state, PLACES_LOCK) || is_missing(state, PLACES_MIRROR_LOCK)) && mirrors_find(state, st.st_uid))
        clock_sleep(LOOK_EVERY);
}

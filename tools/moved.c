/* SPDX-License-Identifier: MIT
 *
 * A process whose store has its state directory elsewhere than where it was.
 *
 * The happy path: a process that has a store holds STATE/lock open, and the kernel says where that is now.  The record
 * beside it says of which spool the store is.
 *
 * Failure modes:
 *   - `state` was changed below a daemon: it works on with the state of before, as long as a mirror serves that.
 *   - The mail user opens a file of that name, elsewhere: so the process must have the memory that the record names.
 *   - The directory was removed, or is in mounts of the process's own: that is not said here.
 */
#include "moved.h"

#include "base/places.h"
#include "maps.h"
#include "spool/launch.h"
#include "spool/record.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directory of the file that a descriptor is of, if it may be a state directory's lock. */
static bool read_state(const char *link, char state[FASTSPOOL_PATH_MAX])
{
    static const char lock[] = "/" PLACES_LOCK;
    char path[FASTSPOOL_PATH_MAX + sizeof(lock)];
    ssize_t length = readlink(link, path, sizeof(path) - 1), end = length - (ssize_t)(sizeof(lock) - 1);

    if (end <= 0 || end >= FASTSPOOL_PATH_MAX)
        return false;
    path[length] = '\0';
    if (strcmp(path + end, lock) != 0)
        return false;
    memcpy(state, path, (size_t)end);
    state[end] = '\0';
    return true;
}

/* Does @config name another state directory for the spool of @record than the one with @st? */
static bool is_elsewhere(const struct fastspool_config *config, const struct record *record, const struct stat *st)
{
    char spool[PATH_MAX], named[PATH_MAX + sizeof(PLACES_STATE) + 1];
    struct stat of, state;

    for (size_t i = 0; i < config->spools; i++) {
        if (!realpath(config->spool[i], spool) || stat(spool, &of) < 0 || !record_is_of(record, &of, spool))
            continue;
        snprintf(named, sizeof(named), "%s%s", config->state[0] ? config->state : spool,
                 config->state[0] ? "" : "/" PLACES_STATE);
        return stat(named, &state) < 0 || state.st_dev != st->st_dev || state.st_ino != st->st_ino;
    }
    return false;
}

static bool is_moved(pid_t pid, const struct fastspool_config *config, const char *state)
{
    struct record record;
    struct stat st;
    int fd = open(state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool is = fd >= 0 && fstat(fd, &st) == 0 && record_read(fd, &record) == 0 &&
              maps_find(pid, strrchr(record.runtime, '/'), "/" PLACES_SEGMENT "\n");

    if (fd >= 0)
        close(fd);
    return is && is_elsewhere(config, &record, &st) && launch_mirror_lives(state) == 0;
}

bool moved_find(pid_t pid, const struct fastspool_config *config, char state[FASTSPOOL_PATH_MAX])
{
    char path[48], link[sizeof(path) + 24];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        snprintf(link, sizeof(link), "%s/%.20s", path, entry->d_name);
        found = read_state(link, state) && is_moved(pid, config, state);
    }
    if (directory)
        closedir(directory);
    if (!found)
        state[0] = '\0';
    return found;
}

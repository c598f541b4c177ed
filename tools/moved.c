/* SPDX-License-Identifier: MIT
 *
 * A process whose store has its state directory elsewhere than where it was, or hidden by a mount.
 *
 * The happy path: a process that has a store holds STATE/lock open, and the kernel says where that is now.  The record
 * beside it says of which spool the store is.
 *
 * Failure modes:
 *   - `state` was changed below a daemon: it works on with the state of before, as long as a mirror serves that.
 *   - The mail user opens a file of that name, elsewhere: so the process must have the memory that the record names.
 *   - Something is mounted over the directory: the kernel's path of the lock leads elsewhere.  What hides it stands in
 *     the process's mounts.
 *   - The directory was removed, or is in mounts of the process's own: that is not said here.
 */
#include "moved.h"

#include "base/mountinfo.h"
#include "base/places.h"
#include "maps.h"
#include "spool/launch.h"
#include "spool/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOUNTS_DEEP 64 /* one on the other, that are looked at */

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

/* Is the lock, the open file @link, another one than what its path leads to? */
static bool is_below(const char *link, const char *state)
{
    char path[FASTSPOOL_PATH_MAX + sizeof(PLACES_LOCK) + 1];
    struct stat own, seen;

    snprintf(path, sizeof(path), "%s/" PLACES_LOCK, state);
    return stat(link, &own) == 0 &&
           (stat(path, &seen) < 0 ? errno == ENOENT : own.st_dev != seen.st_dev || own.st_ino != seen.st_ino);
}

/* The number of the mount that process @pid has opened its descriptor @name in, -1: unknown. */
static int mount_of(pid_t pid, const char *name)
{
    char path[80], line[256];
    int number = -1;

    snprintf(path, sizeof(path), "/proc/%ld/fdinfo/%.20s", (long)pid, name);
    FILE *file = fopen(path, "re");
    while (file && number < 0 && fgets(line, sizeof(line), file))
        sscanf(line, "mnt_id: %d", &number);
    if (file)
        fclose(file);
    return number;
}

/* Is @path @place, or below it? */
static bool is_in(const char *path, const char *place)
{
    size_t length = strlen(place);

    return strncmp(path, place, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* What is mounted on mount @number, but for @except, where it hides @state.  Returns the mount that @number is on, -1:
 * there is no @number, as after a lazy unmount. */
static int look_above(pid_t pid, int number, int except, const char *state, char over[MOUNTPOINT_PLACE])
{
    char path[48];
    struct mountinfo mount;
    int parent = -1;

    snprintf(path, sizeof(path), "/proc/%ld/mountinfo", (long)pid);
    FILE *file = fopen(path, "re");
    while (mountinfo_next(file, &mount)) {
        if (mount.id == number)
            parent = mount.parent;
        else if (mount.parent == number && mount.id != except && is_in(state, mount.place) &&
                 strlen(mount.place) < MOUNTPOINT_PLACE)
            strcpy(over, mount.place);
    }
    if (file)
        fclose(file);
    return parent;
}

/* Of the mount of the lock, and of those that it is on. */
static bool find_over(pid_t pid, const char *name, const char *state, char over[MOUNTPOINT_PLACE])
{
    int number = mount_of(pid, name), before = -1;

    over[0] = '\0';
    for (int depth = 0; number >= 0 && !over[0] && depth < MOUNTS_DEEP; depth++) {
        int parent = look_above(pid, number, before, state, over);
        before = number;
        number = parent;
    }
    return over[0];
}

/* @config: as for moved_find(); NULL: as for moved_below(). */
static bool find(pid_t pid, const struct fastspool_config *config, char state[FASTSPOOL_PATH_MAX], char *over)
{
    char path[48], link[sizeof(path) + 24];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        snprintf(link, sizeof(link), "%s/%.20s", path, entry->d_name);
        found =
            read_state(link, state) && (config ? is_moved(pid, config, state)
                                               : is_below(link, state) && find_over(pid, entry->d_name, state, over));
    }
    if (directory)
        closedir(directory);
    if (!found)
        state[0] = '\0';
    return found;
}

bool moved_find(pid_t pid, const struct fastspool_config *config, char state[FASTSPOOL_PATH_MAX])
{
    return find(pid, config, state, NULL);
}

bool moved_below(pid_t pid, char state[FASTSPOOL_PATH_MAX], char over[MOUNTPOINT_PLACE])
{
    over[0] = '\0';
    return find(pid, NULL, state, over);
}

/* SPDX-License-Identifier: MIT
 *
 * The registry: /run/fastspool, a directory of root's.  Each spool has one file, named by a hash of the spool's path.
 *
 * The happy path: a file has the lines of a configuration file (spool, durability, memory, flush_interval, state,
 * runtime).  The configuration's code reads it, and believes it only if root alone can write it.  To find the spool of
 * a path, each directory above the path is looked up in turn.  Where /run/fastspool does not exist this costs one
 * lstat.
 *
 * Failure modes:
 *   - A file that is not root's, or that names another spool than it was looked up by, is ignored.  So where two paths
 *     have one hash, one of the spools may be hidden, but no wrong one is served.
 *   - The directory or a file can't be looked at, for want of descriptors or memory: that is said, and is not "none".
 */
#include "spool/registry.h"

#include "base/places.h"
#include "fastspool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Is there a directory that root alone can write?  1 or 0; -errno: it can't be said. */
static int is_roots(void)
{
    struct stat st;

    if (lstat(PLACES_REGISTRY, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    return S_ISDIR(st.st_mode) && st.st_uid == 0 && !(st.st_mode & 022);
}

int registry_add(const struct fastspool_config *config)
{
    char path[PLACES_PATH_MAX], text[4 * FASTSPOOL_PATH_MAX];

    if (geteuid() != 0)
        return -EPERM;
    if (mkdir(PLACES_REGISTRY, 0755) < 0 && errno != EEXIST)
        return -errno;
    if (is_roots() != 1)
        return -EPERM;
    int length = snprintf(
        text, sizeof(text),
        "spool = %s\ndurability = %s\nmemory = %lluK\nflush_interval = %lluus\nview = %s\n%s%s\n%s%s\n",
        config->spool[0], fastspool_durability_name(config->durability), (unsigned long long)(config->memory >> 10),
        (unsigned long long)(config->flush_interval / 1000), config->view ? "auto" : "off",
        config->state[0] ? "state = " : "#", config->state, config->runtime[0] ? "runtime = " : "#", config->runtime);
    if (length >= (int)sizeof(text))
        return -ENAMETOOLONG;
    places_registered(config->spool[0], strlen(config->spool[0]), path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int result = fchmod(fd, 0644) < 0 || write(fd, text, (size_t)length) != length ? -errno : 0;
    close(fd);
    return result;
}

int registry_remove(const char *spool)
{
    char path[PLACES_PATH_MAX];

    places_registered(spool, strlen(spool), path);
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* Is @entry the file of one spool?  1 or 0; -errno: it can't be said. */
static int load(const char *entry, struct fastspool_config *config)
{
    char error[FASTSPOOL_ERROR_MAX];
    struct stat st;

    if (lstat(entry, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    int result = fastspool_config_load(config, entry, false, error);
    if (result < 0)
        return result == -EINVAL ? 0 : result;
    return config->spools == 1;
}

/* Is it the file of this spool? */
static int is_of(const char *entry, const char *spool, size_t length, struct fastspool_config *config)
{
    int result = load(entry, config);

    return result <= 0 ? result : strlen(config->spool[0]) == length && strncmp(config->spool[0], spool, length) == 0;
}

int registry_read(const char *entry, struct fastspool_config *config)
{
    char own[PLACES_PATH_MAX];
    int result = is_roots();

    if (result > 0)
        result = load(entry, config);
    if (result <= 0)
        return result;
    places_registered(config->spool[0], strlen(config->spool[0]), own);
    return strcmp(own, entry) == 0;
}

int registry_find(const char *path, struct fastspool_config *config)
{
    char entry[PLACES_PATH_MAX];
    int found = is_roots();

    if (found <= 0)
        return found;
    found = 0;
    for (size_t length = strlen(path); length > 1 && found == 0; length--) {
        if (path[length] != '/' && path[length] != '\0')
            continue;
        places_registered(path, length, entry);
        found = is_of(entry, path, length, config);
    }
    return found;
}

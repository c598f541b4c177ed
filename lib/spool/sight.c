/* SPDX-License-Identifier: MIT
 *
 * A command in a sandbox: it has a /run or a /dev/shm of its own, and the store's memory lies in that of the others.
 *
 * The happy path: the record names a directory, and it is there.
 *
 * Failure modes:
 *   - It is there in the mounts of process 1 alone.  No wait helps (claim.c has one, for processes that are about to
 *     end).  The command has to be run there, which is safe to say: of the sentence the mail user can have written the
 *     name of the memory alone.
 *   - It is there for neither: it was removed, or is in a sandbox of Exim's own.  This says nothing, and the wait does.
 *   - Process 1 may not be looked at, as by root in a container: the same.
 */
#include "spool/sight.h"

#include "base/error.h"
#include "base/places.h"
#include "spool/record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST "/proc/1/root" /* the mounts of process 1 */

static bool read_runtime(const char *spool, const struct fastspool_config *config, struct record *record)
{
    char state[PLACES_PATH_MAX];

    int length = snprintf(state, sizeof(state), "%s%s", config->state[0] ? config->state : spool,
                          config->state[0] ? "" : "/" PLACES_STATE);
    int fd = length < (int)sizeof(state) ? open(state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    bool is = fd >= 0 && record_read(fd, record) == 0;
    if (fd >= 0)
        close(fd);
    return is;
}

static bool is_here(const char *runtime)
{
    struct stat st;

    return stat(runtime, &st) == 0 || errno != ENOENT;
}

static bool is_there(const char *runtime)
{
    char path[sizeof(FIRST) + FASTSPOOL_PATH_MAX];
    struct stat st;

    snprintf(path, sizeof(path), FIRST "%s", runtime);
    return stat(path, &st) == 0;
}

int sight_check(const char *spool, const struct fastspool_config *config, char error[FASTSPOOL_ERROR_MAX])
{
    struct record record;

    if (geteuid() != 0 || !read_runtime(spool, config, &record) || is_here(record.runtime) || !is_there(record.runtime))
        return 0;
    return error_set(error, -ENXIO,
                     "%s: the memory of its store, %s, is not to be seen from here, where another file system is "
                     "mounted, but from process 1: run this there, by `nsenter --target 1 --mount -- COMMAND`",
                     spool, record.runtime);
}

/* SPDX-License-Identifier: MIT
 *
 * The memory of a store: the directory RUNTIME/fastspool.ID, and the segment there.  The file `runtime` of the state
 * directory names it.  ID is random, so that no other user can prepare that name.  Where RUNTIME is, runtime.c says.
 *
 * The happy path:
 *   - It is opened: read `runtime`, open the directory without following links, check owner and mode, map the segment.
 *   - It is made, by the process with the claim: an empty segment in state RECOVERING, published by a rename of
 *     `runtime`.
 *
 * Failure modes:
 *   - The record was written in another state directory, of which this one is a copy: -ESTALE.  The copy gets memory of
 *     its own, and the original's stays.
 *   - A sandbox shows the file system of root's read-only: the sentence says what its service needs.
 *   - The file system has less room than `memory`: the store uses what there is, with a line in syslog.
 *   - A view of an earlier store hides the disk: the new segment says so from the start.
 *   - The maker dies before it has published: its directory stays until the machine's end, with a page or two.
 */
#include "spool/memory.h"

#include "base/acl.h"
#include "base/atomic.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"
#include "base/rights.h"
#include "spool/configuration.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "spool/runtime.h"
#include "spool/viewed.h"
#include "store/layout.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <syslog.h>
#include <unistd.h>

/* ---- open ---- */

static int open_runtime(struct fastspool *fs, const struct stat *spool, struct stat *st, char *error)
{
    int fd = open(fs->runtime, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? -ENOENT
                               : error_set(error, -errno, "cannot open %s: %s", fs->runtime, strerrordesc_np(errno));
    fs->runtime_fd = fd_high(fd);
    if (fs->runtime_fd < 0)
        return error_set(error, fs->runtime_fd, "cannot open %s: %s", fs->runtime, strerrordesc_np(-fs->runtime_fd));
    if (fstat(fs->runtime_fd, st) < 0 || (st->st_uid != spool->st_uid && st->st_uid != 0) ||
        !acl_alone(fs->runtime_fd, st))
        return error_set(error, -EPERM, "%s must be the spool owner's or root's, and accessible to that user alone",
                         fs->runtime);
    return 0;
}

void memory_close(struct fastspool *fs)
{
    segment_close(fs);
    if (fs->runtime_fd >= 0)
        close(fs->runtime_fd);
    fs->runtime_fd = -1;
}

/* What lets a process into memory that it sees read-only: by its sandbox, or by a mount that all see. */
static const char *remedy(const struct fastspool *fs)
{
    return runtime_is_own(fs->runtime) ? ": a service needs ReadWritePaths=" PLACES_REGISTRY
                                         "; outside of one, as root, run `mount -o "
                                         "remount,rw " PLACES_TMPFS "`"
                                       : "";
}

int memory_open(struct fastspool *fs, int state_fd, const struct stat *spool, struct record *record, char *error)
{
    char reason[FASTSPOOL_ERROR_MAX] = "";
    struct stat runtime;
    int result = record_read(state_fd, record);

    if (result < 0 && result != -ENOENT)
        error_set(error, result, "cannot read %s/" PLACES_RUNTIME ", which says where the store's memory is: %s",
                  fs->state, strerrordesc_np(-result));
    if (result == 0)
        result = presence_identity(fs->presence_fd, fs->state, record->held, error);
    if (result == 0 && presence_is_uncertain(record->identity, record->held))
        result = error_set(error, -ENOSYS,
                           "%s: it can't be told which state %s is, as statx(2) does not say when it was made: let the "
                           "filter of system calls, of a container or service, allow that call",
                           fs->spool, fs->state);
    if (result == 0 && record->identity[0] && strcmp(record->identity, record->held) != 0)
        result = -ESTALE;
    if (result == 0) {
        strcpy(fs->runtime, record->runtime);
        result = open_runtime(fs, spool, &runtime, error);
    }
    if (result == 0) {
        result = segment_open(fs, spool, &runtime, reason);
        if (result < 0)
            error_set(error, result, "%.200s: %.250s%s", fs->spool, reason, result == -EROFS ? remedy(fs) : "");
    }
    if (result < 0)
        memory_close(fs);
    return result;
}

int memory_check(uint64_t memory, char *error)
{
    if (memory >= CONFIGURATION_MEMORY_LEAST)
        return 0;
    return error_set(error, -ENOSPC, "`memory` is %llu KiB, but a store needs at least 4 MiB",
                     (unsigned long long)(memory >> 10));
}

uint64_t memory_wanted(const struct fastspool *fs)
{
    uint64_t memory = configuration_memory(fs->memory);
    struct statvfs st;

    if (fstatvfs(fs->runtime_fd, &st) < 0)
        return memory;
    uint64_t size = (uint64_t)st.f_blocks * st.f_frsize;
    if (size == 0 || memory <= size) /* the first: without a limit */
        return memory;
    return size < CONFIGURATION_MEMORY_LEAST ? 0 : size;
}

/* ---- make ---- */

void memory_remove(const char *runtime)
{
    int fd = open(runtime, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return;
    unlinkat(fd, PLACES_SEGMENT, 0);
    unlinkat(fd, PLACES_LOCKS, 0);
    for (unsigned i = 0; i < PLACEHOLDERS; i++) {
        char name[PLACES_NAME_MAX];
        places_placeholder(i, name);
        unlinkat(fd, name, AT_REMOVEDIR);
    }
    close(fd);
    rmdir(runtime);
}

void memory_discard(const struct fastspool *fs)
{
    struct rights rights = rights_of_owner(fs->owner, fs->group);

    memory_remove(fs->runtime);
    rights_back(rights);
}

static int make_runtime(struct fastspool *fs, const char *base, const struct stat *spool, struct stat *made,
                        char *error)
{
    uint64_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return error_set(error, -errno, "cannot get a random number: %s", strerrordesc_np(errno));
    if (places_runtime(base, id, fs->runtime, sizeof(fs->runtime)) < 0)
        return error_set(error, -ENAMETOOLONG, "the path %s is too long; configure a shorter `runtime`", base);
    if (mkdir(fs->runtime, 0700) < 0)
        return error_set(error, -errno, "cannot create %s: %s", fs->runtime, strerrordesc_np(errno));
    return open_runtime(fs, spool, made, error);
}

int memory_describe(const struct fastspool *fs, const struct stat *spool, struct record *record, char *error)
{
    strcpy(record->runtime, fs->runtime);
    record_spool(record, spool, fs->spool);
    return presence_identity(fs->presence_fd, fs->state, record->identity, error);
}

int memory_publish(const struct fastspool *fs, int state_fd, const struct record *record, char *error)
{
    int result = record_write(state_fd, record);

    return result == 0 ? 0
                       : error_set(error, result, "cannot write %s/" PLACES_RUNTIME ": %s", fs->state,
                                   strerrordesc_np(-result));
}

/* Make an empty segment in a fresh directory in @base. */
static int make_segment(struct fastspool *fs, const struct fastspool_config *config, const char *base,
                        const struct stat *spool, char *error)
{
    struct fastspool_config own = *config;
    char reason[FASTSPOOL_ERROR_MAX];
    struct stat runtime;
    int result = make_runtime(fs, base, spool, &runtime, error);

    fs->memory = config->memory;
    if (result == 0)
        own.memory = fs->memory = memory_wanted(fs);
    if (result == 0 && own.memory == 0)
        result =
            error_set(error, -ENOSPC, "the file system of %s has less than the 4 MiB that a store needs", fs->runtime);
    if (result == 0 && (result = segment_create(fs->runtime_fd, fs->spool_fd, &own, reason)) < 0)
        error_set(error, result, "%.200s, where the store's memory is to be: %.300s", base, reason);
    if (result == 0)
        result = segment_open(fs, spool, &runtime, error);
    if (result < 0) {
        memory_close(fs);
        memory_remove(fs->runtime);
    }
    return result;
}

int memory_is_viewed(const struct fastspool *fs, char *error)
{
    int result = viewed(fs->spool);

    if (result == -ENOSYS)
        return 0;
    return result >= 0 ? result
                       : error_set(error, result, "%s: can't look whether it has a view: %s", fs->spool,
                                   strerrordesc_np(-result));
}

/* In the configured directory, else in the file system of root's, else in /dev/shm. */
static int make_anywhere(struct fastspool *fs, const struct fastspool_config *config, const struct stat *spool,
                         char *error)
{
    char own[FASTSPOOL_PATH_MAX];

    if (config->runtime[0])
        return make_segment(fs, config, config->runtime, spool, error);
    runtime_prepare(fs->spool, spool, config->memory);
    if (runtime_own(fs->spool, spool, own) && make_segment(fs, config, own, spool, error) == 0)
        return 0;
    return make_segment(fs, config, PLACES_MEMORY, spool, error);
}

int memory_make(struct fastspool *fs, const struct fastspool_config *config, int state_fd, const struct stat *spool,
                const struct record *before, char *error)
{
    struct fastspool_config own = *config;
    struct record record;
    int is_viewed = memory_is_viewed(fs, error);

    own.memory = configuration_memory(config->memory);
    int result = is_viewed < 0 ? is_viewed : memory_check(own.memory, error);
    if (result == 0)
        result = make_anywhere(fs, &own, spool, error);
    if (result < 0)
        return result;
    if (fs->memory < own.memory)
        syslog(LOG_MAIL | LOG_WARNING,
               "fastspool: %s: `memory` is %llu MiB, but the runtime directory's file system has only %llu MiB: the "
               "store uses those",
               fs->spool, (unsigned long long)(own.memory >> 20), (unsigned long long)(fs->memory >> 20));
    if (is_viewed)
        STORE(fs->header->view.status, VIEW_MOUNTED);
    result = memory_describe(fs, spool, &record, error);
    if (result == 0)
        result = memory_publish(fs, state_fd, &record, error);
    if (result < 0) {
        memory_close(fs);
        memory_remove(fs->runtime);
    } else if (before->runtime[0] && (!before->identity[0] || strcmp(before->identity, record.identity) == 0)) {
        memory_remove(before->runtime); /* a copy's record names another store's memory: that stays */
    }
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * Attaching: a process finds the store of a spool, creates it if there is none, and starts its mirror.
 *
 * The spool has a state directory on the disk (SPOOL/.fastspool, 0700, the owner's; base/places.h).  Its file `runtime`
 * names the directory of the store's memory, RUNTIME/fastspool.ID.  ID is random, so that no other user can prepare
 * that name.  Where RUNTIME is, runtime.c says.
 * Trusted users have rights of their own there (trust.c), and need a store that root or the owner has made.
 *
 * The happy path:
 *   - Somebody lives, as the lock of STATE/lock says (presence.c): read `runtime`, open the directory without following
 *     links, check owner and mode, map the segment: it is READY.  Join those who live.
 *   - Nobody lives: one process claims the store.  What the dead have left in memory it takes over.  After a reboot
 *     there is nothing: it creates an empty segment in state RECOVERING, and publishes it by rename.  The mirror fills
 *     it from the database and sets READY; every attaching process waits for that.
 *
 * Failure modes:
 *   - Each is a sentence in @error.
 *   - A damaged database or segment is FAILED, and stays so until an operator acts.  Nothing on the disk changes.
 *   - The mirror dies during recovery: a waiting process starts another.
 *   - Somebody lives, and this process can't see the memory (a /dev/shm of its own), or lives in another PID namespace:
 *     it is refused, and nothing is removed or replaced.
 *   - Nobody but a mirror lives, and this process can't reach its memory: the mirror ends (presence_wait()).
 *   - The state directory is a copy: its record is another's.  The copy gets memory of its own.
 *   - The maker dies before it has published: its directory stays until the machine's end, with a page or two.
 */
#include "spool/attach.h"

#include "base/acl.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/rights.h"
#include "config.h"
#include "fastspool.h"
#include "spool/launch.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "spool/runtime.h"
#include "spool/trust.h"
#include "spool/viewed.h"
#include "store/await.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/locks.h"
#include "store/release.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define BAR              40               /* characters of a progress bar */
#define LOOK             (10 * NS_PER_MS) /* between two looks at those who live */
#define RELEASE_PATIENCE (60 * NS_PER_S)  /* for a mirror after its last checkpoint */
#define PATIENCE         (4 * NS_PER_S)   /* with them: a mirror looks at its store once a second */

/* ---- the spool and its state directory ---- */

static int open_spool(struct fastspool *fs, const char *spool, struct stat *st, char *error)
{
    int fd = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    fs->spool_fd = fd_high(fd);
    if (fs->spool_fd < 0 || fstat(fs->spool_fd, st) < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    int result = fd_path(fs->spool_fd, spool, fs->spool, sizeof(fs->spool));
    if (result == -ENAMETOOLONG)
        return error_set(error, result, "the real path of the spool %s is longer than %d bytes", spool,
                         FASTSPOOL_PATH_MAX - 2);
    return result == 0 ? 0
                       : error_set(error, result, "cannot find the real path of the spool %s: %s", spool,
                                   strerrordesc_np(-result));
}

/* Does the process belong to root or the owner? */
static bool is_owners(const struct stat *spool)
{
    return geteuid() == 0 || geteuid() == spool->st_uid;
}

static bool is_trusted(const struct fastspool_config *config, const struct stat *spool, uid_t uid)
{
    bool trusted = uid == 0 || uid == spool->st_uid;

    for (size_t i = 0; i < config->trusted_users && !trusted; i++)
        trusted = config->trusted_user[i] == uid;
    return trusted;
}

static int check_user(const struct fastspool_config *config, const struct fastspool *fs, const struct stat *spool,
                      char *error)
{
    uid_t uid = geteuid();

    if (is_trusted(config, spool, uid))
        uid = getuid(); /* it may stop this process */
    if (is_trusted(config, spool, uid))
        return 0;
    return error_set(error, -EACCES, "the spool %s belongs to user %u, and user %u is not a `trusted_user`", fs->spool,
                     (unsigned)spool->st_uid, (unsigned)uid);
}

/* Open the state directory.  @create: create it if it is missing. */
static int open_state(struct fastspool *fs, const struct fastspool_config *config, const struct stat *spool,
                      bool create, char *error)
{
    struct stat st;

    if (snprintf(fs->state, sizeof(fs->state), config->state[0] ? "%s" : "%s/" PLACES_STATE,
                 config->state[0] ? config->state : fs->spool) >= (int)sizeof(fs->state))
        return error_set(error, -ENAMETOOLONG, "the path of the state directory of %s is too long; configure `state`",
                         fs->spool);
    if (create && mkdir(fs->state, 0700) < 0 && errno != EEXIST)
        return error_set(error, -errno, "cannot create the state directory %s: %s", fs->state, strerrordesc_np(errno));
    int fd = open(fs->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == EACCES && !is_owners(spool))
        return error_set(error, -EACCES,
                         "cannot open the state directory %s: a trusted user has rights there from the next use of the "
                         "store by root "
                         "or the owner on, if its file system has access control lists",
                         fs->state);
    if (fd < 0)
        return error_set(error, -errno, "cannot open the state directory %s: %s", fs->state, strerrordesc_np(errno));
    if (fstat(fd, &st) < 0 || (st.st_uid != spool->st_uid && st.st_uid != 0) || (st.st_mode & 022)) {
        close(fd);
        return error_set(error, -EPERM,
                         "the state directory %s must be the spool owner's or root's, and writable by that user alone",
                         fs->state);
    }
    return fd;
}

/* ---- the runtime directory ---- */

static int open_runtime(struct fastspool *fs, const struct stat *spool, char *error)
{
    struct stat st;
    int fd = open(fs->runtime, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? -ENOENT
                               : error_set(error, -errno, "cannot open %s: %s", fs->runtime, strerrordesc_np(errno));
    fs->runtime_fd = fd_high(fd);
    if (fs->runtime_fd < 0)
        return error_set(error, fs->runtime_fd, "cannot open %s: %s", fs->runtime, strerrordesc_np(-fs->runtime_fd));
    if (fstat(fs->runtime_fd, &st) < 0 || (st.st_uid != spool->st_uid && st.st_uid != 0) ||
        !acl_alone(fs->runtime_fd, &st))
        return error_set(error, -EPERM, "%s must be the spool owner's or root's, and accessible to that user alone",
                         fs->runtime);
    return 0;
}

static void close_runtime(struct fastspool *fs)
{
    segment_close(fs);
    if (fs->runtime_fd >= 0)
        close(fs->runtime_fd);
    fs->runtime_fd = -1;
}

/* What lets a process into memory that its sandbox shows read-only. */
static const char *remedy(const struct fastspool *fs)
{
    return runtime_is_own(fs->runtime)
               ? ": the service that this process belongs to needs ReadWritePaths=" PLACES_REGISTRY
               : "";
}

/* Open the published store.  -ENOENT: its memory is not to be seen from here.  -ESTALE: the record was written in
 * another state directory, of which this one is a copy. */
static int open_store(struct fastspool *fs, int state_fd, const struct stat *spool, struct record *record, char *error)
{
    char reason[FASTSPOOL_ERROR_MAX] = "", identity[PRESENCE_IDENTITY_MAX];
    int result = record_read(state_fd, record);

    if (result < 0 && result != -ENOENT)
        error_set(error, result, "cannot read %s/" PLACES_RUNTIME ", which says where the store's memory is: %s",
                  fs->state, strerrordesc_np(-result));
    if (result == 0)
        result = presence_identity(fs->presence_fd, identity);
    if (result == 0 && record->identity[0] && strcmp(record->identity, identity) != 0)
        result = -ESTALE;
    if (result == 0) {
        strcpy(fs->runtime, record->runtime);
        if (runtime_is_own(fs->runtime))
            runtime_make_writable();
        result = open_runtime(fs, spool, error);
    }
    if (result == 0) {
        result = segment_open(fs, reason);
        if (result < 0)
            error_set(error, result, "%.200s: %.250s%s", fs->spool, reason, result == -EROFS ? remedy(fs) : "");
    }
    if (result < 0)
        close_runtime(fs);
    return result;
}

/* Remove a runtime directory that is of no use any more: one that can't be used, or a half-made one. */
static void remove_runtime(const char *runtime)
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

static int check_memory(const struct fastspool_config *config, char *error)
{
    if (config->memory >= 4 * CHUNK_SIZE)
        return 0;
    return error_set(error, -ENOSPC, "`memory` is %llu KiB, but a store needs at least 4 MiB",
                     (unsigned long long)(config->memory >> 10));
}

/* The store's memory: the configured `memory`, but no more than the runtime directory's file system has. */
static int find_capacity(struct fastspool *fs, const struct fastspool_config *config, char *error)
{
    struct statvfs st;

    fs->memory = config->memory;
    if (fstatvfs(fs->runtime_fd, &st) < 0)
        return error_set(error, -errno, "cannot find the size of %s: %s", fs->runtime, strerrordesc_np(errno));
    uint64_t size = (uint64_t)st.f_blocks * st.f_frsize;
    if (size == 0 || fs->memory <= size)
        return 0;
    if (size < 4 * CHUNK_SIZE)
        return error_set(error, -ENOSPC, "the file system of %s has %llu KiB, but a store needs at least 4 MiB",
                         fs->runtime, (unsigned long long)(size >> 10));
    fs->memory = size;
    return 0;
}

static int make_runtime(struct fastspool *fs, const char *base, const struct stat *spool, char *error)
{
    uint64_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return error_set(error, -errno, "cannot get a random number: %s", strerrordesc_np(errno));
    if (places_runtime(base, id, fs->runtime, sizeof(fs->runtime)) < 0)
        return error_set(error, -ENAMETOOLONG, "the path %s is too long; configure a shorter `runtime`", base);
    if (mkdir(fs->runtime, 0700) < 0)
        return error_set(error, -errno, "cannot create %s: %s", fs->runtime, strerrordesc_np(errno));
    return open_runtime(fs, spool, error);
}

/* What `runtime` is to say of the store that this process has open. */
static int describe(const struct fastspool *fs, const struct stat *spool, struct record *record)
{
    strcpy(record->runtime, fs->runtime);
    record_spool(record, spool, fs->spool);
    return presence_identity(fs->presence_fd, record->identity);
}

static int publish(const struct fastspool *fs, int state_fd, const struct record *record, char *error)
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
    int result = make_runtime(fs, base, spool, error);

    if (result == 0)
        result = find_capacity(fs, config, error);
    own.memory = fs->memory;
    if (result == 0)
        result = segment_create(fs->runtime_fd, fs->spool_fd, &own, error);
    if (result == 0)
        result = segment_open(fs, error);
    if (result < 0) {
        close_runtime(fs);
        remove_runtime(fs->runtime);
    }
    return result;
}

/* Does a view of an earlier store hide the disk's directory?  1 or 0; -errno: it can't be said.  Without /proc a view
 * can't be told from another mount, and counts as none. */
static int look_for_view(const struct fastspool *fs, char *error)
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
    runtime_make_writable();
    if (runtime_own(fs->spool, spool, own) && make_segment(fs, config, own, spool, error) == 0)
        return 0;
    return make_segment(fs, config, PLACES_MEMORY, spool, error);
}

/* With the claim: create an empty store in state RECOVERING, and publish it.  @before: of an earlier store. */
static int make_store(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                      const struct stat *spool, const struct record *before, char *error)
{
    struct record record;
    int is_viewed = look_for_view(fs, error);
    int result = is_viewed < 0 ? is_viewed : make_anywhere(fs, config, spool, error);

    if (result < 0)
        return result;
    if (fs->memory < config->memory)
        syslog(LOG_MAIL | LOG_WARNING,
               "fastspool: %s: `memory` is %llu MiB, but the runtime directory's file system has only %llu MiB: the "
               "store uses those",
               fs->spool, (unsigned long long)(config->memory >> 20), (unsigned long long)(fs->memory >> 20));
    if (is_viewed)
        STORE(fs->header->view.status, VIEW_MOUNTED);
    result = describe(fs, spool, &record);
    if (result == 0)
        result = publish(fs, state_fd, &record, error);
    if (result < 0) {
        close_runtime(fs);
        remove_runtime(fs->runtime);
    } else if (before->runtime[0] && (!before->identity[0] || strcmp(before->identity, record.identity) == 0)) {
        remove_runtime(before->runtime); /* a copy's record names another store's memory: that stays */
    }
    return result;
}

/* All signals are held off while the preloaded library attaches. */
static int terminated(const struct fastspool *fs, char *error)
{
    return error_set(error, -EINTR, "%s: a signal has ended the wait for its store", fs->spool);
}

/* ---- whose store it is ---- */

static bool is_unusable(int result)
{
    return result == -ENOENT || result == -ESTALE || result == -EXDEV || result == -EADDRINUSE;
}

/* Join those who live: they keep the store from being removed or replaced.  -EAGAIN: it has just been replaced. */
static int join(struct fastspool *fs, int state_fd, const struct stat *spool, struct record *record, char *error)
{
    struct record now;
    int result = open_store(fs, state_fd, spool, record, error);

    if (result == 0 && !segment_is_within_reach(fs))
        result = -EXDEV;
    if (result == 0 && !record_is_of(record, spool, fs->spool))
        result = -EADDRINUSE;
    if (result == 0)
        result = presence_announce(fs->presence_fd);
    if (result == 0 && (record_read(state_fd, &now) < 0 || strcmp(now.runtime, record->runtime) != 0 ||
                        !presence_is_valid(fs->presence_fd, state_fd)))
        result = -EAGAIN;
    if (result < 0) {
        presence_withdraw(fs->presence_fd);
        close_runtime(fs);
    }
    return result;
}

/* With the claim: has the disk all of the segment in @runtime, which is another version's? */
static bool is_written(const char *runtime, const struct stat *spool)
{
    struct release release;
    char error[FASTSPOOL_ERROR_MAX];

    if (release_open(runtime, spool, &release, error) < 0)
        return false;
    bool written = LOAD(*release.unwritten) == 0;
    release_close(&release);
    return written;
}

/* With the claim: the store of the dead, or a new one. */
static int take_over(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                     const struct stat *spool, bool create, char *error)
{
    struct record record;
    int result = open_store(fs, state_fd, spool, &record, error);

    if (result == -EPROTO && create && is_written(fs->runtime, spool))
        result = -ENOENT; /* another version's, which the disk has: recover it from there */
    if (result == 0 && !segment_is_memory(fs) && create) {
        close_runtime(fs); /* a disk's file may be older than the machine's start, and half written */
        result = -ENOENT;
    }
    int is_viewed = result == 0 ? look_for_view(fs, error) : 0;
    if (is_viewed < 0)
        result = is_viewed;
    if (result == 0)
        segment_inherit(fs, is_viewed > 0);
    if (result == 0 && !record_spool(&record, spool, fs->spool) && describe(fs, spool, &record) == 0)
        result = publish(fs, state_fd, &record, error);
    if ((result == -ENOENT || result == -ESTALE) && create)
        result = make_store(fs, config, state_fd, spool, &record, error);
    if (result == 0)
        result = presence_announce(fs->presence_fd);
    if (result < 0) {
        presence_withdraw(fs->presence_fd);
        close_runtime(fs);
    }
    return result;
}

/* Those who live use what this process can't. */
static int refuse(const struct fastspool *fs, int result, const struct record *record, char *error)
{
    switch (result) {
    case -EAGAIN:
        return error_set(error, -EBUSY, "%s: another process has been making the store for %d s", fs->spool,
                         (int)(PATIENCE / NS_PER_S));
    case -EXDEV:
        return error_set(error, -EXDEV,
                         "%s: its store is in use in another PID namespace: all processes of a spool must live in one",
                         fs->spool);
    case -EADDRINUSE:
        return error_set(error, -EBUSY, "%s: the state directory %s is in use for another spool, %s", fs->spool,
                         fs->state, record->spool);
    case -ESTALE:
        return error_set(error, -EBUSY,
                         "%s: %s was replaced while the store was in use: end all processes that use the spool",
                         fs->spool, fs->state);
    default:
        return error_set(
            error, -EBUSY,
            "%s: its store is in use, but its memory, %s, can't be seen from here: it was removed, or this "
            "process has another file system there",
            fs->spool, record->runtime[0] ? record->runtime : "of which there is no record");
    }
}

/* Nobody lives, and this process can't take over: it is a trusted user's, or the disk is read-only. */
static int join_the_dead(struct fastspool *fs, int state_fd, const struct stat *spool, bool create, char *error)
{
    struct record record;
    int result = join(fs, state_fd, spool, &record, error);

    if (!is_unusable(result))
        return result;
    return create ? error_set(error, -EROFS, "%s: a store can't be made: %s/" PLACES_LOCK " can't be written",
                              fs->spool, fs->state)
                  : -ENOENT;
}

/* Those who live may be about to end: their service was stopped, or their memory is gone and the mirror has not looked
 * yet.  So a refusal takes some seconds. */
static int find_store(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                      const struct stat *spool, bool create, char *error)
{
    struct record record = {0};
    uint64_t since = clock_monotonic();
    int result;

    do {
        if (presence_of_others(fs->presence_fd) == PRESENCE_NONE) {
            result = presence_claim(fs->presence_fd);
            if (result == 0 && presence_is_valid(fs->presence_fd, state_fd))
                return take_over(fs, config, state_fd, spool, create, error);
            if (result == 0)
                return error_set(error, -EBUSY, "%s: %s was replaced meanwhile", fs->spool, fs->state);
            if (result != -EAGAIN)
                result = join_the_dead(fs, state_fd, spool, create, error);
            if (result != -EAGAIN)
                return result;
        } else {
            result = join(fs, state_fd, spool, &record, error);
            if (result != -EAGAIN && !is_unusable(result))
                return result;
        }
        presence_wait(fs->presence_fd); /* ends with the next announcement, or with the descriptor */
        clock_sleep(LOOK);
        if (await_terminated())
            return terminated(fs, error);
    } while (clock_monotonic() - since < PATIENCE);
    return refuse(fs, result, &record, error);
}

static int open_or_make(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                        const struct stat *spool, bool create, char *error)
{
    fs->presence_fd = presence_open(state_fd, create);
    if (fs->presence_fd == -ENOENT)
        return -ENOENT;
    if (fs->presence_fd < 0)
        return error_set(error, fs->presence_fd, "cannot open %s/" PLACES_LOCK ": %s", fs->state,
                         strerrordesc_np(-fs->presence_fd));
    return find_store(fs, config, state_fd, spool, create, error);
}

/* ---- opening ---- */

/* Root and the owner give trusted users their rights.  A trusted user's process checks that no other user has any. */
static int settle_trust(const struct fastspool *fs, const struct fastspool_config *config, int state_fd, bool owners,
                        char *error)
{
    if (!owners)
        return acl_names_only(fs->segment_fd, config->trusted_user, config->trusted_users)
                   ? 0
                   : error_set(
                         error, -EPERM,
                         "%s: its store lets in a user that is not trusted any more, until root or the owner uses it",
                         fs->spool);
    int result = trust_settle(fs, config, state_fd);
    if (result < 0)
        syslog(LOG_MAIL | LOG_WARNING,
               "fastspool: %s: trusted users can't be given access: set access control lists in %s and %s: %s",
               fs->spool, fs->state, fs->runtime, strerrordesc_np(-result));
    return 0;
}

/* How much memory the store may take, for the mirrors that this process starts.  Root has room made for a larger
 * `memory`. */
static int settle_memory(struct fastspool *fs, const struct fastspool_config *config, const struct stat *spool,
                         bool create, char *error)
{
    if (create && runtime_lacks(fs->spool, fs->runtime, config->memory))
        runtime_prepare(fs->spool, spool, config->memory);
    return find_capacity(fs, config, error);
}

static int attach(const char *spool, const struct fastspool_config *config, bool create, struct fastspool **out,
                  char *error)
{
    struct stat st;
    struct fastspool *fs = mmap(NULL, sizeof(*fs), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (fs == MAP_FAILED)
        return error_set(error, -ENOMEM, "out of memory while attaching %s", spool);
    fs->spool_fd = fs->runtime_fd = fs->segment_fd = fs->locks_fd = fs->presence_fd = -1;
    fs->durability = config->durability;
    fs->keeper = &launch_keeper;
    int result = open_spool(fs, spool, &st, error);
    if (result == 0)
        result = check_user(config, fs, &st, error);
    bool sizes = create || config->memory;
    if (result == 0 && sizes)
        result = check_memory(config, error);
    struct rights rights = {0};
    bool owners = result == 0 && is_owners(&st);
    bool settles = create; /* the mirror and the command need not know the trusted users */
    create = create && owners;
    if (result == 0)
        rights = rights_of_owner(st.st_uid, st.st_gid);
    int state_fd = result == 0 ? open_state(fs, config, &st, create, error) : result;
    if (state_fd >= 0) {
        result = open_or_make(fs, config, state_fd, &st, create, error);
        if (result == 0 && sizes)
            result = settle_memory(fs, config, &st, create, error);
        if (result == 0 && (settles || !owners))
            result = settle_trust(fs, config, state_fd, owners, error);
        close(state_fd);
    } else {
        result = state_fd;
    }
    rights_back(rights);
    if (result < 0) {
        bool is_there = fs->spool_fd >= 0;
        fastspool_detach(fs);
        if (is_there && !create && (result == -ENOENT || result == -ESTALE))
            return error_set(error, -ENOENT,
                             "%s has no store: no process has used it since the machine started, or since the last "
                             "`fastspool stop`",
                             spool);
        return result;
    }
    *out = fs;
    return 0;
}

int attach_open(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                char error[FASTSPOOL_ERROR_MAX])
{
    return attach(spool, config, false, out, error);
}

int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX])
{
    return attach(spool, config, true, out, error);
}

/* The state directory is not at its path, or is another one. */
static enum attach_loss lost_state(const struct fastspool *fs, char *error)
{
    struct stat st;

    if (fstat(fs->presence_fd, &st) < 0 || st.st_nlink > 0) {
        error_set(error, 0, "the state directory %s was moved", fs->state);
        return ATTACH_MOVED;
    }
    error_set(error, 0,
              "the state directory %s was removed or replaced while the store was in use: mail is refused "
              "until all processes that use the spool have ended",
              fs->state);
    return ATTACH_STATE;
}

static enum attach_loss look_in_state(const struct fastspool *fs, int state_fd, char *error)
{
    struct record record;
    struct stat st;

    if (!presence_is_valid(fs->presence_fd, state_fd))
        return lost_state(fs, error);
    int result = record_read(state_fd, &record);
    if (result == -ENOENT || (result == 0 && strcmp(record.runtime, fs->runtime) != 0) ||
        (fstat(fs->segment_fd, &st) == 0 && st.st_nlink == 0)) {
        error_set(error, 0,
                  "the memory %s, or the record of it in %s, was removed while the store was in use: mail is "
                  "refused until all processes that use the spool have ended",
                  fs->runtime, fs->state);
        return ATTACH_MEMORY;
    }
    if (stat(fs->spool, &st) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        error_set(error, 0, "the spool is gone");
        return ATTACH_SPOOL;
    }
    return ATTACH_NOTHING;
}

enum attach_loss attach_look(const struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX])
{
    int state_fd = open(fs->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (state_fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? lost_state(fs, error) : ATTACH_NOTHING;
    enum attach_loss loss = look_in_state(fs, state_fd, error);
    close(state_fd);
    return loss;
}

bool attach_is_in_the_way(const struct fastspool *fs)
{
    return presence_is_awaited(fs->presence_fd) && presence_claim(fs->presence_fd) == 0;
}

void attach_discard(const struct fastspool *fs)
{
    remove_runtime(fs->runtime);
}

/* RELEASE_DONE: it has ended. */
static enum attach_release end_other_mirror(const char *state, const struct release *release)
{
    for (uint64_t start = clock_monotonic(); launch_mirror_lives(state); clock_sleep(LOOK)) {
        STORE(*release->ending, 1);
        futex_count(release->wanted);
        if (clock_monotonic() - start > RELEASE_PATIENCE)
            return RELEASE_MIRROR;
    }
    return RELEASE_DONE;
}

enum attach_release attach_release(const char *state, const struct stat *spool, uint32_t *version,
                                   char error[FASTSPOOL_ERROR_MAX])
{
    struct rights rights = rights_of_owner(spool->st_uid, spool->st_gid);
    int state_fd = open(state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    enum attach_release found = RELEASE_FAILED;
    struct release release;
    struct record record;

    int result = state_fd < 0 ? -errno : record_read(state_fd, &record);
    if (result < 0)
        error_set(error, result, "read %s/" PLACES_RUNTIME ": %s", state, strerrordesc_np(-result));
    else
        result = release_open(record.runtime, spool, &release, error);
    int lock = result == 0 ? presence_open(state_fd, false) : -1;
    if (result == 0)
        found = end_other_mirror(state, &release);
    if (found == RELEASE_DONE && (lock < 0 || presence_claim(lock) < 0))
        found = RELEASE_IN_USE;
    if (found == RELEASE_DONE && LOAD(*release.unwritten) > 0)
        found = RELEASE_UNWRITTEN;
    if (found == RELEASE_DONE)
        remove_runtime(record.runtime);
    if (result == 0) {
        *version = release.version;
        release_close(&release);
    }
    if (lock >= 0)
        close(lock);
    if (state_fd >= 0)
        close(state_fd);
    rights_back(rights);
    return found;
}

/* On a terminal, show the progress of a recovery that takes more than a second. */
static void show_progress(const struct fastspool *fs, uint64_t since, bool ended)
{
    uint64_t done = LOAD(fs->header->recovery.done), total = LOAD(fs->header->recovery.total);
    unsigned filled = total ? (unsigned)(done * BAR / total) : 0;
    char bar[BAR + 1];

    if (clock_monotonic() - since < NS_PER_S || !isatty(STDERR_FILENO))
        return;
    for (unsigned i = 0; i < BAR; i++)
        bar[i] = i < filled || ended ? '#' : '.';
    bar[BAR] = '\0';
    dprintf(STDERR_FILENO, "\rfastspool: recovering %s [%s]%s", fs->spool, bar, ended ? "\n" : "");
}

static int wait_ready(struct fastspool *fs, char *error)
{
    const struct header *h = fs->header;
    uint64_t started = clock_monotonic(), lived = started; /* when a mirror was last seen */
    char sentence[SECTION_SENTENCE];
    bool waited = false;

    for (;;) {
        uint32_t state = LOAD(h->state);
        if (waited)
            show_progress(fs, started, state != SEGMENT_RECOVERING);
        if (state == SEGMENT_FAILED && LOAD(h->recovery.too_small) && fs->memory > LOAD(h->memory_limit)) {
            segment_limit(h, fs->memory);
            __atomic_compare_exchange_n(&ATOMIC(h->state), &state, SEGMENT_RECOVERING, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE);
            continue;
        }
        if (state == SEGMENT_READY)
            return launch_lives(fs) > 0 ? 0 : launch_start(fs);
        if (state != SEGMENT_RECOVERING)
            return error_set(error, -EIO, "%s: %s", fs->spool, section_sentence(h, sentence));
        if (LOAD(h->recovery.error) && clock_monotonic() - started > AWAIT_GIVE_UP)
            return error_set(error, LOAD(h->recovery.error), "%s: %s", fs->spool, section_sentence(h, sentence));
        int lives = launch_lives(fs);
        if (lives != 0)
            lived = clock_monotonic();
        else if (clock_monotonic() - lived > AWAIT_GIVE_UP)
            return error_set(error, -EIO, "%s: the mirror does not start; check that %s can be executed", fs->spool,
                             FASTSPOOL_TOOL);
        if (lives <= 0)
            launch_start(fs);
        if (await_terminated())
            return terminated(fs, error);
        futex_wait(&h->state, state, AWAIT_LOOK);
        waited = true;
    }
}

int fastspool_attach(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                     char error[FASTSPOOL_ERROR_MAX])
{
    struct fastspool *fs;
    int saved = errno;
    int result = attach_create(spool, config, &fs, error);

    if (result < 0)
        return result;
    result = wait_ready(fs, error);
    if (result < 0) {
        fastspool_detach(fs);
    } else {
        *out = fs;
        if (config->view)
            launch_view(fs);
    }
    errno = saved;
    return result;
}

void fastspool_detach(struct fastspool *fs)
{
    if (fs->base)
        descriptions_pool_close(fs);
    close_runtime(fs);
    if (fs->presence_fd >= 0)
        close(fs->presence_fd);
    if (fs->spool_fd >= 0)
        close(fs->spool_fd);
    munmap(fs, sizeof(*fs));
}

void fastspool_after_fork_child(struct fastspool *fs)
{
    descriptions_after_fork_child(fs);
    locks_after_fork_child();
}

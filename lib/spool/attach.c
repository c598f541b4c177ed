/* SPDX-License-Identifier: MIT
 *
 * Attaching: a process finds the store of a spool, creates it if there is none, and starts its mirror.
 *
 * The spool has a state directory on the disk (SPOOL/.fastspool, 0700, the owner's; base/places.h).  Its file `runtime`
 * names the directory of the store's memory, RUNTIME/fastspool.ID.  ID is random, so that no other user can prepare
 * that name.
 * Trusted users have rights of their own there (trust.c), and need a store that root or the owner has made.
 *
 * The happy path:
 *   - Read `runtime`, open the directory without following links, check owner and mode, map the segment: it is READY.
 *   - After a reboot the segment is gone, or is another boot's.  Under `lock` one process creates an empty segment in
 *     state RECOVERING, and publishes it by rename.  The mirror fills it from the database and sets READY; every
 *     attaching process waits for that.
 *
 * Failure modes:
 *   - Each is a sentence in @error.
 *   - A damaged database or segment is FAILED, and stays so until an operator acts.  Nothing on the disk changes.
 *   - The mirror dies during recovery: a waiting process starts another.
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
#include "spool/trust.h"
#include "spool/viewed.h"
#include "store/await.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/locks.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define BAR   40 /* characters of a progress bar */
#define LOOKS 50 /* at the mirror's lock, 10 ms apart, before its holder counts as a mirror that stays */

/* ---- the spool and its state directory ---- */

static int open_spool(struct fastspool *fs, const char *spool, struct stat *st, char *error)
{
    char link[32];
    int fd = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    fs->spool_fd = fd_high(fd);
    if (fs->spool_fd < 0 || fstat(fs->spool_fd, st) < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fs->spool_fd);
    ssize_t length = readlink(link, fs->spool, sizeof(fs->spool) - 1);
    if (length <= 0 || length == sizeof(fs->spool) - 1)
        return error_set(error, -ENAMETOOLONG, "the real path of the spool %s is longer than %d bytes", spool,
                         FASTSPOOL_PATH_MAX - 2);
    fs->spool[length] = '\0';
    return 0;
}

/* Does the process belong to root or the owner? */
static bool is_owners(const struct stat *spool)
{
    return geteuid() == 0 || geteuid() == spool->st_uid;
}

static int check_user(const struct fastspool_config *config, const struct fastspool *fs, const struct stat *spool,
                      char *error)
{
    uid_t uid = geteuid();

    if (is_owners(spool))
        return 0;
    for (size_t i = 0; i < config->trusted_users; i++) {
        if (config->trusted_user[i] == uid)
            return 0;
    }
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

/* Read STATE/runtime. */
static int read_runtime(int state_fd, char runtime[FASTSPOOL_PATH_MAX])
{
    int fd = openat(state_fd, PLACES_RUNTIME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, runtime, FASTSPOOL_PATH_MAX - 1);
    int result = length < 0 ? -errno : 0;
    close(fd);
    if (result < 0)
        return result; /* there may be a store */
    if (length == 0)
        return -ENOENT;
    runtime[length] = '\0';
    runtime[strcspn(runtime, "\n")] = '\0';
    return runtime[0] == '/' ? 0 : -ENOENT;
}

/* Write @runtime to the open file. */
static int write_runtime(int fd, const char *runtime)
{
    ssize_t length = (ssize_t)strlen(runtime);

    if (fd < 0)
        return -errno;
    errno = EIO; /* for a short write */
    int result =
        pwrite(fd, runtime, (size_t)length, 0) != length || ftruncate(fd, length) < 0 || fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return result;
}

/* Publish by rename.  On a disk without a free block, overwrite in place: if that is cut short, the name leads to no
 * directory, and the next process creates a store again. */
static int publish_runtime(int state_fd, const char *runtime)
{
    int result = write_runtime(
        openat(state_fd, PLACES_RUNTIME_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600), runtime);

    if (result == 0 && (renameat(state_fd, PLACES_RUNTIME_NEW, state_fd, PLACES_RUNTIME) < 0 || fsync(state_fd) < 0))
        result = -errno;
    if (result < 0)
        unlinkat(state_fd, PLACES_RUNTIME_NEW, 0);
    if (result == -ENOSPC &&
        write_runtime(openat(state_fd, PLACES_RUNTIME, O_WRONLY | O_NOFOLLOW | O_CLOEXEC), runtime) == 0)
        result = 0;
    return result;
}

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

/* Open the published store.  -ENOENT, -ESTALE: there is none that can be used. */
static int open_store(struct fastspool *fs, int state_fd, const struct stat *spool, char *error)
{
    char reason[FASTSPOOL_ERROR_MAX] = "";
    int result = read_runtime(state_fd, fs->runtime);

    if (result < 0 && result != -ENOENT)
        error_set(error, result, "cannot read %s/" PLACES_RUNTIME ", which says where the store's memory is: %s",
                  fs->state, strerrordesc_np(-result));
    if (result == 0)
        result = open_runtime(fs, spool, error);
    if (result == 0) {
        result = segment_open(fs, reason);
        if (result < 0)
            error_set(error, result, "%.200s: %.250s", fs->spool, reason);
    }
    if (result < 0)
        close_runtime(fs);
    return result;
}

/* Remove a runtime directory that is of no use any more: an earlier boot's, or a half-made one. */
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

/* The store's memory: the configured `memory`, but no more than the runtime directory's file system has. */
static int find_capacity(struct fastspool *fs, const struct fastspool_config *config, char *error)
{
    const char *base = config->runtime[0] ? config->runtime : PLACES_MEMORY;
    struct statvfs st;

    fs->memory = config->memory;
    if (config->memory < 4 * CHUNK_SIZE)
        return error_set(error, -ENOSPC, "`memory` is %llu KiB, but a store needs at least 4 MiB",
                         (unsigned long long)(config->memory >> 10));
    if (statvfs(base, &st) < 0)
        return error_set(error, -errno, "cannot find the size of %s: %s", base, strerrordesc_np(errno));
    uint64_t size = (uint64_t)st.f_blocks * st.f_frsize;
    if (size == 0 || fs->memory <= size)
        return 0;
    if (size < 4 * CHUNK_SIZE)
        return error_set(error, -ENOSPC, "the file system of %s has %llu KiB, but a store needs at least 4 MiB", base,
                         (unsigned long long)(size >> 10));
    fs->memory = size;
    return 0;
}

static int make_runtime(struct fastspool *fs, const struct fastspool_config *config, const struct stat *spool,
                        char *error)
{
    const char *base = config->runtime[0] ? config->runtime : PLACES_MEMORY;
    uint64_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return error_set(error, -errno, "cannot get a random number: %s", strerrordesc_np(errno));
    if (places_runtime(base, id, fs->runtime, sizeof(fs->runtime)) < 0)
        return error_set(error, -ENAMETOOLONG, "the path %s is too long; configure a shorter `runtime`", base);
    if (mkdir(fs->runtime, 0700) < 0)
        return error_set(error, -errno, "cannot create %s: %s", fs->runtime, strerrordesc_np(errno));
    return open_runtime(fs, spool, error);
}

/* Under the lock: create an empty store in state RECOVERING, and publish it. */
static int make_store(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                      const struct stat *spool, char *error)
{
    char old[FASTSPOOL_PATH_MAX];
    bool stale = read_runtime(state_fd, old) == 0;
    struct fastspool_config own = *config;

    own.memory = fs->memory;
    if (own.memory < config->memory)
        syslog(LOG_MAIL | LOG_WARNING,
               "fastspool: %s: `memory` is %llu MiB, but the runtime directory's file system has only %llu MiB: the "
               "store uses those",
               fs->spool, (unsigned long long)(config->memory >> 20), (unsigned long long)(own.memory >> 20));
    int result = make_runtime(fs, config, spool, error);
    if (result == 0)
        result = segment_create(fs->runtime_fd, fs->spool_fd, &own, error);
    if (result == 0)
        result = segment_open(fs, error);
    if (result == 0 && viewed(fs->spool) > 0) /* of an earlier store: it hides the disk's directory */
        STORE(fs->header->view.status, VIEW_MOUNTED);
    if (result == 0) {
        result = publish_runtime(state_fd, fs->runtime);
        if (result < 0)
            error_set(error, result, "cannot write %s/" PLACES_RUNTIME ": %s", fs->state, strerrordesc_np(-result));
    }
    if (result < 0) {
        close_runtime(fs);
        remove_runtime(fs->runtime);
    } else if (stale) {
        remove_runtime(old);
    }
    return result;
}

/* Does a mirror hold its lock for longer than one that starts and ends at once?  A mirror whose store is gone serves
 * no process, and would keep a new store's mirror from starting. */
static bool mirror_stays(struct fastspool *fs)
{
    for (int look = 0; look < LOOKS; look++) {
        if (!launch_lives(fs))
            return false;
        clock_sleep(AWAIT_LOOK / 10);
    }
    return true;
}

static int open_or_make(struct fastspool *fs, const struct fastspool_config *config, int state_fd,
                        const struct stat *spool, char *error)
{
    int lock = openat(state_fd, PLACES_MAKING, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (lock < 0)
        return error_set(error, -errno, "cannot open %s/" PLACES_MAKING ": %s", fs->state, strerrordesc_np(errno));
    while (flock(lock, LOCK_EX) < 0 && errno == EINTR)
        ;
    int result = open_store(fs, state_fd, spool, error);
    if ((result == -ENOENT || result == -ESTALE) && mirror_stays(fs))
        result =
            error_set(error, -EBUSY,
                      "%s: the mirror of a lost store still runs; end the process that holds %s/" PLACES_MIRROR_LOCK,
                      fs->spool, fs->state);
    else if (result == -ENOENT || result == -ESTALE)
        result = make_store(fs, config, state_fd, spool, error);
    close(lock);
    return result;
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

static int attach(const char *spool, const struct fastspool_config *config, bool create, struct fastspool **out,
                  char *error)
{
    struct stat st;
    struct fastspool *fs = mmap(NULL, sizeof(*fs), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (fs == MAP_FAILED)
        return error_set(error, -ENOMEM, "out of memory while attaching %s", spool);
    fs->spool_fd = fs->runtime_fd = fs->segment_fd = fs->locks_fd = -1;
    fs->durability = config->durability;
    fs->keeper = &launch_keeper;
    int result = open_spool(fs, spool, &st, error);
    if (result == 0)
        result = check_user(config, fs, &st, error);
    if (result == 0 && (create || config->memory))
        result = find_capacity(fs, config, error);
    struct rights rights = {0};
    bool owners = result == 0 && is_owners(&st);
    bool settles = create; /* the mirror and the command need not know the trusted users */
    create = create && owners;
    if (result == 0)
        rights = rights_of_owner(st.st_uid, st.st_gid);
    int state_fd = result == 0 ? open_state(fs, config, &st, create, error) : result;
    if (state_fd >= 0) {
        result = open_store(fs, state_fd, &st, error);
        if (create && (result == -ENOENT || result == -ESTALE))
            result = open_or_make(fs, config, state_fd, &st, error);
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
            return error_set(error, -ENOENT, "%s has no store: no process has used it since the machine started",
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

bool attach_is_current(const struct fastspool *fs)
{
    char runtime[FASTSPOOL_PATH_MAX];
    struct stat st;
    int state_fd = open(fs->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool published = state_fd >= 0 && read_runtime(state_fd, runtime) == 0 && strcmp(runtime, fs->runtime) == 0;

    if (state_fd >= 0)
        close(state_fd);
    return published && fstat(fs->segment_fd, &st) == 0 && st.st_nlink > 0 && LOAD(fs->header->state) != SEGMENT_FAILED;
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
            return launch_lives(fs) ? 0 : launch_start(fs);
        if (state != SEGMENT_RECOVERING)
            return error_set(error, -EIO, "%s: %.255s", fs->spool, h->failure);
        if (LOAD(h->recovery.error) && clock_monotonic() - started > AWAIT_GIVE_UP)
            return error_set(error, LOAD(h->recovery.error), "%s: %.255s", fs->spool, h->failure);
        if (launch_lives(fs))
            lived = clock_monotonic();
        else if (clock_monotonic() - lived > AWAIT_GIVE_UP)
            return error_set(error, -EIO, "%s: the mirror does not start; check that %s can be executed", fs->spool,
                             FASTSPOOL_TOOL);
        else
            launch_start(fs);
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
    if (fs->spool_fd >= 0)
        close(fs->spool_fd);
    munmap(fs, sizeof(*fs));
}

void fastspool_after_fork_child(struct fastspool *fs)
{
    descriptions_after_fork_child(fs);
    locks_after_fork_child();
}

/* SPDX-License-Identifier: MIT
 *
 * Attaching: a process finds the store of a spool, creates it if there is none, and starts its mirror.
 *
 * The happy path:
 *   - Open the spool and its state directory (state.c).
 *   - Open the store of those who live, take over that of the dead, or make one (claim.c, memory.c).
 *   - Give trusted users rights of their own there (trust.c); they need a store that root or the owner has made.
 *   - The mirror fills a new store from the database, and sets READY; every attaching process waits for that.
 *
 * Failure modes:
 *   - Each is a sentence in @error.
 *   - A damaged database or segment is FAILED, and stays so until an operator acts.  Nothing on the disk changes.
 *   - The mirror dies during recovery: a waiting process starts another.
 *   - Another process than a mirror has the mirror's lock: it is named, where this process may look.
 *   - The owner can't use a part of it: owned.c says which one, and what to do.
 *   - The store is another's, or can't be reached from here: claim.c.
 */
#include "spool/attach.h"

#include "base/acl.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/rights.h"
#include "config.h"
#include "fastspool.h"
#include "spool/claim.h"
#include "spool/launch.h"
#include "spool/locker.h"
#include "spool/memory.h"
#include "spool/owned.h"
#include "spool/sight.h"
#include "spool/state.h"
#include "spool/trust.h"
#include "store/await.h"
#include "store/descriptions.h"
#include "store/doubt.h"
#include "store/layout.h"
#include "store/mutex.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/span.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define BAR         40                   /* characters of a progress bar */
#define DATA        (UINT64_C(16) << 20) /* that a mirror needs, of RLIMIT_DATA */
#define DESCRIPTORS 20                   /* that a process of Exim's needs */
#define LOCK_LOOK   (4 * NS_PER_S)       /* between two looks at the lock of a mirror that gives no sign of life */

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

/* Those who live use what this process can't: say who one of them is.  Any process of the mail user's can have the lock
 * that says so. */
static void name_user(const struct fastspool *fs, char *error)
{
    char locker[LOCKER_SENTENCE];
    size_t length = strlen(error);

    if (locker_find(fs->state, PLACES_LOCK, NULL, locker))
        snprintf(error + length, FASTSPOOL_ERROR_MAX - length, "; %s", locker);
}

/* Before anybody waits for what this process can't do. */
static int check_lock(const char *spool, char *error)
{
    int result = mutex_know_myself();

    return result == 0
               ? 0
               : error_set(error, -ENOSYS,
                           "%s: the store's lock needs the system calls get_robust_list and gettid, of which one is "
                           "refused here (%s): allow both, as in SystemCallFilter= of the service",
                           spool, strerrordesc_np(-result));
}

/* With fewer descriptors Exim would take mail that it can't deliver (tried: from 20 on it does, and from 10 on without
 * a store).  The segment's number is high where there are many, which costs no call. */
static int check_descriptors(const struct fastspool *fs, char *error)
{
    struct rlimit limit;

    if (fs->segment_fd >= DESCRIPTORS || getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max >= DESCRIPTORS)
        return 0;
    return error_set(error, -EMFILE,
                     "%s: this process may have %llu descriptors (RLIMIT_NOFILE, ulimit -n, LimitNOFILE= of the "
                     "service): Exim needs %d with a store",
                     fs->spool, (unsigned long long)limit.rlim_max, DESCRIPTORS);
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
    int result = check_lock(spool, error);
    if (result == 0)
        result = state_open_spool(fs, spool, &st, error);
    if (result == 0)
        result = state_check_user(config, fs, &st, error);
    bool owners = result > 0;
    if (result >= 0)
        result = create && config->memory ? memory_check(config->memory, error) : 0;
    struct rights rights = {0};
    bool settles = create; /* the mirror and the command need not know the trusted users */
    create = create && owners;
    if (result == 0)
        rights = rights_of_owner(st.st_uid, st.st_gid);
    int state_fd = result == 0 ? state_open(fs, config, &st, create, error) : result;
    if (state_fd >= 0) {
        result = claim_store(fs, config, state_fd, &st, create, error);
        fs->memory = config->memory;
        if (result == 0)
            result = check_descriptors(fs, error);
        if (result == 0 && (settles || !owners))
            result = settle_trust(fs, config, state_fd, owners, error);
        close(state_fd);
    } else {
        result = state_fd;
    }
    if (owners && fs->state[0] && (result == -EACCES || result == -EPERM || result == -EISDIR || result == -ELOOP) &&
        owned_check(fs->spool, &st, fs->state, config->runtime, error) < 0)
        result = -EPERM;
    rights_back(rights);
    if (state_fd >= 0 && (result == -EBUSY || result == -EXDEV))
        name_user(fs, error);
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
    int result = sight_check(spool, config, error);

    return result < 0 ? result : attach(spool, config, false, out, error);
}

int attach_create(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                  char error[FASTSPOOL_ERROR_MAX])
{
    return attach(spool, config, true, out, error);
}

/* ---- until it is READY ---- */

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

/* The part of the state that its owner can't use, if there is one.  -EPERM: @error says which; 0: there is none, or
 * this process can't say. */
static int explain_refusal(const struct fastspool *fs, char *error)
{
    struct stat st;

    if ((geteuid() != 0 && geteuid() != fs->owner) || fstat(fs->spool_fd, &st) < 0)
        return 0;
    struct rights rights = rights_of_owner(st.st_uid, st.st_gid);
    int result = owned_check(fs->spool, &st, fs->state, NULL, error);
    rights_back(rights);
    return result;
}

/* Any process of the mail user's can have the lock of the mirror, which would be waited for without an end; or that
 * lock can't be opened, and it can't even be said whether it is held. */
static int refuse_lock(const struct fastspool *fs, uint64_t since, char *error)
{
    char sentence[LOCKER_SENTENCE];

    if (LOAD(fs->header->mirror.beat) >= since)
        return 0;
    return locker_find(fs->state, PLACES_MIRROR_LOCK, "mirror", sentence)
               ? error_set(error, -EBUSY, "%s: its mirror can't be started: %s", fs->spool, sentence)
               : explain_refusal(fs, error);
}

/* Why the recovery does not go on.  If the owner can't use a part of the state, it is told which. */
static int tell_recovery(const struct fastspool *fs, int recovery, char *error)
{
    char sentence[SECTION_SENTENCE];

    error_set(error, recovery, "%s: %s", fs->spool, section_sentence(fs->header, sentence));
    if (recovery == -EACCES)
        explain_refusal(fs, error);
    return recovery;
}

/* @failed: the last error of a fork, 0: there was none.  @lives: whether there is a mirror, -errno: it can't be said.
 */
static int refuse_start(const struct fastspool *fs, int failed, int lives, char *error)
{
    struct rlimit data;

    if (lives < 0)
        return error_set(error, lives, "%s: it can't be told whether its mirror lives (the lock of %s/%s: %s)",
                         fs->spool, fs->state, PLACES_MIRROR_LOCK, strerrordesc_np(-lives));
    if (getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_max < DATA)
        return error_set(error, -ENOMEM,
                         "%s: the mirror does not start where a process may have %llu MiB of data (RLIMIT_DATA, ulimit "
                         "-d, LimitDATA= of the service): it needs %llu",
                         fs->spool, (unsigned long long)data.rlim_max >> 20, (unsigned long long)DATA >> 20);
    if (failed)
        return error_set(
            error, failed,
            "%s: the mirror can't be started, as there can't be one more process (%s): see `ulimit -u`, and "
            "pids.max or TasksMax= of the container or service",
            fs->spool, strerrordesc_np(-failed));
    return error_set(error, -EIO,
                     "%s: the mirror does not start; check that %s can be executed; `fastspool status` says more",
                     fs->spool, FASTSPOOL_TOOL);
}

static int wait_ready(struct fastspool *fs, char *error)
{
    const struct header *h = fs->header;
    uint64_t started = clock_monotonic(), lived = started; /* when a mirror was last seen */
    uint64_t looked = started;
    char sentence[SECTION_SENTENCE];
    bool waited = false;
    int failed = 0;

    for (;;) {
        uint32_t state = LOAD(h->state);
        if (waited)
            show_progress(fs, started, state != SEGMENT_RECOVERING);
        uint64_t wanted = state == SEGMENT_FAILED && LOAD(h->recovery.too_small) ? memory_wanted(fs) : 0;
        if (wanted > LOAD(h->memory_limit)) {
            segment_limit(h, wanted);
            __atomic_compare_exchange_n(&ATOMIC(h->state), &state, SEGMENT_RECOVERING, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE);
            continue;
        }
        if (state != SEGMENT_READY && state != SEGMENT_RECOVERING)
            return error_set(error, -EIO, "%s: %s", fs->spool, section_sentence(h, sentence));
        int lives = launch_lives(fs);
        int launch = lives == 0 ? launch_start(fs) : 0;
        if (state == SEGMENT_READY)
            return 0; /* with or without a mirror: a process that waits for the disk starts it again */
        int recovery = doubt_result(LOAD(h->recovery.error));
        if (recovery && clock_monotonic() - started > AWAIT_GIVE_UP)
            return tell_recovery(fs, recovery, error);
        if (clock_monotonic() - looked > LOCK_LOOK) {
            int refused = refuse_lock(fs, started, error);
            if (refused < 0)
                return refused;
            looked = clock_monotonic();
        }
        failed = launch < 0 ? launch : failed;
        if (lives > 0 || lives == -EACCES) /* a trusted user need not see the lock */
            lived = clock_monotonic();
        else if (lives == -EPERM || lives == -ENOSYS || clock_monotonic() - lived > AWAIT_GIVE_UP)
            return refuse_start(fs, failed, lives, error); /* at once where flock(2) is refused: that stays so */
        if (await_terminated(NULL))
            return claim_terminated(fs, error);
        futex_wait(&h->state, state, AWAIT_LOOK);
        waited = true;
    }
}

/* ---- the public calls ---- */

int fastspool_attach(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                     char error[FASTSPOOL_ERROR_MAX])
{
    struct fastspool *fs = NULL;
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
    int fds[] = {fs->spool_fd, fs->presence_fd, fs->runtime_fd, fs->segment_fd, fs->locks_fd};

    if (fs->base) {
        descriptions_pool_close(fs);
        span_unmap(fs);
    }
    fd_close_all(fds, sizeof(fds) / sizeof(*fds));
    munmap(fs, sizeof(*fs));
}

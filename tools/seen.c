/* SPDX-License-Identifier: MIT
 *
 * What programs without the library see of a spool: the state of its view.
 *
 * Happy path: a view lives, the store's header says that all is mounted, and the list of mounts has the file system
 * that the living view's process has mounted.
 *
 * Nothing here touches the view: its server may hang, and a dead one answers with an error.
 *
 * Failure modes:
 *   - The process that would replace a server that does not answer is stopped, or frozen: the kernel says so of it.
 *   - The view of another state of the spool lives: this one is not available.
 *   - Only root may read the list of the view's process.  For other users each mount of a living view counts.
 *   - The mail user has mounted a file system of his own with the view's type: it counts where a view could be.
 */
#include "seen.h"

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/mountinfo.h"
#include "base/rights.h"
#include "base/started.h"
#include "config.h"
#include "fastspool.h"
#include "spool/exim.h"
#include "spool/launch.h"
#include "spool/owned.h"
#include "spool/viewed.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LATE       (10 * NS_PER_S) /* a start that takes longer than this waits for something, or fails */
#define MOMENT     (3 * NS_PER_S)  /* for a view whose server has died: another one is started */
#define LOOK_AGAIN (NS_PER_S / 20)
#define NAMES      (SEEN_LINE - 128)

/* ---- mounts ---- */

/* The superblock that process @pid, a view's supervisor, has mounted over @spool for itself; 0: it can't be said. */
static unsigned find_superblock(pid_t pid, const char *spool)
{
    struct mountinfo mount;
    char path[48];
    unsigned minor = 0;

    snprintf(path, sizeof(path), "/proc/%ld/mountinfo", (long)pid);
    FILE *file = pid > 0 ? fopen(path, "re") : NULL;
    while (mountinfo_next(file, &mount)) {
        if (mount.view && strcmp(mount.place, spool) == 0)
            minor = mount.minor;
    }
    if (file)
        fclose(file);
    return minor;
}

/* Is @name one of @names, "input, msglog"? */
static bool is_listed(const char *names, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = names; (at = strstr(at, name)); at += length) {
        if ((at == names || at[-1] == ' ') && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* "input, msglog": where a view, that of superblock @minor if it is not 0, is mounted in this mount namespace.  Any
 * user who may mount with fusermount(1) can call a file system a view, and the mail user has named the directories. */
static void find_mounts(const char *spool, unsigned minor, char names[NAMES])
{
    char name[ESCAPE_ROOM(NAME_MAX)];
    FILE *file = fopen("/proc/self/mountinfo", "re");
    struct mountinfo mount;
    size_t used = 0, length = strlen(spool);

    names[0] = '\0';
    while (mountinfo_next(file, &mount)) {
        if (!mount.view || (minor && mount.minor != minor) || strncmp(mount.place, spool, length) != 0 ||
            mount.place[length] != '/' || !exim_is_place(mount.place + length + 1))
            continue;
        /* A dead view may lie below: its directory comes twice. */
        escape_bytes(name, sizeof(name), mount.place + length + 1, strlen(mount.place + length + 1));
        if (!is_listed(names, name) && used + strlen(name) + 3 < NAMES)
            used += (size_t)snprintf(names + used, NAMES - used, "%s%s", used ? ", " : "", name);
    }
    if (file)
        fclose(file);
}

/* ---- the state ---- */

static bool has_just_started(const struct fastspool *fs)
{
    return launch_is_young(&fs->header->view.starting) && !LOAD(fs->header->view.unavailable);
}

/* The store is being made, and whoever makes it starts the view when the names are there; or did so just now. */
static bool store_has_just_started(const struct fastspool *fs)
{
    return (LOAD(fs->header->state) == SEGMENT_RECOVERING && !LOAD(fs->header->recovery.error)) ||
           (launch_is_young(&fs->header->mirror.starting) && !LOAD(fs->header->mirror.ending));
}

/* For how many seconds the view's process @pid has lived, if that is longer than a start takes; 0: not. */
static unsigned late(pid_t pid)
{
    char name[STARTED_NAME];
    uint64_t started = started_at(pid, name);
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t lived = started ? clock_nanoseconds(&now) - started : 0;
    return lived > LATE ? (unsigned)(lived / NS_PER_S) : 0;
}

/* A view lives.  Fills @names with where it is mounted.  @served: as its server says, and nobody else.  False: it is
 * not, but an earlier one, that is dead. */
static bool is_up(const struct fastspool *fs, bool served, char names[NAMES])
{
    pid_t pid = launch_view_holder(fs->state);
    unsigned minor = find_superblock(pid, fs->spool);
    char living[NAMES];

    if (!minor && geteuid() == 0 && !served && (pid > 0 || has_just_started(fs)))
        return false; /* it has mounted nothing yet */
    find_mounts(fs->spool, minor, living);
    if (!living[0] && names[0])
        return false;
    strcpy(names, living);
    return true;
}

/* Fills @names with where the view is mounted, or where a dead one is.  @wanted: as of seen_look(). */
static enum seen_state find_state(const struct fastspool *fs, bool wanted, char names[NAMES])
{
    bool lives = launch_view_lives(fs->state) != 0;             /* where it can't be said, header and mounts decide */
    bool served = !lives && launch_place_viewed(fs->spool) > 0; /* by what has no lock, as that was removed */

    find_mounts(fs->spool, 0, names);
    if (served && !launch_view_serves(fs->state))
        return SEEN_UNAVAILABLE;                   /* the view of another state */
    if (LOAD(fs->header->state) == SEGMENT_FAILED) /* a server ends at once, and so does the next one */
        return names[0] ? SEEN_DEAD : wanted ? SEEN_UNAVAILABLE : SEEN_OFF;
    if ((lives || served) && LOAD(fs->header->view.status) == VIEW_MOUNTED && is_up(fs, served, names))
        return SEEN_MOUNTED;
    if (lives || served || (has_just_started(fs) && !names[0]))
        return SEEN_STARTING;
    if (names[0])
        return SEEN_DEAD;
    if (LOAD(fs->header->view.unavailable))
        return SEEN_UNAVAILABLE;
    if (!wanted)
        return SEEN_OFF;
    return store_has_just_started(fs) ? SEEN_STARTING : SEEN_UNMOUNTED;
}

static void describe_mounted(const char *names, bool wanted, char line[SEEN_LINE])
{
    int used =
        snprintf(line, SEEN_LINE, names[0] ? "mounted over %s" : "mounted, but not in this mount namespace%s", names);

    if (!wanted)
        snprintf(line + used, SEEN_LINE - (size_t)used, "; `fastspool stop` unmounts it, as `view = off` says");
}

/* A view is mounted over no directory of another user's, and over no file (lib/mount/mounts.c).  @input: SPOOL/input.
 */
static bool is_anothers(const struct fastspool *fs, const char *input)
{
    struct stat spool, st;

    return lstat(input, &st) == 0 && fstat(fs->spool_fd, &spool) == 0 && st.st_dev == spool.st_dev &&
           (!S_ISDIR(st.st_mode) || (st.st_uid != fs->owner && st.st_uid != 0));
}

/* Another file system is mounted over the view, or over the spool; or the view can't be mounted there; or it was
 * unmounted here, by hand. */
static void describe_covered(const struct fastspool *fs, const char *names, struct seen *seen)
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], input[FASTSPOOL_PATH_MAX + sizeof("/input")];
    size_t length = strlen(seen->line);

    snprintf(input, sizeof(input), "%s/input", fs->spool);
    if (names[0] && !is_listed(names, "input") && is_anothers(fs, input)) {
        snprintf(seen->line + length, SEEN_LINE - length,
                 ", and not over %s, which is no directory of the spool owner's", input);
        strcpy(seen->mend, "as root give that to the spool's owner, or move away a file there");
    } else if (names[0]) {
        snprintf(seen->line + length, SEEN_LINE - length, ", but another file system is mounted over it");
        snprintf(seen->mend, SEEN_MEND, "`findmnt -T %s/input` names that one; unmount it",
                 escape_word(word, sizeof(word), fs->spool));
    } else {
        strcpy(seen->mend, "if it was unmounted by hand, it is mounted again within a second");
    }
}

static void describe_mend(struct seen *seen, bool wanted, bool failed)
{
    if (seen->stopped)
        snprintf(
            seen->mend, SEEN_MEND,
            "`kill -CONT %ld` lets a stopped one go on, a frozen one waits for its control group (/proc/%ld/cgroup); "
            "`fastspool stop` kills it",
            (long)seen->stopped, (long)seen->stopped);
    else if (seen->locker[0])
        strcpy(seen->mend, seen->locker);
    else if (failed)
        strcpy(seen->mend, "mend the store first: `fastspool verify` says what is damaged");
    else
        strcpy(seen->mend, wanted ? "`fastspool run -- true`, as root, mounts it again"
                                  : "`fastspool stop`, as root, takes it away");
}

/* The supervisor: while it goes on it replaces what is stopped. */
pid_t seen_stopped(const char *state)
{
    pid_t pid = launch_view_holder(state);

    return pid > 0 && (started_is_stopped(pid) || cgroup_is_frozen(pid)) ? pid : 0;
}

bool seen_closed(uid_t owner, gid_t group, char line[SEEN_CLOSED])
{
    char user[ERROR_USER];
    struct stat st;

    struct rights rights = rights_of_owner(owner, group);
    bool closed = faccessat(AT_FDCWD, FASTSPOOL_CONFIG, R_OK, AT_EACCESS) < 0 && errno == EACCES &&
                  stat(FASTSPOOL_CONFIG, &st) == 0;
    rights_back(rights);
    if (closed)
        snprintf(line, SEEN_CLOSED,
                 FASTSPOOL_CONFIG
                 " has mode %04o, with which %s, as whom the view runs, can't read it: as root, run "
                 "`chmod a+r " FASTSPOOL_CONFIG "`",
                 st.st_mode & 07777, error_user(owner, user));
    return closed;
}

_Static_assert(FASTSPOOL_ERROR_MAX <= LOCKER_SENTENCE && SEEN_CLOSED <= LOCKER_SENTENCE,
               "what a view can't open is told in the place of what has its lock");

/* What the next view could not open: its locks, or the configuration. */
static void find_unusable(const struct fastspool *fs, char line[LOCKER_SENTENCE])
{
    const struct stat owner = {.st_uid = fs->owner, .st_gid = fs->group};

    struct rights rights = rights_of_owner(fs->owner, fs->group);
    bool usable =
        (geteuid() != 0 && geteuid() != fs->owner) || owned_check_view(fs->spool, &owner, fs->state, line) == 0;
    rights_back(rights);
    if (usable && !seen_closed(fs->owner, fs->group, line))
        line[0] = '\0';
}

/* What has a lock instead of the view, or of its server; or why that can't begin. */
static void find_locker(const struct fastspool *fs, struct seen *seen)
{
    bool starts = seen->state == SEEN_STARTING;

    seen->locker[0] = '\0';
    if (starts && launch_view_holder(fs->state) > 0)
        locker_find(fs->state, PLACES_SERVER_LOCK, "view", seen->locker);
    else if ((starts || seen->state == SEEN_DEAD) && launch_view_holder(fs->state) == 0 &&
             launch_view_lives(fs->state) > 0)
        locker_find(fs->state, PLACES_VIEW_LOCK, "view", seen->locker);
    if (!seen->locker[0] && seen->state != SEEN_OFF && seen->state != SEEN_UNAVAILABLE)
        find_unusable(fs, seen->locker);
    if ((starts || seen->state == SEEN_UNMOUNTED) && seen->locker[0])
        seen->state = SEEN_UNAVAILABLE;
}

void seen_look(struct fastspool *fs, bool wanted, struct seen *seen)
{
    char names[NAMES];
    const struct view_state *view = &fs->header->view;
    const char *why = strerrordesc_np((int)LOAD(view->unavailable));

    uint64_t began = clock_monotonic();
    while ((seen->state = find_state(fs, wanted, names)) == SEEN_STARTING &&
           (seen->late = late(launch_view_holder(fs->state))) > 0 && clock_monotonic() - began < MOMENT)
        clock_sleep(LOOK_AGAIN);
    seen->stopped = seen_stopped(fs->state);
    find_locker(fs, seen);
    bool failed = LOAD(fs->header->state) == SEGMENT_FAILED;
    describe_mend(seen, wanted, failed);
    seen->covered = seen->state == SEEN_MOUNTED && !seen->stopped && viewed(fs->spool) == 0;
    if (seen->state == SEEN_MOUNTED)
        describe_mounted(names, wanted, seen->line);
    else if (seen->state == SEEN_STARTING)
        snprintf(seen->line, SEEN_LINE, "starting%s; until then `fastspool run -- mailq` shows the queue",
                 seen->late ? ", longer than it should" : "");
    else if (seen->state == SEEN_DEAD)
        snprintf(seen->line, SEEN_LINE, "dead, over %s", names);
    else if (seen->state == SEEN_UNMOUNTED)
        strcpy(seen->line,
               "not mounted; the next start of Exim with the library, or `fastspool run`, as root, mounts it");
    else if (seen->state == SEEN_UNAVAILABLE && seen->locker[0])
        snprintf(seen->line, SEEN_LINE, "not available: %s", seen->locker);
    else if (seen->state == SEEN_UNAVAILABLE && launch_place_viewed(fs->spool) > 0)
        strcpy(seen->line, "not available: the view of another state of this spool is mounted");
    else if (seen->state == SEEN_UNAVAILABLE && failed)
        strcpy(seen->line, "not available: the store has failed");
    else if (seen->state == SEEN_UNAVAILABLE)
        snprintf(seen->line, SEEN_LINE, "not available: %s: %s", launch_view_obstacle(LOAD(view->obstacle)),
                 why ? why : "unknown error");
    else
        strcpy(seen->line, "off");
    if (seen->covered)
        describe_covered(fs, names, seen);
    size_t length = strlen(seen->line);
    if (seen->stopped)
        snprintf(seen->line + length, SEEN_LINE - length, "; process %ld is stopped or frozen", (long)seen->stopped);
}

const char *seen_name(enum seen_state state)
{
    static const char *const names[] = {
        [SEEN_MOUNTED] = "mounted",     [SEEN_STARTING] = "starting", [SEEN_DEAD] = "dead",
        [SEEN_UNMOUNTED] = "unmounted", [SEEN_OFF] = "off",           [SEEN_UNAVAILABLE] = "unavailable",
        [SEEN_UNKNOWN] = NULL};

    return names[state];
}

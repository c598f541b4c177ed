/* SPDX-License-Identifier: MIT
 *
 * What a call waits for that stands still.
 *
 * A flush waits for the mirror as long as that lives, and must: a call that gave up could not say what is on the disk.
 * But the operator should not have to guess what it waits for.
 *
 * The happy path: nothing stands still, and nothing is said.  A thread of its own looks, as the work may be in a call
 * that no signal ends.
 *
 * A process stands still when it is stopped (SIGSTOP, a debugger), or frozen by its control group, or when it sleeps in
 * one and the same call, as only a disk makes it ('D' in ps).  A disk that is merely slow wakes it now and then.
 *
 * Failure modes:
 *   - No mirror is found, and another process has its lock: that one is named.
 *   - The mirror is not found by its command line, or waits for something else: an old change says that it waits.
 *   - The kernel does not say since when a process is stopped.  The mirror's last sign of life is from before that; for
 *     others it is the time for which this thread has seen them so.
 *   - The kernel has no list of a thread's children: those are not looked at.
 */
#include "standstill.h"

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/started.h"
#include "fastspool.h"
#include "interrupt.h"
#include "mirrors.h"
#include "spool/locker.h"
#include "store/store.h"
#include "tool.h"

#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_EVERY NS_PER_S
#define PATIENCE   (5 * NS_PER_S)
#define AGAIN      (60 * NS_PER_S)
#define OLD        (10 * NS_PER_S) /* of a change that the mirror should have written */

enum stand { GOES_ON, STOPPED, FROZEN, ON_DISK };

/* A process that this call may wait for. */
struct subject {
    const char *name;
    pid_t pid; /* 0: there is none */
    enum stand stand;
    uint64_t since;    /* it stands so */
    uint64_t switches; /* how often it had slept */
};

static struct {
    bool runs;
    pthread_t thread;
    uint32_t ended; /* futex */
    pid_t self;
    char state[PATH_MAX]; /* "": unknown */
    uid_t owner;          /* of it */
    struct fastspool *fs; /* NULL: unknown */
    uint64_t began;
    uint64_t told; /* when something was; 0: nothing */
} watch;

static struct {
    uint64_t seconds, at; /* 0: no limit */
    const char *sentence;
} limit;

/* ---- what stands still ---- */

static enum stand stand_of(const struct subject *subject, const struct started_now *now)
{
    if (now->state == 'T' || now->state == 't')
        return STOPPED;
    if (cgroup_is_frozen(subject->pid))
        return FROZEN;
    return now->state == 'D' && now->switches == subject->switches ? ON_DISK : GOES_ON;
}

static void look_at(struct subject *subject, pid_t pid)
{
    struct started_now now = {0};
    uint64_t time = clock_monotonic();

    if (pid != subject->pid)
        *subject = (struct subject){.name = subject->name, .pid = pid, .since = time};
    if (!started_look(pid, &now)) {
        subject->pid = 0;
        return;
    }
    enum stand stand = stand_of(subject, &now);
    if (stand != subject->stand)
        subject->since = time;
    subject->stand = stand;
    subject->switches = now.switches;
}

static pid_t first_child(void)
{
    char path[64];
    long pid = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long)watch.self);
    FILE *file = fopen(path, "re");
    if (file) {
        if (fscanf(file, "%ld", &pid) != 1)
            pid = 0;
        fclose(file);
    }
    return (pid_t)pid;
}

static pid_t the_mirror(pid_t before)
{
    struct mirrors_words words;

    if (!watch.state[0])
        return 0;
    if (geteuid() != 0) /* a process that may not see what a mirror runs believes the store */
        return watch.fs ? LOAD(watch.fs->header->mirror.pid) : 0;
    return before && mirrors_read(before, watch.owner, &words) && strcmp(words.state, watch.state) == 0
               ? before
               : mirrors_find(watch.state, watch.owner);
}

/* ---- what is told ---- */

/* Before the look began, too, as the mirror's last sign of life says. */
static uint64_t since(const struct subject *subject, bool mirror)
{
    uint64_t beat = mirror && watch.fs ? LOAD(watch.fs->header->mirror.beat) : 0;

    return beat && beat < subject->since ? beat : subject->since;
}

static void tell(const struct subject *subject, bool mirror)
{
    long pid = (long)subject->pid;
    uint64_t seconds = (clock_monotonic() - since(subject, mirror)) / NS_PER_S;

    if (subject->stand == STOPPED)
        tool_error("waiting for %s, process %ld, which has been stopped for about %" PRIu64
                   " s: `kill -CONT %ld` lets it go on; %s",
                   subject->name, pid, seconds, pid, interrupt_way_out());
    else if (subject->stand == FROZEN)
        tool_error("waiting for %s, process %ld, which has been frozen for about %" PRIu64
                   " s: thaw its control group, which /proc/%ld/cgroup names; %s",
                   subject->name, pid, seconds, pid, interrupt_way_out());
    else
        tool_error(
            "waiting for %s, process %ld, to which its disk has not answered for about %" PRIu64
            " s: `dmesg` says what the disk has; %s",
            subject->name, pid, seconds,
            subject->pid == watch.self ? "nothing is lost, and ^C is heard when it answers" : interrupt_way_out());
}

/* No process is seen to stand still, and no commit comes. */
static bool tell_old_change(const struct subject *mirror)
{
    const struct header *h = watch.fs ? watch.fs->header : NULL;
    uint64_t captured = h ? LOAD(h->tickets.oldest_captured) : 0, dirty = h ? LOAD(h->tickets.oldest_dirty) : 0;
    uint64_t oldest = captured ? captured : dirty, now = clock_monotonic();

    if (!oldest || now < oldest || now - oldest < OLD)
        return false;
    tool_error("waiting for the mirror, process %ld, which has not written a change of %" PRIu64 " s ago; %s",
               (long)mirror->pid, (now - oldest) / NS_PER_S, interrupt_way_out());
    return true;
}

/* Any process of the mail user's can have the lock of the mirror. */
static bool tell_locker(void)
{
    char locker[LOCKER_SENTENCE];

    if (!watch.state[0] || !locker_find(watch.state, PLACES_MIRROR_LOCK, "mirror", locker))
        return false;
    tool_error("waiting for a mirror, which can't be started: %s; %s", locker, interrupt_way_out());
    return true;
}

static void tell_all(const struct subject subjects[], size_t count, uint64_t patience)
{
    uint64_t now = clock_monotonic();
    bool told = false, stands = false;

    if (watch.told && now - watch.told < AGAIN)
        return;
    for (size_t i = 0; i < count; i++) {
        bool is = subjects[i].pid && subjects[i].stand != GOES_ON, long_enough = now - subjects[i].since >= patience;
        stands = stands || is;
        told = told || (is && long_enough);
        if (is && long_enough)
            tell(&subjects[i], i == 0);
    }
    if (!told && !subjects[0].pid && now - watch.began >= patience)
        told = tell_locker();
    if (told || (!stands && now - watch.began >= OLD && tell_old_change(&subjects[0])))
        watch.told = now;
}

static void *look(void *context)
{
    struct subject subjects[] = {
        {.name = "the mirror"}, {.name = "a child of this call"}, {.name = "this call itself"}};
    const size_t count = sizeof(subjects) / sizeof(*subjects);

    (void)context;
    while (futex_wait(&watch.ended, 0, LOOK_EVERY), !LOAD(watch.ended)) {
        bool over = limit.at && clock_monotonic() >= limit.at;
        look_at(&subjects[0], the_mirror(subjects[0].pid));
        look_at(&subjects[1], first_child());
        look_at(&subjects[2], watch.self);
        tell_all(subjects, count, over ? 0 : PATIENCE);
        if (over) {
            tool_error("gave up after %" PRIu64 " s: %s", limit.seconds, limit.sentence);
            _exit(1);
        }
    }
    return NULL;
}

/* ---- begin and end ---- */

/* As the library finds it.  The mirror has it in its command line. */
static void find_state(const char *spool, const struct fastspool_config *config, const struct fastspool *fs)
{
    char real[PATH_MAX];
    struct stat st;

    watch.state[0] = '\0';
    if (fs)
        snprintf(watch.state, sizeof(watch.state), "%s", fs->state);
    else if (config->state[0])
        snprintf(watch.state, sizeof(watch.state), "%s", config->state);
    else if (realpath(spool, real) && strlen(real) + sizeof("/" PLACES_STATE) <= sizeof(watch.state))
        stpcpy(stpcpy(watch.state, real), "/" PLACES_STATE);
    if (stat(watch.state, &st) < 0)
        watch.state[0] = '\0';
    else
        watch.owner = st.st_uid;
}

void standstill_begin(const char *spool, const struct fastspool_config *config, struct fastspool *fs)
{
    sigset_t all, before;

    standstill_end();
    find_state(spool, config, fs);
    watch.fs = fs;
    watch.self = getpid();
    watch.ended = 0;
    watch.told = 0;
    watch.began = clock_monotonic();
    sigfillset(&all); /* they are the work's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    watch.runs = pthread_create(&watch.thread, NULL, look, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void standstill_end(void)
{
    if (!watch.runs)
        return;
    futex_count(&watch.ended);
    pthread_join(watch.thread, NULL);
    watch.runs = false;
}

void standstill_limit(uint64_t seconds, const char *sentence)
{
    limit.seconds = seconds;
    limit.at = clock_monotonic() + seconds * NS_PER_S;
    limit.sentence = sentence;
}

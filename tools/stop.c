/* SPDX-License-Identifier: MIT
 *
 * fastspool stop: flush, then end the view and the mirror process.  Where nobody else has the store attached its memory
 * is given back: the next process to use the spool recovers it from the disk.  Else the segment stays, and that process
 * starts a mirror again.  Root's call also removes the spool from the registry.
 *
 * Failure modes: an Exim uses the store still, as a queue run that goes on after the stop of Exim's service, or another
 * program does.  All is on the disk, but it starts a mirror at once: whoever moves the state now would copy one that
 * changes.  It is named, and the exit status says so.  The mirror is stopped, or its disk does not answer: a sentence
 * says so (standstill.c), and the call waits on, until --timeout, ^C, or the service manager's own limit.  What is not
 * on the disk stays in memory.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/rights.h"
#include "beside.h"
#include "config.h"
#include "fastspool.h"
#include "interrupt.h"
#include "look.h"
#include "plain/census.h"
#include "progress.h"
#include "spool/launch.h"
#include "spool/locker.h"
#include "spool/memory.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "spool/registry.h"
#include "spool/upgrade.h"
#include "standstill.h"
#include "states.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define UNFINISHED "view or mirror may run still: run `fastspool stop` again"

#define PATIENCE     (60 * NS_PER_S) /* for a view to end, and for a mirror after the flush */
#define HALTED_TIME  (3 * NS_PER_S)  /* for a view that is stopped or frozen to go on */
#define KILLED_TIME  (5 * NS_PER_S)  /* for it to be gone, when it was killed */
#define KILLS_MOST   3               /* of views, one after the other */
#define REVIVAL_TIME (5 * NS_PER_S)  /* for a view whose processes were killed to be mounted again */
#define SETTLE_TIME  (3 * NS_PER_S)  /* for a view to take its lock again */
#define LOOK_EVERY   (20 * NS_PER_MS)

static const char usage[] =
    "usage: fastspool stop [--spool DIR] [--timeout SECONDS]\n"
    "Writes every change to the disk, unmounts the view, then ends the mirror process, of each spool of the\n"
    "configuration.  Where nobody else uses the store its memory is given back; the next use of the spool brings it\n"
    "back from the disk.\n"
    "  --timeout SECONDS   give up then, with status 1, where mirror or disk does not answer; nothing is lost\n"
    "Exit status: 0 neither runs, or did before; 1 an error; 2 a process uses the store still, and starts both again;\n"
    "64 wrong arguments.\n";

/* The next process to use the spool starts another mirror or view, perhaps between two looks.  So `starting` says that
 * one has just been started, until what runs has ended; whatever was started before that is ended, too. */
static void hold_starts(const uint64_t *starting)
{
    STORE(*starting, clock_monotonic());
}

/* By a request in the segment: no process of root's sends a signal to a number that the mail user can write. */
static int end_mirror(struct fastspool *fs)
{
    char locker[LOCKER_SENTENCE];
    int lives = launch_lives(fs);

    if (geteuid() != 0 && geteuid() != fs->owner && lives != 0)
        return tool_error("%s: only root and the spool's owner can end its mirror: run `fastspool stop` as one of them",
                          fs->spool);
    if (lives != 0 && locker_find(fs->state, PLACES_MIRROR_LOCK, "mirror", locker))
        return tool_error("%s has no mirror to be ended, and none can be started: %s", fs->spool, locker);
    for (uint64_t start = clock_monotonic(); lives != 0; lives = launch_lives(fs)) {
        if (lives < 0)
            return tool_error("%s: can't look whether its mirror lives: %s", fs->spool, strerrordesc_np(-lives));
        hold_starts(&fs->header->mirror.starting);
        STORE(fs->header->mirror.ending, 1);
        futex_count(&ATOMIC(fs->header->mirror.wanted));
        if (clock_monotonic() - start > PATIENCE)
            return tool_error("the mirror of %s still runs a minute after it was asked to end", fs->spool);
        clock_sleep(LOOK_EVERY);
    }
    STORE(fs->header->mirror.starting, 0); /* the next process may start one at once */
    return 0;
}

/* A view whose processes were killed is mounted still.  Start it, so that it ends in order; a signal that comes before
 * it has mounted anything would leave the dead mounts. */
static void revive_view(struct fastspool *fs)
{
    struct seen seen;

    seen_look(fs, true, &seen);
    if (!tool_mount_again(fs, seen.state))
        return;
    for (uint64_t start = clock_monotonic(); seen.state != SEEN_MOUNTED && clock_monotonic() - start < REVIVAL_TIME;) {
        clock_sleep(LOOK_EVERY);
        seen_look(fs, true, &seen);
        tool_mount_again(fs, seen.state);
    }
}

/* Send @number to the view's process @pid, if that has the lock still, and, for SIGKILL, is stopped still.  By a
 * descriptor, as the number may be another process's by now.  -ESRCH: it is none of the view's any more. */
static int signal_view(const struct look *look, pid_t pid, int number)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    int result = fd < 0 ? -errno : 0;

    if (fd < 0)
        return result;
    pid_t now = number == SIGKILL ? seen_stopped(look->state) : launch_view_holder(look->state);
    if (now != pid)
        result = -ESRCH;
    else if (syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) < 0)
        result = -errno;
    close(fd);
    return result;
}

/* It was stopped or frozen.  The kernel ends its children, too. */
static bool kill_view(const struct look *look, pid_t pid)
{
    if (signal_view(look, pid, SIGKILL) < 0)
        return false;
    progress_pause();
    printf("the view of %s, process %ld, was stopped or frozen: it is killed\n", look->spool, (long)pid);
    return true;
}

static int still_runs(const struct look *look, pid_t pid, bool killed)
{
    if (killed)
        return tool_error(
            "the view of %s, process %ld, was killed, and is there still, as in a frozen control group: "
            "/proc/%ld/cgroup names it; thaw it, and run `fastspool stop` again",
            look->spool, (long)pid, (long)pid);
    if (pid == 0) /* in a service without CAP_SYS_PTRACE, or with PrivateUsers= */
        return tool_error(
            "a view of %s still runs after a minute, and which process that is can't be seen from here: run `fastspool "
            "stop` as root, outside of a sandbox",
            look->spool);
    return tool_error("a view of %s, process %ld, still runs a minute after the first signal to end", look->spool,
                      (long)pid);
}

/* A view whose lock was removed takes it again within a second. */
static void settle_lock(const struct look *look)
{
    uint64_t start = clock_monotonic();

    while (launch_view_lives(look->state) == 0 && launch_view_serves(look->state) &&
           launch_place_viewed(look->spool) > 0 && clock_monotonic() - start < SETTLE_TIME)
        clock_sleep(LOOK_EVERY);
}

/* The kernel names the process, not the header, which the mail user can write.  *@killed: that which was stopped, so
 * that what it has mounted is mounted still; 0: none.  One of each call is killed: another one may have come since. */
static int end_view(const struct look *look, pid_t *killed)
{
    char locker[LOCKER_SENTENCE];
    pid_t signalled = 0;

    *killed = 0;
    if (look->fs)
        launch_settle(&look->fs->header->view.starting, launch_view_lives, look->state);
    settle_lock(look);
    int lives = launch_view_lives(look->state);
    uint64_t start = clock_monotonic(), killed_at = 0;
    if (geteuid() != 0 && lives > 0)
        return tool_error("%s: a view runs, which only root can end: run `fastspool stop` as root", look->spool);
    if (lives != 0 && launch_view_holder(look->state) == 0 &&
        locker_find(look->state, PLACES_VIEW_LOCK, "view", locker))
        return tool_error("%s has no view to be ended, and none can be started: %s", look->spool, locker);
    for (; lives != 0; lives = launch_view_lives(look->state)) {
        pid_t pid = launch_view_holder(look->state);
        if (lives < 0 || pid < 0)
            return tool_error("%s: can't look whether a view runs: %s", look->spool,
                              strerrordesc_np(lives < 0 ? -lives : -pid));
        if (look->fs)
            hold_starts(&look->fs->header->view.starting);
        int result = pid > 0 && pid != signalled ? signal_view(look, pid, SIGTERM) : 0;
        if (result < 0 && result != -ESRCH)
            return tool_error("cannot end the view of %s, process %ld: %s", look->spool, (long)pid,
                              strerrordesc_np(-result));
        signalled = pid;
        uint64_t now = clock_monotonic();
        if (pid > 0 && !*killed && now - start > HALTED_TIME && seen_stopped(look->state) == pid &&
            kill_view(look, pid)) {
            *killed = pid;
            killed_at = now;
        }
        bool dying = pid > 0 && pid == *killed;
        if (now - (dying ? killed_at : start) > (dying ? KILLED_TIME : PATIENCE))
            return still_runs(look, pid, dying);
        clock_sleep(LOOK_EVERY);
    }
    if (look->fs)
        STORE(look->fs->header->view.starting, 0); /* the next process may start one at once */
    return 0;
}

/* Is @state another one than the configuration file names for @spool, which FASTSPOOL_STATE has led to? */
static bool is_elsewhere(const char *spool, const char *state)
{
    static const char variable[] = "FASTSPOOL_STATE";
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX], path[PLACES_PATH_MAX];
    struct stat st, named;
    const char *value = getenv(variable);
    char *given = value ? strdup(value) : NULL;

    if (!given)
        return false;
    unsetenv(variable);
    bool known = fastspool_config_load(&config, NULL, false, error) == 0 && stat(state, &st) == 0;
    setenv(variable, given, 1);
    free(given);
    if (known && config.state[0])
        snprintf(path, sizeof(path), "%s", config.state);
    else
        snprintf(path, sizeof(path), "%s/" PLACES_STATE, spool);
    return known && (stat(path, &named) < 0 || st.st_dev != named.st_dev || st.st_ino != named.st_ino);
}

/* No next start of Exim brings them back, as it knows nothing of @state. */
static void say_elsewhere(const char *spool, const char *state, uint64_t messages)
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], of[TOOL_OF_SPOOL];

    progress_pause();
    printf("%" PRIu64 " message%s in %s, which " FASTSPOOL_CONFIG
           " does not name: now run `%sFASTSPOOL_STATE=%s fastspool export`, before Exim starts\n",
           messages, messages == 1 ? " is" : "s are", state, tool_of_spool(spool, of),
           escape_word(word, sizeof(word), state));
}

/* Who takes the library away now would not see them, and looks here why. */
static void say_what_stays(struct fastspool *fs, bool view)
{
    struct fastspool_status status;

    if (fastspool_status(fs, &status) < 0 || status.messages == 0)
        return;
    if (is_elsewhere(fs->spool, fs->state)) {
        say_elsewhere(fs->spool, fs->state, status.messages);
        return;
    }
    progress_pause();
    printf("%" PRIu64 " message%s in the store: programs without the library ", status.messages,
           status.messages == 1 ? " stays" : "s stay");
    if (view && !LOAD(fs->header->view.unavailable))
        printf(
            "see mail again when the view is mounted (the next start of Exim with the library, or `fastspool run -- "
            "true`)");
    else
        printf("do not see %s, as %s", status.messages == 1 ? "it" : "them",
               view ? "no view can be mounted here" : "`view = off`");
    puts("; to leave fastspool see `man fastspool-disable`");
}

/* Did its recovery fail?  A store that was recovered has a batch number. */
static bool holds_nothing(const struct fastspool *fs)
{
    return LOAD(fs->header->state) == SEGMENT_FAILED && LOAD(fs->header->journal.batch) == 0;
}

/* The claim keeps others waiting until this process ends; they make a store anew.  A change that no commit has written
 * is in memory alone.  False: others use the store. */
static bool give_memory_back(const struct fastspool *fs)
{
    if (presence_claim(fs->presence_fd) < 0)
        return false;
    if (holds_nothing(fs) || (LOAD(fs->header->state) == SEGMENT_READY && LOAD(fs->header->tickets.dirty_files) == 0))
        memory_discard(fs);
    return true;
}

/* A dead one is mounted again before it ends, and so is one that had to be killed.  Whoever has stopped or frozen it
 * may do so with each new one. */
static int end_mounted_view(const struct look *look)
{
    pid_t killed = 0;
    int kills = 0;

    do {
        revive_view(look->fs);
        if (end_view(look, &killed) != 0)
            return 1;
        kills += killed > 0;
    } while (killed > 0 && kills < KILLS_MOST);
    return killed > 0 ? tool_error(
                            "%d views of %s were stopped or frozen, one after the other, and killed: what they had "
                            "mounted is mounted still; find what stops them, and run `fastspool stop` again",
                            kills, look->spool)
                      : 0;
}

static int stop(const struct fastspool_config *config, const struct look *look)
{
    struct fastspool *fs = look->fs;
    bool failed = holds_nothing(fs);
    int result = failed ? 0 : fastspool_flush(fs, 0);

    if (result < 0)
        return tool_error("cannot write all of %s to the disk, so the mirror goes on: %s%s", fs->spool,
                          strerrordesc_np(-result), error_is_full(result) ? ": make room, and try again" : "");
    if (end_mounted_view(look) != 0 || end_mirror(fs) != 0)
        return 1;
    if (LOAD(fs->header->disk.checkpoint_error) == -ESTALE)
        return tool_error(
            "a part of what %s had on the disk is gone, so its memory stays: start Exim; then "
            "`fastspool status` says what to do",
            fs->spool);
    if (failed) {
        progress_pause();
        printf("the store of %s could not be recovered, and holds nothing: the next use tries again\n", fs->spool);
    } else {
        say_what_stays(fs, look->view);
    }
    bool used = !give_memory_back(fs) && beside_users(config, fs);
    if (geteuid() == 0 && registry_remove(fs->spool) < 0)
        return 1;
    return used ? TOOL_STILL_USED : 0;
}

/* Of another version: the fields that every version keeps are enough to end its mirror and to give its memory back. */
static int stop_other_version(const struct look *look)
{
    char error[FASTSPOOL_ERROR_MAX];
    uint32_t version = 0;
    struct stat st;

    if (stat(look->spool, &st) < 0)
        return tool_error("cannot open %s: %s", look->spool, strerrordesc_np(errno));
    switch (upgrade_release(look->state, &st, &version, error)) {
    case UPGRADE_DONE:
        progress_pause();
        printf("the store of %s was of layout version %u: all of it is on the disk, and its memory is given back\n",
               look->spool, version);
        return geteuid() == 0 && registry_remove(look->spool) < 0;
    case UPGRADE_IN_USE:
        return tool_error(
            "the store of %s is of layout version %u, and a process uses it still: stop Exim, and run "
            "`fastspool stop` again",
            look->spool, version);
    case UPGRADE_MIRROR:
        return tool_error("the mirror of %s, of layout version %u, still runs a minute after it was asked to end",
                          look->spool, version);
    case UPGRADE_UNWRITTEN:
        return tool_error(
            "the store of %s, of layout version %u, has changes that are not on the disk, as its mirror "
            "was killed: use it once with the version before, and run `fastspool stop` again",
            look->spool, version);
    case UPGRADE_FAILED:
        return tool_error("%s: %s", look->spool, error);
    }
    return 1;
}

/* The view, which lives, may be another spool's, as that state is. */
static int refuse_others(const struct look *look)
{
    struct record record = {0};
    struct stat st;
    struct rights rights = rights_of_owner(look->owner, look->group);
    int fd = open(look->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool others = fd >= 0 && record_read(fd, &record) == 0 && stat(look->spool, &st) == 0 &&
                  !record_is_of(&record, &st, look->spool);

    rights_back(rights);
    if (fd >= 0)
        close(fd);
    return others ? tool_error("nothing was stopped: the state directory %s is in use for another spool, %s",
                               look->state, record.spool)
                  : 0;
}

/* Without a store nothing is to be written, but its view may be left.  It may even be what is in the way of the store:
 * its server lives, and can't be joined.  Then @look tells how it is without it. */
static int stop_without_store(const struct fastspool_config *config, struct look *look, const char *spool)
{
    int lives = launch_view_lives(look->state);
    pid_t killed;

    if (lives != 0 && refuse_others(look) != 0)
        return 1;
    if (end_view(look, &killed) != 0)
        return 1;
    if (lives > 0 && look->why[0] && look_begin(look, spool) != 0)
        return 1;
    if (look->fs)
        return stop(config, look);
    if (look->code == -EPROTO)
        return stop_other_version(look);
    if (look->why[0])
        return tool_error("%s", look->why);
    if (killed > 0)
        return tool_error(
            "%s has no store in memory, and what the killed view had mounted is mounted still: `fastspool run "
            "-- true` mounts it anew, and then `fastspool stop` takes it away",
            look->spool);
    progress_pause();
    printf("%s has no store in memory: nothing is to be stopped%s\n", look->spool,
           lives > 0 ? " but the view of an earlier one, which has ended" : "");
    struct census census = {0}; /* without the disk */
    if (is_elsewhere(look->spool, look->state) && states_census(look->state, &census) == 0 && census_held(&census) > 0)
        say_elsewhere(look->spool, look->state, census_held(&census));
    return 0;
}

static int stop_spool(const struct fastspool_config *config, const char *spool)
{
    struct look look;

    standstill_begin(spool, config, NULL);
    if (look_begin(&look, spool) != 0)
        return 1;
    if (look.fs)
        standstill_begin(spool, config, look.fs);
    int result = look.fs ? stop(config, &look) : stop_without_store(config, &look, spool);
    standstill_end();
    look_end(&look);
    return result;
}

/* The argument of --spool, or NULL.  *@seconds: that of --timeout, or 0. */
static const char *parse(int argc, char **argv, uint64_t *seconds)
{
    static const struct option known[] = {{"spool", required_argument, NULL, 's'},
                                          {"timeout", required_argument, NULL, 't'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    const char *spool = NULL;

    for (int option; (option = tool_option(argc, argv, known, usage)) != -1;) {
        if (option == 's')
            spool = tool_path("spool", optarg, usage);
        else
            *seconds = tool_number("timeout", "seconds", optarg, 1, usage);
    }
    tool_operands(argc, argv, 0, 0, NULL, usage);
    return spool;
}

int tool_stop(int argc, char **argv)
{
    struct fastspool_config config;
    uint64_t seconds = 0;
    const char *spool = parse(argc, argv, &seconds);
    int result = 0;

    if (tool_config(&config, spool) != 0)
        return 1;
    interrupt_says(UNFINISHED);
    if (seconds)
        standstill_limit(seconds, UNFINISHED);
    progress_begin("stopping");
    for (size_t i = 0; i < config.spools; i++) {
        int one = stop_spool(&config, config.spool[i]);
        result = result == 1 || one == 0 ? result : one;
    }
    progress_end();
    return result;
}

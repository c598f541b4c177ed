/* SPDX-License-Identifier: MIT
 *
 * What `fastspool status` finds out: of the store, or where there is none of the disk, and of the Exims.
 *
 * The happy path: the store is there, and is asked.
 *
 * Failure modes: each is a condition (severity.h), with a sentence.  Nothing here waits for the lock, the mirror, or
 * the view, but a moment for what is about to change by itself.  Nothing is changed: a view that is dead stays so.
 */
#include "status.h"

#include "asked.h"
#include "base/escape.h"
#include "base/places.h"
#include "config.h"
#include "exims.h"
#include "mirror/tally.h"
#include "mirrors.h"
#include "mountpoint.h"
#include "plain/export.h"
#include "queues.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "spool/locker.h"
#include "spool/runtime.h"
#include "spool/viewed.h"
#include "store/status.h"
#include "store/store.h"
#include "tool.h"
#include "ways.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- a look ---- */

static void look_at_commits(const struct header *header, struct shown *shown)
{
    shown->changes = LOAD(header->tickets.change);
    shown->commits_ns = LOAD(header->tickets.commits_ns);
    for (uint32_t octave = 0; octave < DURATIONS_OCTAVES; octave++)
        shown->classes[octave].commits = durations_upto(header, octave, &shown->classes[octave].below);
}

static void look_at_view(struct fastspool *fs, struct shown *shown)
{
    const struct view_state *view = &fs->header->view;

    seen_look(fs, shown->config->view, &shown->view);
    pid_t holder = launch_view_holder(fs->state);
    shown->view_pid = holder > 0 ? holder : 0;
    shown->locked = LOAD(view->locked);
    shown->conflicts = LOAD(view->conflicts);
    shown->left = LOAD(view->left);
    if (LOAD(view->status) == VIEW_MOUNTED)
        shown->hidden = shown->locked + shown->conflicts + shown->left;
}

static void look_at_recovery(const struct header *header, struct shown *shown)
{
    uint64_t done = LOAD(header->recovery.done), total = LOAD(header->recovery.total);

    shown->recovering = LOAD(header->state) == SEGMENT_RECOVERING;
    shown->recovered = total ? (unsigned)(100 * (done < total ? done : total) / total) : 0;
    if (shown->recovering && LOAD(header->recovery.error))
        shown->recovery = section_sentence(header, shown->sentence);
}

/* Which pages the memory has, and what it costs not to have huge ones (docs/benchmarks.md). */
static void look_at_pages(const struct fastspool *fs, struct shown *shown)
{
    char huge[MOUNTPOINT_VALUE], kernel[MOUNTPOINT_KERNEL];
    struct mountpoint mount;

    if (!mountpoint_of(fs->runtime, &mount))
        return;
    if (mountpoint_is_huge(&mount, huge, kernel))
        snprintf(shown->pages, sizeof(shown->pages), "2 MiB where the machine has them");
    else
        snprintf(shown->pages, sizeof(shown->pages),
                 "4 KiB, which cost some 10 %% more processor time a message: %.256s has no huge ones", mount.place);
}

/* Nobody else's files are in root's own file system.  In another one they may be, and have an eighth. */
static void look_at_memory(const struct fastspool *fs, struct shown *shown)
{
    uint64_t limit = shown->numbers.memory_limit;
    struct statvfs size;

    shown->runtime = fs->runtime;
    if (runtime_is_own(fs->runtime) || fstatvfs(fs->runtime_fd, &size) < 0 || size.f_blocks == 0)
        return;
    uint64_t left = shown->numbers.memory_bytes + (uint64_t)size.f_bavail * size.f_frsize;
    shown->spared = left < limit - limit / 8 ? left : 0;
}

_Static_assert(QUEUES_LINE <= STATUS_LINE, "what is said of a queue is one line");

static void look_at_store(struct fastspool *fs, struct shown *shown)
{
    char exims[PATH_MAX], journal[PLACES_PATH_MAX];
    struct mountpoint mount;

    shown->store = true;
    shown->failure = status_numbers(fs, &shown->numbers) < 0 ? section_sentence(fs->header, shown->sentence) : NULL;
    look_at_commits(fs->header, shown);
    look_at_view(fs, shown);
    look_at_pages(fs, shown);
    status_next_library(fs, shown);
    look_at_recovery(fs->header, shown);
    status_next_use(fs, shown);
    places_in_state(fs->state, PLACES_JOURNAL, journal);
    shown->read_only = mountpoint_of(journal, &mount) && mount.read_only;
    shown->checkpoint_error = LOAD(fs->header->disk.checkpoint_error);
    if (shown->checkpoint_error)
        locker_find(fs->state, PLACES_DATABASE "/" PLACES_DATABASE_LOCK, "mirror", shown->locker);
    shown->queues = queues_look(fs, shown->view.state == SEEN_MOUNTED, shown->line);
    look_at_memory(fs, shown);
    shown->blind =
        geteuid() == 0 && launch_view_lives(fs->state) > 0 ? exims_find_blind(shown->config, fs->runtime) : 0;
    shown->no_tool = access(FASTSPOOL_TOOL, X_OK) < 0 ? errno : 0;
    if (asked_spool(shown->config, exims) && strcmp(exims, fs->spool) == 0)
        shown->exim_limit = asked_limit(shown->config);
    shown->late = STATUS_SILENT + fs->header->flush_interval;
}

/* An import and a view hold the view's lock, as an export to the spool's own directory does.  Whether another export
 * runs takes an open file of the store to ask: that waits where the store stands, and is the mirror's alone until the
 * store is ready. */
static bool moves(struct fastspool *fs, const struct shown *shown)
{
    return launch_view_lives(fs->state) > 0 ||
           (shown->census.half > 0 && LOAD(fs->header->state) == SEGMENT_READY && export_runs(fs));
}

static void look_at_messages(struct fastspool *fs, struct shown *shown)
{
    census_take(&shown->census, fs, viewed(shown->spool) != 0);
    shown->numbers.messages = shown->census.store;
    shown->on_disk = shown->census.disk;
    shown->moves = moves(fs, shown);
}

/* ---- no store ---- */

/* Does nobody come, of himself, that brings mail back from the disk? */
static bool is_left_alone(const struct shown *shown)
{
    return shown->unattended && !shown->jobs.served;
}

/* Mail that was on the disk, and that no start brings back as things are. */
static enum health look_at_journal(struct shown *shown, const char *state)
{
    bool goes_on = shown->census.journal != TALLY_DETACHED;

    if (shown->census.journal == TALLY_NONE)
        snprintf(shown->more, sizeof(shown->more),
                 "the journal is missing in %.300s: put it back if you have it; otherwise mail that was not yet in the "
                 "database is lost, and the next start goes on with what the database has, %" PRIu64 " message%s",
                 state, shown->census.store, tool_plural(shown->census.store));
    else
        snprintf(shown->more, sizeof(shown->more),
                 "files of the journal are missing, or damaged, in %.300s: put them back if you have them; %s", state,
                 goes_on ? "otherwise what they had is lost, and the next start goes on without them"
                         : "without them no start brings the mail back; to go on with what the database has, move the "
                           "directory journal away");
    if (is_left_alone(shown) && goes_on)
        status_add_refusal(shown, shown->more);
    return severity_of(!goes_on                                       ? STORE_FAILS
                       : is_left_alone(shown) && shown->in_state != 0 ? MAIL_UNATTENDED
                                                                      : JOURNAL_LOST);
}

/* What the state directory @state says, with a sentence in `more`.  No stop, and no reboot, makes it milder. */
static enum health look_at_state(struct shown *shown, const char *state)
{
    if (shown->census.journal != TALLY_WHOLE)
        return look_at_journal(shown, state);
    bool stands = is_left_alone(shown);
    const char *what = stands ? "stands, as no Exim runs that has it, and is not lost" : "is not lost";
    static const char back[] =
        "the next start of Exim with the library brings it back, and so does `fastspool run -- true`";

    if (shown->unreadable)
        snprintf(shown->more, sizeof(shown->more),
                 "mail that it may have on the disk can't be read%s: %s; if neither does, `fastspool verify` says what "
                 "is damaged",
                 stands ? ", and no Exim runs that has it" : "", back);
    else if (shown->in_state < 0)
        snprintf(shown->more, sizeof(shown->more), "mail that it may have on the disk can't be counted now, and %s: %s",
                 what, back);
    else if (shown->in_state > 0)
        snprintf(shown->more, sizeof(shown->more), "mail that it has on the disk, of %" PRId64 " message%s, %s: %s",
                 shown->in_state, shown->in_state == 1 ? "" : "s", what, back);
    else if (census_held(&shown->census) > 0)
        snprintf(shown->more, sizeof(shown->more), "%.300s holds files of mail still, which Exim does not find", state);
    else
        snprintf(shown->more, sizeof(shown->more),
                 "it holds no mail on the disk: if you have left fastspool, remove %.300s", state);
    if (shown->in_state != 0 && stands)
        status_add_refusal(shown, shown->more);
    return severity_of(shown->in_state != 0              ? stands ? MAIL_UNATTENDED : MAIL_NOT_BACK
                       : census_held(&shown->census) > 0 ? IMPORT_STANDS
                                                         : NOT_USED);
}

/* Is there a file of the journal, whatever its number?  The first may be gone: a file whose write failed is removed. */
static bool has_journal(const char *state)
{
    char path[PATH_MAX + 32];
    uint32_t number;
    bool has = false;

    snprintf(path, sizeof(path), "%s/" PLACES_JOURNAL, state);
    DIR *directory = opendir(path);
    if (!directory)
        return errno != ENOENT;
    for (const struct dirent *entry; !has && (entry = readdir(directory));)
        has = places_parse_journal_file(entry->d_name, &number) == 0;
    closedir(directory);
    return has;
}

/* Where the database is, or a journal, there may be mail. */
static bool find_state(const struct shown *shown, char state[PATH_MAX])
{
    char path[PATH_MAX + 32];

    snprintf(state, PATH_MAX, "%s", shown->config->state);
    if (!state[0])
        snprintf(state, PATH_MAX, "%s/" PLACES_STATE, shown->spool);
    snprintf(path, sizeof(path), "%s/" PLACES_DATABASE "/data.mdb", state);
    return access(path, F_OK) == 0 || errno != ENOENT || has_journal(state);
}

/* After a reboot, after `fastspool stop`, and before anybody with the library has come. */
static enum health look_at_disk(struct shown *shown)
{
    char state[PATH_MAX];

    return find_state(shown, state) ? look_at_state(shown, state) : severity_of(NOT_USED);
}

/* On the plain disk and in the state.  @there: there may be one. */
static void count_without_store(struct shown *shown, bool there)
{
    char state[PATH_MAX];
    int result = -EBUSY;

    census_begin(&shown->census, shown->spool, viewed(shown->spool) > 0);
    if (there)
        result = find_state(shown, state) ? states_census(state, &shown->census) : 0;
    census_end(&shown->census);
    shown->in_state = result == 0 ? (int64_t)shown->census.store : -1;
    shown->unreadable = result < 0 && result != -EBUSY;
    shown->on_disk = shown->census.disk;
}

/* May this user not look?  Then there may be a store, or none. */
static bool is_closed(int result)
{
    return result == -EACCES && geteuid() != 0;
}

/* A user who may not search the spool finds no view there, mounted or not. */
static bool is_hidden(const char *spool)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/input", spool);

    return length < (int)sizeof(path) && access(path, F_OK) < 0 && errno == EACCES;
}

/* What is mounted without a store shows nothing, or is about to bring one back. */
static void look_at_mounts(struct shown *shown)
{
    int result = viewed(shown->spool);
    bool mounted = result > 0;

    shown->view.state = mounted                                 ? SEEN_MOUNTED
                        : !shown->config->view                  ? SEEN_OFF
                        : result < 0 || is_hidden(shown->spool) ? SEEN_UNKNOWN
                                                                : SEEN_UNMOUNTED;
    if (shown->view.state == SEEN_OFF)
        strcpy(shown->view.line, "off");
    else if (shown->view.state == SEEN_UNKNOWN && result < 0)
        snprintf(shown->view.line, sizeof(shown->view.line), "it can't be said whether it is mounted: %s",
                 strerrordesc_np(-result));
    else if (shown->view.state == SEEN_UNKNOWN)
        strcpy(shown->view.line, "the store is not to be seen by this user, nor whether a view is mounted");
    else
        snprintf(shown->view.line, sizeof(shown->view.line), "%s; %s", mounted ? "mounted" : "not mounted",
                 is_closed(shown->refused)        ? "the store is not to be seen by this user"
                 : mounted && shown->other.mirror ? "it shows the store of another state"
                 : shown->unknown                 ? "the store can't be looked at"
                                                  : "there is no store in memory");
}

static bool is_missing(const struct shown *shown)
{
    struct stat st;

    return stat(shown->spool, &st) < 0 || !S_ISDIR(st.st_mode);
}

/* Where there is no store to ask.  What keeps this process from it keeps Exim, too, but for a lack of rights. */
static enum health without_store(struct shown *shown, int result)
{
    if (is_missing(shown) || is_closed(result))
        return severity_of(is_missing(shown) ? SPOOL_MISSING : SPOOL_CLOSED);
    if (result == -EBUSY)
        snprintf(
            shown->more, sizeof(shown->more),
            "if the store of that process is gone, stop Exim, %s, run `fastspool stop`, and start Exim; `kill` what "
            "these do not end",
            ways_command("stop"));
    if (result == -EIO)
        strcpy(shown->more, "`fastspool verify` says what is damaged, `man fastspool-verify` what to do");
    return result == -ENOENT ? look_at_disk(shown) : severity_of(STORE_FAILS);
}

static void look_at_exims(struct shown *shown)
{
    bool daemon;

    if (geteuid() != 0)
        return;
    shown->without = exims_without(shown->config, &shown->found);
    shown->unattended = !exims_attend(shown->config, shown->config->spool[0], &daemon);
    shown->enabled = shown->unattended || shown->without != 0 ? ways_lead(shown->config) : ways_are_in();
    shown->passing = !shown->unattended && !daemon;
    if (shown->unattended || shown->passing)
        jobs_find(shown->config, shown->config->spool[0], &shown->jobs);
}

/* What Exim believes: it knows no environment, and no --spool. */
void status_look_at_configuration(struct shown *shown)
{
    struct fastspool_config believed;

    if (fastspool_config_load(&believed, NULL, false, shown->refusal) == 0)
        shown->refusal[0] = '\0';
    for (size_t i = 0; i < believed.spools; i++)
        shown->named = shown->named || strcmp(believed.spool[i], shown->spool) == 0;
}

/* The spool of this machine's Exim? */
static bool is_exims(const struct shown *shown)
{
    char spool[PATH_MAX];
    struct stat st, exims;

    return asked_spool(shown->config, spool) && stat(spool, &exims) == 0 && stat(shown->spool, &st) == 0 &&
           st.st_dev == exims.st_dev && st.st_ino == exims.st_ino;
}

/* One of Exim's own spool, where the configuration names others alone, is of each of these. */
static void look_elsewhere(struct shown *shown)
{
    struct fastspool_config believed;
    char error[FASTSPOOL_ERROR_MAX];

    bool believes = shown->named && fastspool_config_load(&believed, NULL, false, error) == 0;
    bool unnamed = believes && states_find_unnamed(&believed, &shown->other);
    strcpy(shown->unnamed, shown->other.spool);
    if (believes && !shown->unnamed[0] && !states_unnamed_spool(&believed, shown->exims) && is_exims(shown))
        asked_miscalled(&believed, shown->miscalled);
    if (!unnamed)
        states_find_other(shown->config, &shown->other);
}

/* Of several states, the worst counts. */
static void add(struct shown *shown, enum condition condition)
{
    shown->health = severity_worse(shown->health, severity_of(condition));
}

/* The mail of another state comes before all that is said of an empty one. */
static void tell_other(struct shown *shown)
{
    char found[STATES_SENTENCE], mend[STATES_SENTENCE];

    if (shown->other.state[0]) {
        states_describe(&shown->other, found, mend);
        snprintf(shown->more, sizeof(shown->more), "%s; %s", found, mend);
        add(shown, shown->other.messages ? OTHER_MAIL : OTHER_MIRROR);
    }
    if (shown->unnamed[0]) {
        if (!shown->other.messages)
            snprintf(shown->more, sizeof(shown->more), STATUS_UNNAMED, shown->unnamed, shown->unnamed);
        add(shown, SPOOL_UNNAMED);
    }
}

/* Mail on the plain disk is Exim's to deliver: with none that runs the spool is in use all the same. */
static void tell_plain(struct shown *shown)
{
    if (!shown->moves && status_half_moved(&shown->census, shown->more))
        add(shown, MAIL_HALF_MOVED);
    else if (shown->health != MAIL_STANDS && status_plain_stands(shown, shown->more))
        add(shown, PLAIN_UNATTENDED);
}

/* No start brings it back yet. */
static void tell_not_lost(struct shown *shown)
{
    if (shown->in_state != 0 && !shown->other.state[0])
        strcpy(shown->more, "mail that it has on the disk is not lost");
}

/* Where the next store's memory can't be made Exim has none.  (One without the library needs none: why the start that
 * would help does not is told with the mail.) */
static void tell_memory(struct shown *shown)
{
    struct stat st;

    if (shown->refused != -ENOENT || (shown->unattended && !shown->enabled) || stat(shown->spool, &st) < 0 ||
        !S_ISDIR(st.st_mode))
        return;
    status_next_memory(shown, st.st_uid, st.st_gid);
    if (!shown->memory[0])
        return;
    snprintf(shown->line, sizeof(shown->line), "%s; until that is mended Exim takes no mail", shown->memory);
    tell_not_lost(shown);
    add(shown, STATE_FAILS);
}

/* A state directory that can't be made, or used, is why there is no store, or none to be seen, and why Exim can take no
 * mail. */
static void tell_state(struct shown *shown)
{
    char error[FASTSPOOL_ERROR_MAX], state[PATH_MAX];

    find_state(shown, state);
    if ((shown->refused != -ENOENT && shown->refused != -EACCES && shown->refused != -EPERM &&
         shown->refused != -ENOTDIR && shown->refused != -EISDIR) ||
        is_missing(shown))
        return;
    int usable = status_next_state(shown, state, error);
    if (usable == 0)
        return;
    bool serves = shown->view.state == SEEN_MOUNTED && shown->other.mirror; /* what was started before, and the view */
    snprintf(
        shown->line, sizeof(shown->line), "%s; until that, or `%s` in " FASTSPOOL_CONFIG ", is mended %s", error,
        usable == -ENOSPC ? "runtime" : "state",
        serves
            ? "Exim's next start will take no mail; what was started before goes on with the state that the view shows"
        : shown->refused == -EPERM && !shown->unattended
            ? "an Exim that has the store delivers no mail, and what starts takes none"
            : "Exim takes no mail");
    if (usable == -ENODATA)
        shown->more[0] = '\0'; /* it may be lost */
    else
        tell_not_lost(shown);
    add(shown, STATE_FAILS);
}

/* A daemon stays with the store that it has, whatever its next start would find. */
static void tell_stranded(struct shown *shown)
{
    if (status_is_stranded(shown, shown->more))
        add(shown, EXIM_STRANDED);
}

/* The next start of Exim brings back another spool. */
static void tell_left(struct shown *shown)
{
    if (shown->in_state > 0 && status_is_left(shown, (uint64_t)shown->in_state, shown->more))
        add(shown, MAIL_LEFT);
}

/* What starts is refused a store of the command's version, and makes one that the mirror refuses. */
static void tell_differs(struct shown *shown)
{
    if (shown->health != NOT_IN_USE && status_differs(shown, shown->more))
        add(shown, LIBRARY_DIFFERS);
}

/* Exim is refused the spool: that comes before what else is missing.  A configuration that can't be read names no
 * spool: that of Exim may have a view. */
static void tell_refusal(struct shown *shown)
{
    char exims[PATH_MAX];
    bool by_view = asked_spool(shown->config, exims) && viewed(exims) > 0;

    strcpy(shown->line, shown->refusal);
    snprintf(shown->more, sizeof(shown->more), "until that is mended %s; then it looks again by itself",
             status_until_mended(by_view, false));
    add(shown, by_view ? CONFIGURATION_REFUSED_ON_VIEW : CONFIGURATION_REFUSED);
}

/* ---- all of it ---- */

/* A configured path may have control characters. */
static void escape_line(char line[STATUS_LINE])
{
    char shown[STATUS_LINE];

    strcpy(line, escape_controls(shown, sizeof(shown), line));
}

void status_look(const struct fastspool_config *config, struct shown *shown, struct fastspool **fs)
{
    *shown = (struct shown){.config = config, .spool = config->spool[0], .without = -1, .in_state = -1};
    status_look_at_configuration(shown);
    mirrors_settle(config);
    look_at_exims(shown);
    look_elsewhere(shown);
    installed_differs(shown->differs);
    int result = attach_open(config->spool[0], config, fs, shown->line);

    if (result < 0) {
        *fs = NULL;
        shown->refused = result;
        shown->unknown = result != -ENOENT;
        count_without_store(shown, result == -ENOENT && !is_missing(shown));
        shown->health = without_store(shown, result);
        look_at_mounts(shown);
        if (shown->named && is_missing(shown))
            strncat(shown->line, ": make it, or take that line out of " FASTSPOOL_CONFIG,
                    sizeof(shown->line) - strlen(shown->line) - 1);
        tell_stranded(shown);
        tell_plain(shown);
        tell_left(shown);
        tell_differs(shown);
        tell_other(shown);
        tell_memory(shown);
        tell_state(shown);
        if (shown->refusal[0])
            tell_refusal(shown);
    } else {
        shown->spool = (*fs)->spool;
        look_at_store(*fs, shown);
        look_at_messages(*fs, shown);
        status_judge(shown);
    }
    escape_line(shown->line);
    escape_line(shown->more);
}

/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: the store, the view, and mail outside of them.
 *
 * Happy path: `fastspool status` says that all is well, the view is mounted, and no message lies on the disk.
 *
 * Failure modes: the disk below a view can't be looked at by a kernel before 5.2: then nothing is said about it.
 */
#include "base/escape.h"
#include "base/places.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "plain/census.h"
#include "queues.h"
#include "seen.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "spool/upgrade.h"
#include "spool/viewed.h"
#include "states.h"
#include "status.h"
#include "store/inside.h"
#include "tool.h"
#include "ways.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES "%.200s"

/* ---- the store ---- */

/* `fastspool status` is the judge of a store, and says what to do.  Where there is none, its second sentence does. */
static void tell_status(struct doctor *doctor, const char *spool)
{
    static const char name[] = "fastspool: ";
    const char *const arguments[] = {"sh", "-c", "exec \"$0\" status --spool \"$1\" 2>&1", FASTSPOOL_TOOL, spool, NULL};
    char output[COMMAND_OUTPUT], *rest = NULL;

    if (access(FASTSPOOL_TOOL, X_OK) < 0) {
        doctor_tell(doctor, DOCTOR_WRONG, ways_install(false), "%s, which starts mirror and view: %s", FASTSPOOL_TOOL,
                    strerrordesc_np(errno));
        return;
    }
    int health = command_run(arguments, NULL, output);
    const char *line = strtok_r(output, "\n", &rest), *more = line ? strtok_r(NULL, "\n", &rest) : NULL;
    bool store = !line || strncmp(line, name, strlen(name)) != 0;
    bool says = more && strncmp(more, name, strlen(name)) == 0;
    doctor_tell(doctor, health < 0 ? DOCTOR_WRONG : doctor_verdict((enum health)health),
                says ? more + strlen(name) : NULL, "%s",
                !line   ? "`fastspool status` says nothing"
                : store ? line
                        : line + strlen(name));
}

/* Exim's spool, and those of other Exims. */
void doctor_store(struct doctor *doctor)
{
    struct stat st;

    if (!doctor->spool[0] || doctor->refusal[0]) /* of that "configuration" has told, and status would say no more */
        return;
    tell_status(doctor, doctor->spool);
    for (size_t i = 0; i < doctor->config.spools; i++) {
        const char *spool = doctor->config.spool[i];
        if (!doctor_is_exims(doctor, spool) && stat(spool, &st) == 0 && S_ISDIR(st.st_mode)) /* else "spool" has told */
            tell_status(doctor, spool);
    }
}

/* Has the state on the disk a queue, which no start takes from the plain disk? */
static bool has_database(const struct doctor *doctor)
{
    char database[PLACES_PATH_MAX];

    places_in_state(doctor->state, PLACES_DATABASE "/data.mdb", database);
    return access(database, F_OK) == 0 || errno != ENOENT;
}

/* Of a store that could not be attached: can no start have it?  (Others may, that do more than a look.) */
static bool is_closed_to_all(const struct doctor *doctor, int result)
{
    struct stat st;

    return result == -ENOSYS ||
           (result == -EPROTO && stat(doctor->spool, &st) == 0 && upgrade_is_unwritten(doctor->state, &st));
}

/* With --start there is no look at the store yet; else "store" has told of it, where it is in memory. */
void doctor_queues(struct doctor *doctor)
{
    char line[QUEUES_LINE], why[FASTSPOOL_ERROR_MAX];
    struct fastspool *fs = NULL;
    enum queues found = QUEUES_OPEN;

    if (!doctor->spool[0] || doctor->refusal[0] || doctor->fs)
        return;
    int result = attach_open(doctor->spool, &doctor->config, &fs, why);
    if (result == 0) {
        found = queues_look(fs, viewed(doctor->spool) > 0, line);
        fastspool_detach(fs);
    } else if (result == -ENOENT && has_database(doctor)) {
        found = queues_look_in_state(doctor->state, doctor->spool, doctor->owner, doctor->group, line);
    } else if (result == -ENOENT) {
        found = queues_look_on_disk(doctor->spool, doctor->owner, doctor->group, line);
    }
    if (found != QUEUES_OPEN)
        doctor_tell(doctor, doctor_verdict(severity_of(found == QUEUES_REFUSED ? QUEUE_CLOSED : QUEUES_MANY)),
                    "as said", "%s", line);
    else if (doctor->start && is_closed_to_all(doctor, result))
        doctor_tell(doctor, doctor_verdict(severity_of(STORE_FAILS)), "as said", "%s", why);
    else if (result == -ENOENT)
        doctor_tell(doctor, DOCTOR_OK, NULL, "its directories are the spool owner's to use");
}

/* Of the store in memory, or else of the state on the disk, as `fastspool status` counts.  @view: one covers the disk.
 * False: it can't be said. */
static bool count(const struct doctor *doctor, bool view, struct census *census)
{
    if (doctor->fs) {
        census_take(census, doctor->fs, view);
        return !inside_failed(doctor->fs);
    }
    census_begin(census, doctor->spool, view);
    bool known = states_census(doctor->state, census) == 0;
    census_end(census);
    return known;
}

/* What is to be done about mail that stands.  No Exim finds what is half moved: that goes first, as an export is
 * refused beside an Exim; and no start that would be refused is advised. */
static void say_start(const struct doctor *doctor, char mend[STATUS_LINE])
{
    struct shown shown = {.config = &doctor->config, .enabled = ways_lead(&doctor->config)};

    count(doctor, viewed(doctor->spool) > 0, &shown.census);
    if (status_half_moved(&shown.census, mend))
        return;
    mend[0] = '\0';
    if (doctor->jobs.alone)
        strcpy(mend, jobs_mend(&doctor->jobs));
    else
        status_add_start(&shown, mend, "%sstart Exim, %s%s", shown.enabled ? "" : "`fastspool enable`, and ",
                         ways_command("start"), shown.enabled ? "" : "; or `fastspool export` to leave");
}

/* -1: it can't be said. */
static int64_t count_mail(const struct doctor *doctor)
{
    char database[PLACES_PATH_MAX];
    struct census census;

    places_in_state(doctor->state, PLACES_DATABASE "/data.mdb", database);
    if (!doctor->fs && access(database, F_OK) < 0)
        return 0;
    return count(doctor, viewed(doctor->spool) > 0, &census) ? (int64_t)census.store : -1;
}

bool doctor_mail_stands(const struct doctor *doctor)
{
    return doctor->spool[0] && count_mail(doctor) != 0 && !exims_attend(&doctor->config, doctor->spool, NULL);
}

/* "store" says why, and what to do. */
static bool is_refused(const struct doctor *doctor)
{
    return doctor->attached < 0 && doctor->attached != -ENOENT;
}

/* A damaged state is one that no start brings back. */
static void tell_uncounted(struct doctor *doctor, enum verdict verdict, const char *mend)
{
    char more[STATUS_LINE + 128];

    snprintf(more, sizeof(more), "%s; if no start brings it back, `fastspool verify` says what is damaged", mend);
    doctor_tell(doctor, verdict, more, "%s may hold mail, %s", doctor->state,
                is_refused(doctor) ? "which can't be counted now" : "and no store is in memory");
}

/* Of a store or state that has them.  @messages: -1: it can't be said. */
static void tell_mail(struct doctor *doctor, int64_t messages)
{
    bool stands = !exims_attend(&doctor->config, doctor->spool, NULL) && !doctor->jobs.served;
    enum health health = severity_of(stands ? MAIL_UNATTENDED : doctor->fs ? IN_ORDER : MAIL_NOT_BACK);
    const char *where = doctor->fs ? "" : " in ", *state = doctor->fs ? "" : doctor->state;
    char mend[STATUS_LINE] =
        "`fastspool run -- true` brings it back, and so does the next start of Exim with the library";

    if (is_refused(doctor) && stands)
        snprintf(mend, sizeof(mend), "mend what \"store\" says, and start Exim, %s", ways_command("start"));
    else if (is_refused(doctor))
        strcpy(mend, messages < 0 ? "mend what \"store\" says; then `fastspool run -- true` brings it back, and so "
                                    "does the next start of Exim with the library"
                                  : "mend what \"store\" says: then Exim has it again");
    else if (stands)
        say_start(doctor, mend);
    if (messages < 0)
        tell_uncounted(doctor, doctor_verdict(health), mend);
    else if (stands)
        doctor_tell(doctor, doctor_verdict(health), mend, "%" PRId64 " message%s%s%s: no Exim that runs has the store",
                    messages, messages == 1 ? " stands" : "s stand", where, state);
    else
        doctor_tell(doctor, doctor_verdict(health), doctor->fs ? NULL : mend, "%" PRId64 " message%s%s%s%s", messages,
                    tool_plural((uint64_t)messages), where, state, doctor->fs ? "" : ", and no store is in memory");
}

void doctor_unattended(struct doctor *doctor)
{
    char database[PLACES_PATH_MAX];

    if (!doctor->spool[0])
        return;
    int64_t messages = count_mail(doctor);
    if (messages < 0 && doctor->fs)
        return; /* "store" has said why */
    places_in_state(doctor->state, PLACES_DATABASE "/data.mdb", database);
    if (messages != 0)
        tell_mail(doctor, messages);
    else if (doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "0 messages");
    else if (access(database, F_OK) == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none, in memory or in %s", doctor->state);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "none: the spool has not been used with fastspool");
}

/* ---- the view ---- */

static void tell_view(struct doctor *doctor, const struct seen *seen)
{
    static const enum condition conditions[] = {
        [SEEN_MOUNTED] = IN_ORDER,         [SEEN_STARTING] = VIEW_STARTING, [SEEN_DEAD] = VIEW_DEAD,
        [SEEN_UNMOUNTED] = VIEW_UNMOUNTED, [SEEN_OFF] = IN_ORDER,           [SEEN_UNAVAILABLE] = IN_ORDER};
    enum verdict verdict = doctor_verdict(severity_of(conditions[seen->state]));

    if (seen->stopped)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_STOPPED)), seen->mend,
                    "%s: programs without the library wait, as does mailq", seen->line);
    else if (seen->covered)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_COVERED)), seen->mend,
                    "%s: programs without the library do not see the store", seen->line);
    else if (seen->state == SEEN_DEAD)
        doctor_tell(doctor, verdict, seen->mend, "%s: programs without the library see an error, mailq an empty queue",
                    seen->line);
    else if (seen->state == SEEN_UNMOUNTED)
        doctor_tell(doctor, verdict, seen->mend, "not mounted: programs without the library see the plain disk alone");
    else if (seen->state == SEEN_MOUNTED && seen->locker[0])
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_LAST)), "as said",
                    "%s; after its end no other one can be: %s", seen->line, seen->locker);
    else if (seen->state == SEEN_UNAVAILABLE && seen->locker[0])
        doctor_tell(doctor, DOCTOR_ATTENTION, "as said; then `fastspool run -- true` mounts it", "%s", seen->line);
    else if (seen->state == SEEN_UNAVAILABLE)
        doctor_tell(doctor, DOCTOR_ATTENTION, "mend that, and `fastspool run -- true`; or say `view = off`", "%s",
                    seen->line); /* as on such a machine: "readers" tells what that means */
    else
        doctor_tell(doctor, verdict, NULL, "%s", seen->line);
}

void doctor_view(struct doctor *doctor)
{
    enum view_obstacle obstacle;
    struct seen seen = {.state = SEEN_OFF};
    int error = doctor->config.view ? launch_view_obstructed(&obstacle) : 0;

    if (!doctor->spool[0])
        return;
    if (doctor->fs)
        seen_look(doctor->fs, doctor->config.view, &seen);
    if (error && seen.state == SEEN_MOUNTED)
        doctor_tell(doctor, DOCTOR_ATTENTION, "mend that before the machine, or the view, is started again",
                    "%s; after its end no view can be mounted: %s: %s", seen.line, launch_view_obstacle(obstacle),
                    strerrordesc_np(error));
    else if (error)
        doctor_tell(doctor, DOCTOR_ATTENTION,
                    "let this machine or container mount it, or say `view = off` in " FASTSPOOL_CONFIG
                    " and see \"readers\"",
                    "no view can be mounted: %s: %s", launch_view_obstacle(obstacle), strerrordesc_np(error));
    else if (!doctor->config.view && seen.state != SEEN_MOUNTED && seen.state != SEEN_DEAD)
        doctor_tell(doctor, DOCTOR_OK, NULL, "off, as the configuration says");
    else if (!doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none yet: the start of Exim with the library mounts it");
    else
        tell_view(doctor, &seen);
}

/* ---- mail on the plain disk ---- */

/* Without a view.  The same is said by `fastspool status`, which says nothing of what goes on. */
static void tell_plain(struct doctor *doctor, int64_t messages)
{
    struct exims_found found;
    struct shown shown = {.config = &doctor->config,
                          .on_disk = messages,
                          .enabled = ways_lead(&doctor->config),
                          .unattended = !exims_attend(&doctor->config, doctor->spool, NULL),
                          .without = exims_without(&doctor->config, &found),
                          .jobs = doctor->jobs,
                          .view.state = SEEN_OFF};
    const char *plural = tool_plural((uint64_t)messages), *them = messages == 1 ? "it" : "them";

    if (status_plain_stands(&shown, shown.line)) {
        say_start(doctor, shown.line);
        doctor_tell(doctor, doctor_verdict(severity_of(PLAIN_UNATTENDED)), shown.line,
                    "%" PRId64 " message%s on the plain disk stand%s: no Exim runs", messages, plural,
                    messages == 1 ? "s" : "");
    } else if (shown.unattended && shown.without == 0)
        doctor_tell(doctor, doctor_verdict(severity_of(PLAIN_GOES_ON)), NULL,
                    "%" PRId64 " message%s on the plain disk, and no Exim runs: the next one delivers %s", messages,
                    plural, them);
    else
        doctor_tell(doctor, doctor_verdict(severity_of(PLAIN_GOES_ON)), NULL,
                    "%" PRId64 " message%s on the plain disk: the next queue run delivers %s%s", messages, plural, them,
                    shown.unattended      ? ""
                    : doctor->config.view ? ", or the next view imports it: `fastspool run -- true`"
                                          : ", or `fastspool import` takes what is there into the store");
}

/* Each message is in the store, or here. */
void doctor_plain(struct doctor *doctor)
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], mend[sizeof(word) + 128];
    struct census census;

    if (!doctor->spool[0])
        return;
    bool view = viewed(doctor->spool) != 0, imports = launch_view_lives(doctor->state) > 0;
    count(doctor, view, &census);
    int64_t messages = census.disk;

    snprintf(mend, sizeof(mend), STATUS_HIDDEN, escape_word(word, sizeof(word), doctor->spool));
    if (messages < 0)
        doctor_tell(doctor, DOCTOR_ATTENTION, NULL, "the disk%s can't be looked at: %s", view ? " below the view" : "",
                    strerrordesc_np((int)-messages));
    else if (messages == 0 && census.remains == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none%s", view ? ", below the view, too" : "");
    else if (messages && view)
        doctor_tell(doctor, doctor_verdict(severity_of(PLAIN_HIDDEN)), mend,
                    "the view hides %" PRId64 " message%s of the disk", messages, tool_plural((uint64_t)messages));
    else if (imports)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_STARTING)), "wait: see `fastspool status`",
                    "%" PRId64 " message%s on the plain disk, which the view is importing", messages,
                    tool_plural((uint64_t)messages));
    else if (messages)
        tell_plain(doctor, messages);
    else
        doctor_tell(doctor, doctor_verdict(severity_of(IMPORT_STANDS)),
                    "`fastspool import`, or the start of a view, removes them, or says why one stays",
                    "files of %" PRIu64 " message%s that the store has, as an interrupted import or export leaves them",
                    census.remains, tool_plural(census.remains));
}

/* ---- readers without the library ---- */

/* Without a view: who reads or fills the queue from cron?  exim_tidydb works on SPOOL/db alone, which is on the disk.
 */
static void tell_readers(struct doctor *doctor)
{
    static const char *const search[] = {
        "sh", "-c",
        "grep -lsrE '(^|[^[:alnum:]_])(mailq|exiqgrep|exipick|exiqsumm|exim4?|sendmail|mail)([^[:alnum:]_]|$)' "
        "/etc/crontab /etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly "
        "/var/spool/cron/crontabs /etc/ppp/ip-up.d | sort | paste -sd ' '",
        NULL};
    char found[COMMAND_OUTPUT];

    command_run(search, NULL, found);
    doctor_tell(doctor, DOCTOR_ATTENTION, "`fastspool run -- COMMAND`, or `fastspool enable --everywhere`",
                "without a view, programs without the library see the plain disk alone, and no mail in the store; what "
                "they send lies on the disk: mailq, exiqgrep, monitors%s" NAMES,
                found[0] ? ", and of cron and ppp " : "", found);
}

void doctor_readers(struct doctor *doctor)
{
    struct seen seen = {.state = SEEN_OFF};

    if (!doctor->spool[0])
        return;
    if (doctor->fs)
        seen_look(doctor->fs, doctor->config.view, &seen);
    if (seen.stopped)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_STOPPED)), "`fastspool run -- COMMAND`, or see \"view\"",
                    "while the view is stopped programs without the library wait");
    else if (seen.covered)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_COVERED)), "`fastspool run -- COMMAND`, or see \"view\"",
                    "programs without the library do not see the view, and miss messages");
    else if (seen.state == SEEN_MOUNTED || (!doctor->fs && viewed(doctor->spool) > 0))
        doctor_tell(doctor, DOCTOR_OK, NULL, "every program sees the queue, by the view");
    else if (seen.state == SEEN_STARTING)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_STARTING)), "`fastspool run -- COMMAND`, or wait",
                    "until the view is mounted programs without the library miss messages");
    else if (seen.state == SEEN_DEAD || seen.state == SEEN_UNMOUNTED)
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_UNMOUNTED)), "`fastspool run -- COMMAND`, or see \"view\"",
                    "until the view is mounted programs without the library miss messages");
    else if (doctor->config.view && !doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "every program will see the queue, when the view is mounted");
    else if (count_mail(doctor) == 0 && !exims_attend(&doctor->config, doctor->spool, NULL))
        doctor_tell(doctor, DOCTOR_OK, NULL,
                    "every program sees the queue: all of it is on the plain disk, until Exim runs with the library");
    else
        tell_readers(doctor);
}

/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: the store, the view, and mail outside of them.
 *
 * Happy path: `fastspool status` says that all is well, the view is mounted, and no message lies on the disk.
 *
 * Failure modes: the disk below a view can't be looked at by a kernel before 5.2: then nothing is said about it.
 */
#include "base/places.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "plain/census.h"
#include "seen.h"
#include "spool/launch.h"
#include "spool/viewed.h"
#include "states.h"
#include "status.h"
#include "store/inside.h"
#include "tool.h"

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
    static const enum verdict verdicts[] = {
        [WELL] = DOCTOR_OK, [ATTENTION] = DOCTOR_ATTENTION, [MAIL_STANDS] = DOCTOR_WRONG, [NOT_IN_USE] = DOCTOR_OK};
    static const char name[] = "fastspool: ";
    const char *const arguments[] = {"sh", "-c", "exec \"$0\" status --spool \"$1\" 2>&1", FASTSPOOL_TOOL, spool, NULL};
    char output[COMMAND_OUTPUT], *rest = NULL;

    int health = command_run(arguments, NULL, output);
    const char *line = strtok_r(output, "\n", &rest), *more = line ? strtok_r(NULL, "\n", &rest) : NULL;
    bool store = !line || strncmp(line, name, strlen(name)) != 0;
    bool says = more && strncmp(more, name, strlen(name)) == 0;
    doctor_tell(doctor, health >= WELL && health <= NOT_IN_USE ? verdicts[health] : DOCTOR_WRONG,
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

/* Where no store is in memory. */
static void tell_state(struct doctor *doctor)
{
    static const char *const mend = "start Exim with the library: it brings back what is there";
    struct census census;

    census_begin(&census, doctor->spool, viewed(doctor->spool) > 0);
    bool known = states_census(doctor->state, &census);
    census_end(&census);
    uint64_t messages = census.store;
    if (!known)
        doctor_tell(doctor, DOCTOR_ATTENTION, mend, "%s may hold mail, and no store is in memory", doctor->state);
    else if (messages == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none, in memory or in %s", doctor->state);
    else if (exims_attend(&doctor->config, doctor->spool))
        doctor_tell(doctor, DOCTOR_ATTENTION, mend, "%" PRIu64 " message%s in %s, and no store is in memory", messages,
                    tool_plural(messages), doctor->state);
    else
        doctor_tell(doctor, DOCTOR_WRONG, mend, "%" PRIu64 " message%s in %s: no Exim that runs has the store",
                    messages, messages == 1 ? " stands" : "s stand", doctor->state);
}

static void tell_unattended(struct doctor *doctor)
{
    struct census census;

    census_take(&census, doctor->fs, viewed(doctor->spool) > 0);
    uint64_t messages = census.store;
    if (messages > 0 && !exims_attend(&doctor->config, doctor->spool))
        doctor_tell(
            doctor, DOCTOR_WRONG, "start Exim with the library (`fastspool enable`), or `fastspool export` to leave",
            "%" PRIu64 " message%s: no Exim that runs has the store", messages, messages == 1 ? " stands" : "s stand");
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%" PRIu64 " message%s", messages, tool_plural(messages));
}

void doctor_unattended(struct doctor *doctor)
{
    char database[PLACES_PATH_MAX];

    if (!doctor->spool[0])
        return;
    places_in_state(doctor->state, PLACES_DATABASE "/data.mdb", database);
    if (!doctor->fs && access(database, F_OK) == 0)
        tell_state(doctor);
    else if (!doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none: the spool has not been used with fastspool");
    else if (inside_failed(doctor->fs))
        return; /* "store" has said why */
    else
        tell_unattended(doctor);
}

/* ---- the view ---- */

void doctor_view(struct doctor *doctor)
{
    enum view_obstacle obstacle;
    struct seen seen = {.state = SEEN_OFF};
    int error = doctor->config.view ? launch_view_obstructed(&obstacle) : 0;

    if (!doctor->spool[0])
        return;
    if (doctor->fs)
        seen_look(doctor->fs, doctor->config.view, &seen);
    if (error)
        doctor_tell(doctor, DOCTOR_ATTENTION,
                    "let this machine or container mount it, or say `view = off` and see \"readers\"",
                    "no view can be mounted: %s: %s", launch_view_obstacle(obstacle), strerrordesc_np(error));
    else if (!doctor->config.view && seen.state != SEEN_MOUNTED && seen.state != SEEN_DEAD)
        doctor_tell(doctor, DOCTOR_OK, NULL, "off, as the configuration says");
    else if (!doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none yet: the start of Exim with the library mounts it");
    else
        doctor_tell(doctor,
                    seen.state == SEEN_MOUNTED                                ? DOCTOR_OK
                    : seen.state == SEEN_DEAD || seen.state == SEEN_UNMOUNTED ? DOCTOR_WRONG
                                                                              : DOCTOR_ATTENTION,
                    seen.state == SEEN_DEAD || seen.state == SEEN_UNMOUNTED ? "`fastspool run -- true`" : NULL, "%s",
                    seen.line);
}

/* ---- mail on the plain disk ---- */

/* As `fastspool status` counts. */
static void count(const struct doctor *doctor, bool view, struct census *census)
{
    if (doctor->fs) {
        census_take(census, doctor->fs, view);
        return;
    }
    census_begin(census, doctor->spool, view);
    states_census(doctor->state, census);
    census_end(census);
}

void doctor_plain(struct doctor *doctor)
{
    struct census census;

    if (!doctor->spool[0])
        return;
    bool view = viewed(doctor->spool) != 0, imports = launch_view_lives(doctor->state) > 0;
    count(doctor, view, &census);
    int64_t messages = census.disk;

    if (messages < 0)
        doctor_tell(doctor, DOCTOR_ATTENTION, NULL, "the disk%s can't be looked at: %s", view ? " below the view" : "",
                    strerrordesc_np((int)-messages));
    else if (messages == 0 && census.remains == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none%s", view ? ", below the view, too" : "");
    else if (messages && view)
        doctor_tell(doctor, DOCTOR_WRONG, "syslog says why each stays; see \"on the disk\" of `fastspool status`",
                    "the view hides %" PRId64 " message%s of the disk", messages, tool_plural((uint64_t)messages));
    else if (imports)
        doctor_tell(doctor, DOCTOR_ATTENTION, "wait: see `fastspool status`",
                    "%" PRId64 " message%s on the plain disk, which the view is importing", messages,
                    tool_plural((uint64_t)messages));
    else if (messages)
        doctor_tell(doctor, DOCTOR_ATTENTION, "start Exim with the library: it delivers them, and a view imports them",
                    "%" PRId64 " message%s on the plain disk", messages, tool_plural((uint64_t)messages));
    else
        doctor_tell(doctor, DOCTOR_ATTENTION,
                    "`fastspool import`, or the start of a view, removes them, or says why one stays",
                    "files of %" PRIu64 " message%s that the store has, as an interrupted import or export leaves them",
                    census.remains, tool_plural(census.remains));
}

/* ---- readers without the library ---- */

/* What reads or fills the queue from cron.  exim_tidydb works on SPOOL/db alone, which is on the disk. */
void doctor_readers(struct doctor *doctor)
{
    static const char *const search[] = {
        "sh", "-c",
        "grep -lsrE '(^|[^[:alnum:]_])(mailq|exiqgrep|exipick|exiqsumm|exim4?|sendmail|mail)([^[:alnum:]_]|$)' "
        "/etc/crontab /etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly "
        "/var/spool/cron/crontabs /etc/ppp/ip-up.d | sort | tr '\\n' ' '",
        NULL};
    char found[COMMAND_OUTPUT];

    if (!doctor->spool[0])
        return;
    if (viewed(doctor->spool) > 0) {
        doctor_tell(doctor, DOCTOR_OK, NULL, "every program sees the queue, by the view");
        return;
    }
    command_run(search, NULL, found);
    struct seen seen = {.state = SEEN_OFF};
    if (doctor->fs)
        seen_look(doctor->fs, doctor->config.view, &seen);
    if (seen.state == SEEN_STARTING)
        doctor_tell(doctor, DOCTOR_ATTENTION, "`fastspool run -- COMMAND`, or wait",
                    "until the view is mounted programs without the library miss messages");
    else if (doctor->config.view && !doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "every program will see the queue, when the view is mounted");
    else
        doctor_tell(doctor, DOCTOR_ATTENTION, "`fastspool run -- COMMAND`, or " EXIMS_LIBRARY " in /etc/ld.so.preload",
                    "without a view, programs without the library see an empty queue, and what they send lies on the "
                    "disk: mailq, exiqgrep, monitors%s" NAMES,
                    found[0] ? ", and of cron and ppp " : "", found);
}

/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: the configuration, Exim's own, and the Exims that run.
 *
 * Happy path: /etc/fastspool.conf can be believed and names Exim's image and its spool, which belongs to Exim's user;
 * every Exim that runs is served by the library.
 *
 * Failure modes: an Exim of another spool counts as one of this, as no process tells which spool it uses; but for a
 * daemon with a configuration of its own, which works in its spool directory.
 */
#include "asked.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "moved.h"
#include "spool/attach.h"
#include "spool/viewed.h"
#include "states.h"
#include "status.h"
#include "unit.h"
#include "ways.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOLD_MAX    5 /* processes by name; the rest is counted */
#define DOCTOR_MEND (2 * ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX) + 256)
#define UPDATE      "/usr/sbin/update-exim4.conf" /* Debian's: Exim's configuration is generated anew before each start */

/* Is there a store, and an Exim that has it?  With --start no other check needs the store. */
static bool is_attended(struct doctor *doctor)
{
    char why[FASTSPOOL_ERROR_MAX];
    struct fastspool *fs = NULL;
    bool store = doctor->fs || (doctor->spool[0] && attach_open(doctor->spool, &doctor->config, &fs, why) == 0);

    if (fs)
        fastspool_detach(fs);
    return store && exims_attend(&doctor->config, doctor->spool, NULL);
}

void doctor_configuration(struct doctor *doctor)
{
    char mend[512], closed[SEEN_CLOSED];
    bool attended = doctor->refusal[0] && is_attended(doctor);

    snprintf(mend, sizeof(mend),
             "mend it, and run `fastspool doctor` again; an Exim that runs looks again by itself; until then %s",
             status_until_mended(doctor->spool[0] && viewed(doctor->spool) > 0, attended));
    if (doctor->refusal[0])
        doctor_tell(doctor, DOCTOR_WRONG, mend, "%s", doctor->refusal); /* its next start */
    else if (doctor->spool[0] && doctor->config.view && seen_closed(doctor->owner, doctor->group, closed))
        doctor_tell(doctor, doctor_verdict(severity_of(VIEW_UNMOUNTED)), "as said", "%s", closed); /* its next start */
    else if (access(FASTSPOOL_CONFIG, F_OK) < 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "there is no %s: the defaults hold", FASTSPOOL_CONFIG);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s can be believed", FASTSPOOL_CONFIG);
}

static bool is_named(const struct doctor *doctor, const struct stat *image)
{
    struct stat st;
    bool named = false;

    for (size_t i = 0; i < doctor->config.programs && !named; i++)
        named = stat(doctor->config.program[i], &st) == 0 && st.st_dev == image->st_dev && st.st_ino == image->st_ino;
    return named;
}

void doctor_program(struct doctor *doctor)
{
    char mend[PATH_MAX + 128];
    struct stat st;

    snprintf(mend, sizeof(mend), "say `program = %s` in " FASTSPOOL_CONFIG ", and %s", doctor->exim,
             ways_command("restart"));
    if (!doctor->exim[0] || stat(doctor->exim, &st) < 0)
        doctor_tell(doctor, DOCTOR_WRONG, "install Exim, or name its image as `program` in " FASTSPOOL_CONFIG,
                    "no Exim is found");
    else if (!is_named(doctor, &st))
        doctor_tell(doctor, DOCTOR_WRONG, mend, "the configuration names no `program` that is %s: it is not served",
                    doctor->exim);
    else if (st.st_uid != 0 || (st.st_mode & 022))
        doctor_tell(doctor, DOCTOR_WRONG, "install Exim again", "%s is not root's alone to write: it is not served",
                    doctor->exim);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s is a `program` of the configuration", doctor->exim);
}

/* ---- the spool ---- */

bool doctor_is_exims(const struct doctor *doctor, const char *spool)
{
    char *real = realpath(spool, NULL);
    bool is = real && strcmp(real, doctor->spool) == 0;

    free(real);
    return is;
}

/* The spools of other Exims.  Returns how many there are. */
static size_t look_at_others(struct doctor *doctor)
{
    size_t others = 0;
    struct stat st;

    for (size_t i = 0; i < doctor->config.spools; i++) {
        const char *spool = doctor->config.spool[i];
        int error = stat(spool, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
        if (doctor_is_exims(doctor, spool))
            continue;
        others++;
        if (error)
            doctor_tell(doctor, DOCTOR_ATTENTION, "make it, or take that line out of " FASTSPOOL_CONFIG,
                        "the configuration names the spool %s: %s", spool, strerrordesc_np(error));
    }
    return others;
}

void doctor_spool(struct doctor *doctor)
{
    const char *ask = access(UPDATE, X_OK) == 0 ? "run `" UPDATE
                                                  "`, as the start of Exim does, run that again, and mend what it says"
                                                : "run it and mend what it says";
    char path[PATH_MAX], mend[PATH_MAX + 128];

    if (!doctor->exim[0])
        return;
    if (!doctor_option(doctor, "spool_directory", path, sizeof(path))) {
        doctor_tell(doctor, DOCTOR_WRONG, ask, "`%s -bP spool_directory` says nothing", doctor->exim);
        return;
    }
    snprintf(mend, sizeof(mend), "say `spool = %s` in " FASTSPOOL_CONFIG ", and %s", path, ways_command("restart"));
    size_t others = look_at_others(doctor);
    if (!doctor->spool[0])
        doctor_tell(doctor, DOCTOR_WRONG, "make it, as Exim's package does", "Exim's spool %s is no directory", path);
    else if (others == doctor->config.spools)
        doctor_tell(doctor, DOCTOR_WRONG, mend, "the configuration does not name Exim's spool, %s", path);
    else if (!asked_is_known(&doctor->config, path))
        doctor_tell(
            doctor, DOCTOR_WRONG, mend,
            "the configuration does not name Exim's spool as Exim does, %s, and the library goes by no other link",
            path);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s, as Exim and the configuration say", path);
    if (others && doctor->config.state[0])
        doctor_tell(doctor, DOCTOR_WRONG, "take `state` out of " FASTSPOOL_CONFIG ": each spool has a .fastspool then",
                    "the configuration names several spools, and one `state`: one spool at a time can use it");
}

static bool find_uid(const char *user, uid_t *uid)
{
    char *end;
    const struct passwd *entry = getpwnam(user);
    unsigned long number = strtoul(user, &end, 10);

    if (!entry && (*user < '0' || *user > '9' || *end))
        return false;
    *uid = entry ? entry->pw_uid : (uid_t)number;
    return true;
}

/* The chown that helps: of all, for a spool that was restored with another machine's user numbers; or of the one
 * directory that was given away by hand. */
static void say_chown(const struct doctor *doctor, const char *user, bool state_is_given, char mend[DOCTOR_MEND])
{
    char spool[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], state[sizeof(spool)];
    bool outside = doctor->config.state[0];

    escape_word(spool, sizeof(spool), doctor->spool);
    escape_word(state, sizeof(state), doctor->state);
    if (!doctor->given_away)
        snprintf(mend, DOCTOR_MEND, "`chown -R %s: %s`", user, state);
    else if (!state_is_given)
        snprintf(mend, DOCTOR_MEND, "`chown %s: %s`", user, spool);
    else
        snprintf(mend, DOCTOR_MEND, "`fastspool stop; chown -R %s: %s%s%s`", user, spool, outside ? " " : "",
                 outside ? state : "");
}

void doctor_user(struct doctor *doctor)
{
    char user[128], other[ERROR_USER], mend[DOCTOR_MEND];
    uid_t uid;
    struct stat st;

    if (!doctor->spool[0] || !doctor_option(doctor, "exim_user", user, sizeof(user)) || !find_uid(user, &uid))
        return;
    bool exists = stat(doctor->state, &st) == 0;
    doctor->given_away = uid != doctor->owner;
    say_chown(doctor, user, !exists || st.st_uid != uid, mend);
    if (doctor->given_away)
        doctor_tell(doctor, DOCTOR_WRONG, mend, "%s belongs to %s, and Exim runs as %s, user %u", doctor->spool,
                    error_user(doctor->owner, other), user, (unsigned)uid);
    else if (exists && st.st_uid != uid && st.st_uid != 0)
        doctor_tell(doctor, DOCTOR_WRONG, mend,
                    "%s is %s's, mode %04o: it has to be %s's or root's, and writable by that user alone",
                    doctor->state, error_user(st.st_uid, other), st.st_mode & 07777, user);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s, the spool's owner", user);
}

/* Where the mail is on the disk. */
void doctor_state(struct doctor *doctor)
{
    struct fastspool_config config = doctor->config;
    char error[FASTSPOOL_ERROR_MAX], found[STATES_SENTENCE], mend[STATES_SENTENCE];
    struct states_other others[STATES_MOST];

    if (!doctor->spool[0] || doctor->refusal[0] || doctor->given_away)
        return;
    strcpy(config.spool[0], doctor->spool);
    int usable = states_usable(&config, error);
    if (usable < 0) /* some say themselves what to do */
        doctor_tell(doctor, DOCTOR_WRONG,
                    usable == -ENOSPC ? "make room there, or say `runtime` in " FASTSPOOL_CONFIG
                    : usable == -EPERM || usable == -EROFS || usable == -EWOULDBLOCK || usable == -ENODATA
                        ? "as said, or mend `state` in " FASTSPOOL_CONFIG
                        : "mend `state` in " FASTSPOOL_CONFIG,
                    "%s", error);
    size_t count = states_find_others(&config, others);
    for (size_t i = 0; i < count; i++) {
        states_describe(&others[i], found, mend);
        doctor_tell(doctor, doctor_verdict(severity_of(others[i].messages ? OTHER_MAIL : OTHER_MIRROR)), mend, "%s",
                    found);
    }
    if (count == 0 && usable == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s, and no other one holds mail", doctor->state);
}

/* Exim empties its environment, and executes itself.  The library puts LD_PRELOAD back, unless Exim sets another. */
void doctor_environment(struct doctor *doctor)
{
    char kept[1024] = "", added[1024] = "";

    if (!doctor_option(doctor, "keep_environment", kept, sizeof(kept)))
        return;
    doctor_option(doctor, "add_environment", added, sizeof(added));
    const char *preload = strstr(added, "LD_PRELOAD");
    if (preload && !strstr(preload, EXIMS_LIBRARY))
        doctor_tell(doctor, DOCTOR_ATTENTION, "take LD_PRELOAD out of Exim's `add_environment`",
                    "`add_environment = %s` puts another LD_PRELOAD before what Exim runs", added);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL,
                    "the library gives itself to Exim's own processes, whatever `keep_environment = %s` keeps", kept);
}

/* ---- the Exims that run ---- */

/* The advice to start Exim by @command, behind @before; or why its start would be refused, where that helps not. */
static const char *advise(const char *before, const char *command)
{
    static char mend[STATUS_LINE];
    const struct shown shown = {.enabled = ways_are_in()};

    mend[0] = '\0';
    status_add_start(&shown, mend, "%s%s", before, command);
    return mend;
}

struct running {
    struct doctor *doctor;
    bool view;
    size_t daemons;
    size_t bad, none; /* that count for none: ordinary users', and without the library all but daemons */
    enum verdict worst;
};

static bool counts(const struct exims_process *process)
{
    return !process->users && !process->foreign && (process->served || process->daemon);
}

/* @before: as for advise(), NULL: no restart helps. */
static const char *mend_of(const struct doctor *doctor, const struct exims_process *process, const char *before)
{
    static char mend[STATUS_LINE + 64];
    char word[ESCAPE_WORD_ROOM(MOUNTPOINT_PLACE)];

    if (!before)
        return process->elsewhere ? "run all Exims of the spool in one container, or outside"
                                  : exims_bind(doctor->fs->runtime);
    if (!process->library)
        return advise(before, unit_restart(process->pid, doctor->leads));
    if (!process->stranded)
        return advise(before, ways_command("restart"));
    if (process->over[0]) {
        snprintf(mend, sizeof(mend), MOVED_UNMOUNT, escape_word(word, sizeof(word), process->over));
        return mend;
    }
    if (process->moved[0])
        return MOVED_MEND;
    /* of a daemon that has ended a connection may go on */
    snprintf(mend, sizeof(mend), "%s; where that does not end it, `kill %ld`", advise(before, ways_command("restart")),
             (long)process->pid);
    return mend;
}

static const char *stranded(const struct exims_process *process)
{
    static char found[sizeof(MOVED_FOUND) + FASTSPOOL_PATH_MAX + MOUNTPOINT_PLACE];

    if (process->over[0])
        snprintf(found, sizeof(found), MOVED_BELOW, process->moved, process->over);
    else if (!process->moved[0])
        return "has a store that was removed by hand, its memory or its locks: it takes no mail";
    else
        snprintf(found, sizeof(found), MOVED_FOUND, process->moved);
    return found;
}

static enum verdict look_at(struct doctor *doctor, const struct exims_process *process, bool viewed, bool silent)
{
    const char *found = NULL, *before = "";
    enum verdict verdict = DOCTOR_WRONG;

    if (!counts(process))
        return DOCTOR_OK;
    if (!process->served)
        verdict = doctor_verdict(severity_of(viewed                       ? EXIM_ON_VIEW
                                             : doctor_mail_stands(doctor) ? EXIM_BESIDE_MAIL
                                                                          : EXIM_ON_DISK));
    if (process->library && !process->served) {
        found = viewed ? "has the library, which serves nothing there: it works on the view, more slowly"
                       : "has the library, which serves nothing there: it sees, and takes, mail on the disk alone";
        before = "see in syslog, `serves nothing: ...`, why, mend that, and ";
    } else if (!process->served) {
        found = viewed ? "has not got the library: it works on the view, more slowly"
                       : "has not got the library, and there is no view: it sees, and takes, mail on the disk alone";
    } else if (process->elsewhere) {
        found = "lives in another PID namespace: processes of one spool have to live in one";
        before = NULL;
    } else if (process->stranded) {
        found = stranded(process);
        verdict = doctor_verdict(severity_of(EXIM_STRANDED));
    } else if (viewed && doctor->fs && exims_is_blind(process, doctor->fs->runtime)) {
        found = "has mounts of its own, and does not see the store's memory: it takes no mail";
        before = NULL;
        verdict = doctor_verdict(severity_of(EXIM_BLIND));
    } else if (process->replaced) {
        found = doctor->leads ? "runs an image that was replaced"
                              : "runs an image that was replaced, and gets the library no more when it is restarted";
        before = doctor->leads ? "" : "`fastspool enable`, and ";
        verdict = DOCTOR_ATTENTION;
    } else {
        return DOCTOR_OK;
    }
    if (!silent)
        doctor_tell(doctor, verdict, mend_of(doctor, process, before), "process %ld (%s) %s", (long)process->pid,
                    process->command, found);
    return verdict;
}

static bool judge(void *context, const struct exims_process *process)
{
    struct running *running = context;
    enum verdict verdict = look_at(running->doctor, process, running->view, running->bad >= TOLD_MAX);

    running->bad += verdict != DOCTOR_OK;
    running->none += !counts(process);
    running->daemons += counts(process) && process->daemon;
    running->worst = verdict > running->worst ? verdict : running->worst;
    return false;
}

void doctor_running(struct doctor *doctor)
{
    struct running running = {
        .doctor = doctor, .view = doctor->spool[0] && viewed(doctor->spool) > 0, .worst = DOCTOR_OK};
    size_t number = exims_each(&doctor->config, doctor->exim, judge, &running);
    if (running.bad > TOLD_MAX)
        doctor_tell(doctor, running.worst, advise("", unit_restart(0, doctor->leads)), "%zu more like these",
                    running.bad - TOLD_MAX);
    size_t hidden = exims_hidden(&doctor->config);
    if (running.daemons == 0 && doctor->spool[0])
        jobs_find(&doctor->config, doctor->spool, &doctor->jobs);
    if (hidden)
        doctor_tell(doctor, DOCTOR_ATTENTION, DOCTOR_LOOKS, "%zu process%s called like Exim and can't be looked at",
                    hidden, hidden == 1 ? " is" : "es are");
    else if (doctor->jobs.alone)
        doctor_tell(doctor, doctor->jobs.served ? DOCTOR_OK : DOCTOR_ATTENTION,
                    doctor->jobs.served ? NULL : jobs_mend(&doctor->jobs), "%s", jobs_describe(&doctor->jobs));
    else if (number == running.none)
        doctor_tell(doctor, DOCTOR_ATTENTION, advise("", ways_command("start")), "no Exim runs%s",
                    number ? " but those of ordinary users, or of other spools, and some that end soon" : "");
    else if (running.daemons == 0)
        doctor_tell(doctor, DOCTOR_ATTENTION, advise("", ways_command("start")),
                    "no Exim daemon runs, only %zu that the library serves and that end soon", number - running.none);
    else if (running.bad == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "%zu, with the library, which serves them", number - running.none);
}

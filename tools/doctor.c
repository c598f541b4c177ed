/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: this machine and this Exim, one line a check: what was found, and what to do about it.
 *
 * The happy path: every line says ok.  With --start nothing is said: Exim may start, it will be served.
 *
 * Failure modes: each check is a function, and has its own.  What a check needs, and an earlier one has found missing,
 * is told once, by the earlier one.  Nothing is changed, and no check waits for the store, its mirror or the view.
 */
#include "doctor.h"

#include "asked.h"

#include "base/escape.h"
#include "base/places.h"
#include "base/rights.h"
#include "config.h"
#include "mirrors.h"
#include "progress.h"
#include "spool/attach.h"
#include "spool/runtime.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#define FINDINGS (1 << 18) /* bytes of them that are kept until the end */

static const char usage[] =
    "usage: fastspool doctor [--start] [--preload LIST] [--json]\n"
    "Looks at this machine and this Exim, as root, and says what is right, what is not, and what to do.\n"
    "--start: before a start of Exim, as a service's ExecStartPre: says only why it would not be served.\n"
    "--preload LIST: as if Exim's next start had this LD_PRELOAD.\n"
    "--json: one JSON object.\n"
    "Exit status: 0 all is right; 1 something needs attention; 2 something is wrong (with --start: Exim would not be\n"
    "served, or acknowledged mail would not be safe); 64 wrong arguments; 77 it has to be run as root.\n";

static const struct check {
    const char *subject;
    bool start; /* also with --start */
    void (*look)(struct doctor *doctor);
} checks[] = {
    {"users", true, doctor_users},
    {"library", true, doctor_installed},
    {"secure execution", true, doctor_secure},
    {"configuration", true, doctor_configuration},
    {"program", true, doctor_program},
    {"spool", true, doctor_spool},
    {"exim user", true, doctor_user},
    {"state", true, doctor_state},
    {"exim environment", true, doctor_environment},
    {"start of exim", true, doctor_preload},
    {"other libraries", true, doctor_ahead},
    {"running exims", false, doctor_running},
    {"services", false, doctor_services},
    {"memory", true, doctor_memory},
    {"huge pages", false, doctor_huge_pages},
    {"disk", true, doctor_disk},
    {"barriers", false, doctor_barriers},
    {"fdatasync", false, doctor_syncs},
    {"processes", false, doctor_namespace},
    {"RemoveIPC", false, doctor_remove_ipc},
    {"store", false, doctor_store},
    {"queue", true, doctor_queues},
    {"mail in the store", false, doctor_unattended},
    {"view", false, doctor_view},
    {"mail on the disk", false, doctor_plain},
    {"readers", false, doctor_readers},
};

/* ---- findings ---- */

static const char *const verdicts[] = {[DOCTOR_OK] = "ok", [DOCTOR_ATTENTION] = "attention", [DOCTOR_WRONG] = "wrong"};

static void print_finding(const struct doctor *doctor, enum verdict verdict, const char *found, const char *mend)
{
    char shown[ESCAPE_ROOM(2 * PATH_MAX)];

    if (!doctor->json) {
        printf("%-9s  %-17s  %s", verdicts[verdict], doctor->subject, escape_controls(shown, sizeof(shown), found));
        printf(mend ? DOCTOR_TO_DO "%s\n" : "\n", mend ? escape_controls(shown, sizeof(shown), mend) : NULL);
        return;
    }
    printf("%s{\"check\": ", doctor->told ? ", " : "");
    tool_print_json(doctor->subject);
    printf(", \"verdict\": \"%s\", \"found\": ", verdicts[verdict]);
    tool_print_json(found);
    if (mend) {
        printf(", \"do\": ");
        tool_print_json(mend);
    }
    putchar('}');
}

void doctor_tell(struct doctor *doctor, enum verdict verdict, const char *mend, const char *format, ...)
{
    char found[2 * PATH_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(found, sizeof(found), format, arguments);
    va_end(arguments);
    if (doctor->start && verdict == DOCTOR_WRONG)
        tool_error("Exim must not start so: %s: %s%s%s", doctor->subject, found, mend ? DOCTOR_TO_DO : "",
                   mend ? mend : "");
    if (!doctor->start || doctor->json)
        print_finding(doctor, verdict, found, mend);
    doctor->told++;
    doctor->worst = verdict > doctor->worst ? verdict : doctor->worst;
}

enum verdict doctor_verdict(enum health health)
{
    static const enum verdict verdicts_of[] = {
        [WELL] = DOCTOR_OK, [ATTENTION] = DOCTOR_ATTENTION, [MAIL_STANDS] = DOCTOR_WRONG, [NOT_IN_USE] = DOCTOR_OK};

    return health <= NOT_IN_USE ? verdicts_of[health] : DOCTOR_WRONG;
}

/* ---- the patient ---- */

/* The first image that the configuration names and that exists, else the one that Exim's packages have. */
static void find_exim(struct doctor *doctor)
{
    static const char *const usual[] = {"/usr/sbin/exim4", "/usr/sbin/exim", "/usr/exim/bin/exim"};
    const char *found = asked_program(&doctor->config);

    for (size_t i = 0; i < sizeof(usual) / sizeof(*usual) && !found; i++)
        found = access(usual[i], X_OK) == 0 ? usual[i] : NULL;
    if (found)
        strcpy(doctor->exim, found);
}

bool doctor_option(const struct doctor *doctor, const char *name, char *value, size_t room)
{
    return asked_option(doctor->options, name, value, room);
}

static void ask_exim(struct doctor *doctor)
{
    const char *const arguments[] = {
        doctor->exim,         "-bP", "spool_directory", "exim_user", "keep_environment", "add_environment",
        "message_size_limit", NULL};

    if (doctor->exim[0] && command_run(arguments, NULL, doctor->options) != 0)
        doctor->options[0] = '\0';
}

static void find_spool(struct doctor *doctor)
{
    char path[PATH_MAX], real[PATH_MAX];
    struct stat st;

    if (!doctor_option(doctor, "spool_directory", path, sizeof(path)))
        snprintf(path, sizeof(path), "%s", doctor->config.spools ? doctor->config.spool[0] : "");
    if (!realpath(path, real) || stat(real, &st) < 0 || !S_ISDIR(st.st_mode) ||
        strlen(real) + sizeof("/" PLACES_STATE) > sizeof(doctor->spool))
        return;
    strcpy(doctor->spool, real);
    doctor->owner = st.st_uid;
    doctor->group = st.st_gid;
    if (doctor->config.state[0])
        strcpy(doctor->state, doctor->config.state);
    else
        stpcpy(stpcpy(doctor->state, doctor->spool), "/" PLACES_STATE);
}

/* Of the store that there is, else of the next one.  "": the start of Exim will mount a tmpfs of its own. */
static void find_memory(struct doctor *doctor)
{
    struct stat st = {.st_uid = doctor->owner};
    char own[FASTSPOOL_PATH_MAX];

    if (doctor->config.runtime[0])
        strcpy(doctor->runtime, doctor->config.runtime);
    else if (doctor->fs)
        strcpy(doctor->runtime, doctor->fs->runtime);
    else if (runtime_own(doctor->spool, &st, own))
        strcpy(doctor->runtime, own);
    else
        strcpy(doctor->runtime, rights_may_mount() ? "" : PLACES_MEMORY);
}

static void meet(struct doctor *doctor)
{
    if (fastspool_config_load(&doctor->config, NULL, false, doctor->refusal) == 0)
        doctor->refusal[0] = '\0';
    find_exim(doctor);
    ask_exim(doctor);
    find_spool(doctor);
    doctor->attached = -ENOENT;
    if (!doctor->start && doctor->config.spools)
        mirrors_settle(&doctor->config);
    if (!doctor->start && doctor->spool[0])
        doctor->attached = attach_open(doctor->spool, &doctor->config, &doctor->fs, doctor->why);
    if (doctor->attached < 0)
        doctor->fs = NULL;
    find_memory(doctor);
}

static void parse(int argc, char **argv, struct doctor *doctor)
{
    static const struct option options[] = {{"start", no_argument, NULL, 's'},
                                            {"preload", required_argument, NULL, 'p'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};

    for (int option; (option = tool_option(argc, argv, options, usage)) != -1;) {
        if (option == 's')
            doctor->start = true;
        else if (option == 'j')
            doctor->json = true;
        else
            doctor->preload = optarg;
    }
    tool_operands(argc, argv, 0, 0, NULL, usage);
}

/* The findings come together, behind the line that shows the progress. */
static void examine(struct doctor *doctor)
{
    static char findings[FINDINGS];
    const size_t count = sizeof(checks) / sizeof(*checks);

    setvbuf(stdout, findings, _IOFBF, sizeof(findings));
    if (!doctor->start)
        progress_begin("looking");
    meet(doctor);
    if (doctor->json)
        printf("{\"findings\": [");
    for (size_t i = 0; i < count && !doctor->lacks_users; i++) {
        progress_at(i, count);
        doctor->subject = checks[i].subject;
        if (checks[i].start || !doctor->start)
            checks[i].look(doctor);
    }
    progress_at(count, count);
    if (doctor->json)
        printf("], \"verdict\": \"%s\"}\n", verdicts[doctor->worst]);
    if (!doctor->start)
        progress_end();
    fflush(stdout);
}

int tool_doctor(int argc, char **argv)
{
    static struct doctor doctor;

    parse(argc, argv, &doctor);
    if (geteuid() != 0) {
        tool_error(
            "only root can look into Exim's processes and run it as another user: run `fastspool doctor` as "
            "root");
        return EX_NOPERM;
    }
    examine(&doctor);
    if (doctor.fs)
        fastspool_detach(doctor.fs);
    if (doctor.start)
        return doctor.worst == DOCTOR_WRONG ? DOCTOR_WRONG : DOCTOR_OK;
    return (int)doctor.worst;
}

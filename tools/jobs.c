/* SPDX-License-Identifier: MIT
 *
 * The jobs that run the queue on a machine where no daemon of Exim is to run.
 *
 * Debian's service starts none where /etc/default/exim4 says QUEUERUNNER=nodaemon: mail waits for the next queue run of
 * cron's then, and nothing is amiss between two of them.
 *
 * Happy path: a file of cron's, of systemd's or of ppp's calls `exim4 -q`, `sendmail -q` or runq; and those calls have
 * the store, as they work on the view, or their image needs the library, or the file gives it to them: by `fastspool
 * run` before the call, by LD_PRELOAD, or as it reads /etc/default/exim4, if `fastspool enable` has put that there.
 *
 * Failure modes: who runs the queue from elsewhere, as from another machine, is not found: then mail counts as
 * standing. A file that has the words and does nothing counts.  An ordinary user's crontab does not: he could hide with
 * it that mail stands.
 */
#include "jobs.h"

#include "command.h"
#include "exims.h"
#include "spool/viewed.h"
#include "ways.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_alone(void)
{
    static const char *const script[] = {"sh", "-c", ". " WAYS_DEFAULTS " >&2; printf %s \"$QUEUERUNNER\"", NULL};
    char value[COMMAND_OUTPUT];

    return access(WAYS_DEFAULTS, R_OK) == 0 && command_run(script, NULL, value) == 0 && strcmp(value, "nodaemon") == 0;
}

/* A queue run.  (-q with a time is a daemon.) */
#define CALL                                                                                                 \
    "((exim4?|sendmail)[[:blank:]]([^#|;&]*[[:blank:]])?-q[qifl]*(G[^[:blank:]]*)?|(^|[[:blank:]/\"'])runq)" \
    "([[:blank:]|;&>)\"'`]|$)"

/* "2FILE": of one whose queue runs get the library by it; "1FILE": if WAYS_DEFAULTS has that; "0FILE": of another one;
 * "": there is none.  cron reads no name with a dot, and no directory below. */
static void search(char found[COMMAND_OUTPUT])
{
    static const char *const script[] = {
        "sh",
        "-c",
        "{ find -L /etc/crontab /etc/cron.d /var/spool/cron/crontabs/root -maxdepth 1 -type f ! -name '*.*'; "
        "find -L /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly -maxdepth 1 -type f -perm /111 "
        "! -name '*.*'; "
        "find -L /etc/systemd/system -maxdepth 2 -type f -name '*.service'; "
        "if test -x /usr/sbin/pppd; then find -L /etc/ppp/ip-up.d -maxdepth 1 -type f; fi; } | "
        "xargs -rd '\\n' grep -lsE \"^[^#]*$1\" | while read -r file; do "
        "if grep -qE \"^[^#]*(fastspool[[:blank:]]+run([[:blank:]][^#|;&]*)?$1|LD_PRELOAD=[^#]*" EXIMS_LIBRARY
        ")\" \"$file\"; then how=2; "
        "elif grep -q '^[^#]*" WAYS_DEFAULTS
        "' \"$file\"; then how=1; else how=0; fi; echo \"$how$file\"; "
        "done | sort -r | head -n 1",
        "sh",
        CALL,
        NULL};

    if (command_run(script, NULL, found) != 0)
        found[0] = '\0';
}

void jobs_find(const struct fastspool_config *config, const char *spool, struct jobs *jobs)
{
    char found[COMMAND_OUTPUT];

    *jobs = (struct jobs){.alone = is_alone()};
    if (!jobs->alone)
        return;
    search(found);
    if (!found[0])
        return;
    snprintf(jobs->file, sizeof(jobs->file), "%.*s", PATH_MAX - 1, found + 1);
    jobs->served = found[0] == '2' || (found[0] == '1' && ways_by_defaults()) || viewed(spool) > 0 || ways_need(config);
}

const char *jobs_describe(const struct jobs *jobs)
{
    static char said[PATH_MAX + 192];

    snprintf(said, sizeof(said), "no daemon is to run, by QUEUERUNNER in " WAYS_DEFAULTS ", and %s%s%s",
             !jobs->file[0] ? "no job of cron's is found that runs the queue"
             : jobs->served ? ""
                            : "the queue runs of ",
             jobs->file,
             !jobs->file[0] ? ""
             : jobs->served ? " runs the queue"
                            : " have neither the library nor a view");
    return said;
}

const char *jobs_mend(const struct jobs *jobs)
{
    return jobs->file[0] ? "say `fastspool run -- ` before the call there"
                         : "let cron run `fastspool run -- exim4 -q`, which does it now, too";
}

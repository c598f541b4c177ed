/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: what systemd says of the services of Exim and of the spools.
 *
 * A spool's service that fails, at each start anew or for good, takes no mail away: the next Exim starts mirror and
 * view itself.  They are in its control group then, under its limits, and nothing else tells of it.
 *
 * Happy path: no service has failed, or waits for its next start after a failure.
 *
 * Failure modes: where systemd is not process 1, or does not answer, nothing is told.  A service between two failures,
 * which is just being started, is told the next time.
 */
#include "base/escape.h"
#include "command.h"
#include "doctor.h"
#include "ways.h"

#include <stdio.h>
#include <string.h>

#define UNIT 256 /* the longest name of one, and a NUL */

/* @line: "UNIT loaded failed failed DESCRIPTION". */
static void tell_unit(struct doctor *doctor, const char *line)
{
    bool exims = strncmp(line, "exim", 4) == 0;
    char unit[UNIT], word[ESCAPE_WORD_ROOM(UNIT)], mend[2 * sizeof(word) + 96];

    snprintf(unit, sizeof(unit), "%.*s", (int)strcspn(line, " "), line);
    snprintf(mend, sizeof(mend), "`journalctl -b -n 20 -u %s` says why; mend that, and `systemctl restart %s`",
             escape_word(word, sizeof(word), unit), word);
    doctor_tell(
        doctor, DOCTOR_ATTENTION, mend, "%s has failed%s", unit,
        exims ? ", or its start was refused"
              : ": the mirror that Exim starts instead is in its control group, under its limits, and ends with it");
}

void doctor_services(struct doctor *doctor)
{
    static const char *const list[] = {"systemctl",
                                       "list-units",
                                       "--plain",
                                       "--full",
                                       "--no-legend",
                                       "--state=failed",
                                       "--state=auto-restart",
                                       "fastspool@*.service",
                                       "exim4.service",
                                       "exim.service",
                                       NULL};
    char output[COMMAND_OUTPUT], *rest = NULL;

    if (!ways_booted() || command_run(list, NULL, output) != 0)
        return;
    if (!output[0])
        doctor_tell(doctor, DOCTOR_OK, NULL, "systemd says of none that it has failed");
    for (char *line = strtok_r(output, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        tell_unit(doctor, line + strspn(line, " "));
}

/* SPDX-License-Identifier: MIT
 *
 * Removals of messages that are refused.
 *
 * Exim gives a message's -H file a new version (hdr.ID becomes ID-H), opens the directory, and syncs it.  If one of the
 * last two fails, Exim removes the -H file, also of a message that was accepted long ago: lost.  They fail where the
 * server dies just then, and the removal comes to the next server; or where the disk fails.
 *
 * Happy path: a process that is older than this server, or whose sync of a directory has just failed, may not go on
 * with the removal of a message's files: two of them are refused, if no other change comes before.  A receiver removes
 * -H and -D: it has acknowledged nothing, and the message stays and is delivered.  A delivery that has done so begins
 * with something else, or ends with the error and leaves -J: the next delivery completes.
 * It counts for processes named like Exim alone, and of an older one only if the file was changed in the minute before
 * this server began.
 *
 * Failure modes: a process of another PID namespace, or one that /proc hides (hidepid), is unknown, and may.
 */
#include "view/removals.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/started.h"
#include "spool/exim.h"

#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define PIDS     (1 << 22)       /* the kernel's PID_MAX_LIMIT */
#define LONG_AGO (60 * NS_PER_S) /* a sync takes no longer, with the death of a server that hangs */

enum { NEW, MAY, REFUSE_ONE, REFUSE_TWO };

static uint64_t begun, born; /* this server: CLOCK_REALTIME, and as started_at() */
static uint8_t state[PIDS];  /* of each thread, by its number */

void removals_begin(void)
{
    char name[STARTED_NAME];

    begun = clock_realtime();
    born = started_at(getpid(), name);
}

static void set(pid_t pid, uint8_t value)
{
    if (pid > 0 && pid < PIDS)
        STORE(state[pid], value);
}

static bool is_exim(pid_t pid, uint64_t *started)
{
    char name[STARTED_NAME];

    *started = started_at(pid, name);
    return strncmp(name, "exim", 4) == 0;
}

void removals_other(pid_t pid)
{
    set(pid, MAY);
}

void removals_sync_failed(pid_t pid)
{
    uint64_t started;

    if (is_exim(pid, &started))
        set(pid, REFUSE_TWO);
}

static bool is_older_exim(pid_t pid)
{
    uint64_t started;
    return is_exim(pid, &started) && started && started <= born;
}

bool removals_may(pid_t pid, const char *name, uint64_t changed)
{
    uint8_t now = pid > 0 && pid < PIDS ? LOAD(state[pid]) : MAY;

    if (!exim_is_file_of_message(name)) {
        removals_other(pid);
        return true;
    }
    if (now == NEW)
        now = changed <= begun && begun - changed < LONG_AGO && is_older_exim(pid) ? REFUSE_TWO : MAY;
    set(pid, now > MAY ? now - 1 : MAY);
    return now <= MAY;
}

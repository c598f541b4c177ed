/* SPDX-License-Identifier: MIT
 *
 * The jobs that run the queue on a machine where no daemon of Exim is to run.
 */
#ifndef FASTSPOOL_TOOLS_JOBS_H
#define FASTSPOOL_TOOLS_JOBS_H

#include "fastspool.h"

#include <limits.h>
#include <stdbool.h>

struct jobs {
    bool alone;          /* Exim's service starts no daemon, as QUEUERUNNER says */
    bool served;         /* the queue runs of `file` have the store */
    char file[PATH_MAX]; /* that starts a queue run now and then; "": none is found, or not `alone` */
};

/** Of the spool @spool.  To be asked where no daemon runs: this runs a shell, and perhaps Exim.  Needs root. */
void jobs_find(const struct fastspool_config *config, const char *spool, struct jobs *jobs);

/** Of jobs that are `alone`: who runs the queue.  Valid until the next call. */
const char *jobs_describe(const struct jobs *jobs);
/** What to do where their queue runs do not have the store. */
const char *jobs_mend(const struct jobs *jobs);

#endif

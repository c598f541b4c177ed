/* SPDX-License-Identifier: MIT
 *
 * fastspool stop: flush, then end the view and the mirror process.  The segment stays, and the next process to use the
 * spool starts a mirror again.  Root's call also removes the spool from the registry.
 */
#include "base/clock.h"
#include "fastspool.h"
#include "spool/launch.h"
#include "spool/registry.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE (60 * NS_PER_S) /* for a view to end, and for a mirror after the flush */

static const char usage[] =
    "usage: fastspool stop [--spool DIR]\n"
    "Writes every change to the disk, unmounts the view, then ends the mirror process.\n"
    "Exit status: 0 neither runs; 1 an error; 2 wrong arguments.\n";

static int end_mirror(struct fastspool *fs)
{
    pid_t pid = LOAD(fs->header->mirror.pid);

    if (pid > 0 && launch_lives(fs) && kill(pid, SIGTERM) < 0 && errno != ESRCH)
        return tool_error("cannot end the mirror of %s, process %ld: %s", fs->spool, (long)pid, strerrordesc_np(errno));
    for (uint64_t start = clock_monotonic(); launch_lives(fs);) {
        if (clock_monotonic() - start > PATIENCE)
            return tool_error("the mirror of %s, process %ld, still runs a minute after its signal to end", fs->spool,
                              (long)pid);
        clock_sleep(100 * NS_PER_MS);
    }
    return 0;
}

/* The kernel names the process, not the header, which the mail user can write. */
static int end_view(struct fastspool *fs)
{
    pid_t pid = launch_view_holder(fs);

    if (pid > 0 && kill(pid, SIGTERM) < 0 && errno != ESRCH)
        return tool_error("cannot end the view of %s, process %ld: %s", fs->spool, (long)pid, strerrordesc_np(errno));
    for (uint64_t start = clock_monotonic(); launch_view_lives(fs);) {
        if (clock_monotonic() - start > PATIENCE)
            return tool_error("the view of %s, process %ld, still runs a minute after its signal to end", fs->spool,
                              (long)pid);
        clock_sleep(20 * NS_PER_MS);
    }
    STORE(fs->header->view.starting, 0); /* the next process may start one at once */
    return 0;
}

int tool_stop(int argc, char **argv)
{
    struct fastspool *fs = tool_attach(tool_options(argc, argv, NULL, usage));

    if (!fs)
        return 1;
    int result = fastspool_flush(fs, 0);
    if (result < 0)
        tool_error("cannot write all of %s to the disk, so the mirror goes on: %s", fs->spool,
                   strerrordesc_np(-result));
    else
        result = end_view(fs) != 0 ? 1 : end_mirror(fs);
    if (result == 0 && geteuid() == 0)
        result = registry_remove(fs->spool);
    fastspool_detach(fs);
    return result != 0;
}

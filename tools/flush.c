/* SPDX-License-Identifier: MIT
 *
 * fastspool flush: wait until every change made before the call is on the disk.
 */
#include "fastspool.h"
#include "interrupt.h"
#include "progress.h"
#include "standstill.h"
#include "store/store.h"
#include "tool.h"

#include <string.h>

static const char usage[] =
    "usage: fastspool flush [--spool DIR]\n"
    "Waits until every change is on the disk.\n"
    "Exit status: 0 all is on the disk; 1 an error; 64 wrong arguments.\n";

/* Who asks for a flush uses the spool: a view that is dead is started again. */
static void look_at_view(struct fastspool *fs, const char *spool)
{
    struct fastspool_config config;
    struct seen seen;

    if (tool_config_of_one(&config, spool) != 0 || !config.view)
        return;
    seen_look(fs, config.view, &seen);
    tool_mount_again(fs, seen.state);
}

int tool_flush(int argc, char **argv)
{
    const char *spool = tool_only_options(argc, argv, NULL, usage);
    struct fastspool *fs = tool_attach(spool);

    if (!fs)
        return 1;
    interrupt_says("the mirror goes on writing, and not all may be on the disk");
    progress_begin("flushing");
    standstill_begin(fs->spool, NULL, fs);
    int result = fastspool_flush(fs, 0);
    standstill_end();
    progress_end();
    if (result < 0)
        tool_error("cannot write all of %s to the disk: %s", fs->spool, strerrordesc_np(-result));
    look_at_view(fs, spool);
    fastspool_detach(fs);
    return result < 0;
}

/* SPDX-License-Identifier: MIT
 *
 * fastspool flush: wait until every change made before the call is on the disk.
 */
#include "fastspool.h"
#include "store/store.h"
#include "tool.h"

#include <string.h>

static const char usage[] =
    "usage: fastspool flush [--spool DIR]\n"
    "Waits until every change is on the disk.\n"
    "Exit status: 0 all is on the disk; 1 an error; 2 wrong arguments.\n";

int tool_flush(int argc, char **argv)
{
    struct fastspool *fs = tool_attach(tool_options(argc, argv, NULL, usage));

    if (!fs)
        return 1;
    int result = fastspool_flush(fs, 0);
    if (result < 0)
        tool_error("cannot write all of %s to the disk: %s", fs->spool, strerrordesc_np(-result));
    fastspool_detach(fs);
    return result < 0;
}

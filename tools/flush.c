/* SPDX-License-Identifier: MIT
 *
 * fastspool flush: wait until everything that was changed before is on the disk.
 */
#include "fastspool.h"
#include "store/store.h"
#include "tool.h"

#include <string.h>

static const char usage[] =
    "usage: fastspool flush [--spool DIR]\n"
    "Waits until all is on the disk.  Exit status 0: it is; 1: the commit failed.\n";

int tool_flush(int argc, char **argv)
{
    struct fastspool *fs = tool_attach(tool_options(argc, argv, NULL, usage));

    if (!fs)
        return 1;
    int result = fastspool_flush(fs, 0);
    if (result < 0)
        tool_error("%s is not all on the disk: %s", fs->spool, strerrordesc_np(-result));
    fastspool_detach(fs);
    return result < 0;
}

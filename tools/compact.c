/* SPDX-License-Identifier: MIT
 *
 * fastspool compact: give back the disk that a large queue has left in database and journal (lib/mirror/shrink.c).
 *
 * The happy path: no mirror runs.  Take its lock, so that none begins meanwhile, become the spool's owner, and shrink.
 *
 * Failure modes: a mirror runs: it is refused.  A process that uses the spool meanwhile waits until its mirror can
 * start.  A death at any point: the same content is there, and another call goes on.
 */
#include "base/places.h"
#include "base/rights.h"
#include "fastspool.h"
#include "interrupt.h"
#include "look.h"
#include "mirror/shrink.h"
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool compact [--spool DIR]\n"
    "Gives the disk back what a large queue has left in database and journal.  No mirror may run: stop Exim, and run\n"
    "`fastspool stop` before.  If it is interrupted, run it again: nothing is lost.\n"
    "Exit status: 0 done, 1 an error, 64 wrong arguments.\n";

static int hold_mirror(const struct look *look)
{
    char path[PLACES_PATH_MAX];

    places_in_state(look->state, PLACES_MIRROR_LOCK, path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0; /* held for life */
    if (result == -EWOULDBLOCK)
        return tool_error("a mirror of %s runs: stop Exim, run `fastspool stop`, and try again", look->spool);
    return result < 0 ? tool_error("cannot lock %s: %s", path, strerrordesc_np(-result)) : 0;
}

static int compact(const struct look *look)
{
    struct shrunk shrunk = {0};
    char error[FASTSPOOL_ERROR_MAX];
    int result = geteuid() == 0 ? rights_become(look->owner, look->group) : 0;

    if (result < 0)
        return tool_error("cannot act as the owner of %s: %s", look->spool, strerrordesc_np(-result));
    if (hold_mirror(look) != 0)
        return 1;
    interrupt_says("nothing is lost: run `fastspool compact` again, which goes on");
    progress_begin("compacting");
    result = shrink_run(look->state, &shrunk, error);
    progress_end();
    if (result < 0)
        return tool_error("%s", error);
    printf("%s takes %.1f MiB, and took %.1f\n", look->state, (double)shrunk.after / (1 << 20),
           (double)shrunk.before / (1 << 20));
    return 0;
}

int tool_compact(int argc, char **argv)
{
    struct look look;
    const char *spool = tool_only_options(argc, argv, NULL, usage);

    if (look_begin(&look, spool) != 0)
        return 1;
    int result = compact(&look);
    look_end(&look);
    return result;
}

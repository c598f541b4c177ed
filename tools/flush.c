/* SPDX-License-Identifier: MIT
 *
 * fastspool flush: wait until every change made before the call is on the disk.  With --anew, where a part of the state
 * is lost for good, the mirror writes all that memory has to the disk (mirror/rescue.c).
 *
 * Failure modes of --anew:
 *   - Nothing is gone: the call is refused.  (What is surely lost the mirror writes anew without being asked.)
 *   - No mirror runs, and none can be started: so it says.
 *   - The lost database alone had files that have left memory: all stays as it is, and syslog says so.
 */
#include "base/clock.h"
#include "base/places.h"
#include "base/rights.h"
#include "fastspool.h"
#include "interrupt.h"
#include "progress.h"
#include "spool/launch.h"
#include "standstill.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATIENCE   (10 * NS_PER_S) /* for a mirror to begin with it */
#define LOOK_EVERY (20 * NS_PER_MS)
#define BEATS      3 /* signs of life of one mirror, of which the last comes after its look at the disk */

static const char usage[] =
    "usage: fastspool flush [--spool DIR] [--anew]\n"
    "Waits until every change is on the disk.\n"
    "  --anew   write all that is in memory to the disk anew.  For a spool of which `fastspool status` says that a "
    "part\n"
    "           of what was on the disk is gone, when that part is lost for good\n"
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

/* ---- anew ---- */

/* For the mirror.  The state directory is the owner's, and so are the rights with which a file comes and goes there: he
 * may put a link in its place, or a FIFO, for which an open would wait. */
static int say_lost(const struct fastspool *fs, const char *path)
{
    struct rights rights = rights_of_owner(fs->owner, fs->group);
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    rights_back(rights);
    return result;
}

static void take_back(const struct fastspool *fs, const char *path)
{
    struct rights rights = rights_of_owner(fs->owner, fs->group);

    unlink(path);
    rights_back(rights);
}

static int commit_error(const struct fastspool *fs)
{
    return LOAD(fs->header->tickets.commit_error);
}

/* A mirror that lives has said so.  Where none does one is started, which looks before it does anything else, and gives
 * its second sign of life when it has looked.  The first that is seen here may be another's.  False: there is none. */
static bool has_looked(struct fastspool *fs)
{
    uint64_t began = clock_monotonic(), beat = 0;
    unsigned beats = launch_lives(fs) > 0 ? BEATS : 0;

    while (beats < BEATS && commit_error(fs) != -ESTALE && clock_monotonic() - began < PATIENCE) {
        uint64_t last = LOAD(fs->header->mirror.beat);
        if (launch_lives(fs) == 0) {
            launch_start(fs);
            beats = 0;
        } else if (beat != last) {
            beat = last;
            beats++;
        }
        clock_sleep(LOOK_EVERY);
    }
    return beats == BEATS || commit_error(fs) == -ESTALE;
}

/* The mirror removes the file when it has written all.  If it can't, the error of its commits is reported. */
static int write_anew(struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    if (!has_looked(fs))
        return tool_error(
            "no mirror has looked at what %s has on the disk in %d s: none could be started, or it is still at work; "
            "syslog says more",
            fs->spool, (int)(PATIENCE / NS_PER_S));
    if (commit_error(fs) != -ESTALE)
        return tool_error("nothing that %s had on the disk is gone, so nothing is to be written anew", fs->spool);
    places_in_state(fs->state, PLACES_ANEW, path);
    int result = say_lost(fs, path);
    if (result < 0)
        return tool_error("cannot make %s: %s", path, strerrordesc_np(-result));
    uint64_t began = clock_monotonic();
    while ((result = lstat(path, &st)) == 0 && (commit_error(fs) == 0 || commit_error(fs) == -ESTALE) &&
           (LOAD(fs->header->tickets.committing) || clock_monotonic() - began < PATIENCE))
        clock_sleep(LOOK_EVERY);
    if (result < 0)
        return 0;
    take_back(fs, path);
    return tool_error("cannot write all of %s to the disk anew: %s: syslog says more", fs->spool,
                      strerrordesc_np(-commit_error(fs)));
}

/* ---- the subcommand ---- */

int tool_flush(int argc, char **argv)
{
    static const struct option known[] = {{"spool", required_argument, NULL, 's'},
                                          {"anew", no_argument, NULL, 'a'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    bool anew = false;
    const char *spool = tool_options_of(argc, argv, known, &anew, usage);
    tool_operands(argc, argv, 0, 0, NULL, usage);
    struct fastspool *fs = tool_attach(spool);

    if (!fs)
        return 1;
    interrupt_says("the mirror goes on writing, and not all may be on the disk");
    progress_begin("flushing");
    standstill_begin(fs->spool, NULL, fs);
    if (anew && write_anew(fs) != 0) {
        standstill_end();
        progress_end();
        fastspool_detach(fs);
        return 1;
    }
    int result = fastspool_flush(fs, 0);
    standstill_end();
    progress_end();
    if (result < 0)
        tool_error("cannot write all of %s to the disk: %s", fs->spool, strerrordesc_np(-result));
    look_at_view(fs, spool);
    fastspool_detach(fs);
    return result < 0;
}

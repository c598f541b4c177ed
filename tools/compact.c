/* SPDX-License-Identifier: MIT
 *
 * fastspool compact: give back the disk that a large queue has left in database and journal (lib/mirror/shrink.c).
 *
 * The happy path: no mirror runs.  A child becomes the spool's owner, takes the mirror's lock, so that none begins
 * meanwhile, and shrinks.
 *
 * Failure modes: a mirror runs, or an Exim that has the store: it is refused.  A process that uses the spool meanwhile
 * waits until its mirror can start.  A death at any point: the same content is there, and another call goes on; the
 * child of the dead one may hold the lock for a moment, as in an fsync, and is waited for.  The mail user has written
 * the database so that LMDB does what he wants: the child has no rights but his, and no terminal.
 */
#include "base/error.h"
#include "base/places.h"
#include "base/rights.h"
#include "beside.h"
#include "fastspool.h"
#include "interrupt.h"
#include "lock.h"
#include "look.h"
#include "mirror/shrink.h"
#include "progress.h"
#include "spool/locker.h"
#include "standstill.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool compact [--spool DIR]\n"
    "Gives back the disk that a large queue has left in database and journal.  No mirror may run: stop Exim, and run\n"
    "`fastspool stop` before.  If it is interrupted, run it again: nothing is lost.\n"
    "Exit status: 0 done, 1 an error, 64 wrong arguments.\n";

/* Shared with the child, which may write there what it likes. */
struct outcome {
    struct shrunk shrunk;
    bool locked; /* by another process */
    char error[FASTSPOOL_ERROR_MAX];
};

/* ---- in the child ---- */

/* Without a store in memory the holder is no mirror that lives on: a call before this one, or a mirror that ends. */
static bool has_store(const void *look)
{
    return ((const struct look *)look)->fs;
}

static int hold_mirror(const struct look *look, char *error)
{
    char path[PLACES_PATH_MAX];

    places_in_state(look->state, PLACES_MIRROR_LOCK, path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : lock_take(fd, has_store, look); /* held for life */
    if (result == -EWOULDBLOCK && !look->fs)
        return error_set(error, result,
                         "another `fastspool compact` of %s, or a mirror, runs: try again when it has ended",
                         look->spool);
    if (result == -EWOULDBLOCK)
        return error_set(error, result, "a mirror of %s runs: stop Exim, run `fastspool stop`, and try again",
                         look->spool);
    return result < 0 ? error_set(error, result, "cannot lock %s: %s", path, strerrordesc_np(-result)) : 0;
}

static int shrink(const struct look *look, pid_t parent, struct outcome *outcome)
{
    int result = rights_confine(parent, -1);

    if (result < 0)
        return error_set(outcome->error, result, "cannot act as the owner of %s: %s", look->spool,
                         strerrordesc_np(-result));
    result = hold_mirror(look, outcome->error);
    outcome->locked = result == -EWOULDBLOCK;
    return result < 0 ? result : shrink_run(look->state, &outcome->shrunk, outcome->error);
}

/* ---- in the parent ---- */

static int compact(const struct look *look)
{
    struct outcome *outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char error[FASTSPOOL_ERROR_MAX], locker[LOCKER_SENTENCE];
    int status = 0;

    if (outcome == MAP_FAILED)
        return tool_error("there is no memory");
    interrupt_says("nothing is lost: run `fastspool compact` again, which goes on");
    progress_begin("compacting");
    struct rights rights = rights_of_owner(look->owner, look->group);
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        _exit(shrink(look, parent, outcome) < 0);
    int failure = child < 0 || waitpid(child, &status, 0) != child ? errno : 0;
    rights_back(rights);
    progress_end();
    if (failure)
        return tool_error("no process can be made: %s", strerrordesc_np(failure));
    if (WIFSIGNALED(status))
        return tool_error("the process that reads the database has died: %s", strsignal(WTERMSIG(status)));
    error_set(error, 0, "%.*s", FASTSPOOL_ERROR_MAX - 1, outcome->error);
    if (outcome->locked && locker_find(look->state, PLACES_MIRROR_LOCK, "mirror", locker))
        return tool_error("%s can't be locked: %s", look->spool, locker);
    if (WEXITSTATUS(status) != 0)
        return tool_error("%s", error);
    printf("%s takes %.1f MiB, and took %.1f\n", look->state, (double)outcome->shrunk.after / (1 << 20),
           (double)outcome->shrunk.before / (1 << 20));
    return 0;
}

int tool_compact(int argc, char **argv)
{
    struct look look;
    struct fastspool_config config;
    const char *spool = tool_only_options(argc, argv, NULL, usage);

    if (tool_config_of_one(&config, spool) != 0 || look_begin(&look, spool) != 0)
        return 1;
    const char *memory = look.fs ? look.fs->runtime : look.state; /* nobody has mapped the state */
    int refused = beside_no_exim(&config, tool_is_configured(look.spool) ? NULL : memory);
    standstill_begin(spool ? spool : config.spool[0], &config, look.fs);
    int result = refused ? 1 : compact(&look);
    standstill_end();
    look_end(&look);
    return result;
}

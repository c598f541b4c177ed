/* SPDX-License-Identifier: MIT
 *
 * What export and import share.
 *
 * The lock of a view (STATE/view.lock) is held as a view holds it.  The kernel releases it with the process, so a death
 * leaves nothing behind.
 */
#include "move.h"

#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "base/rights.h"
#include "beside.h"
#include "fastspool.h"
#include "interrupt.h"
#include "lock.h"
#include "own.h"
#include "progress.h"
#include "spool/launch.h"
#include "spool/locker.h"
#include "spool/sight.h"
#include "spool/viewed.h"
#include "standstill.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMED 20 /* of what stays, by its path */

static bool is_view(const void *state)
{
    return launch_view_holder(state) > 0;
}

/* Hold off a view for life. */
static int hold_view(const struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    struct stat st;

    if (stat(fs->spool, &st) < 0)
        return -errno;
    places_in_state(fs->state, PLACES_VIEW_LOCK, path);
    struct rights rights = rights_of_owner(st.st_uid, st.st_gid);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : 0;
    rights_back(rights);
    return result < 0 ? result : lock_take(fd, is_view, fs->state);
}

/* One that is alive imports by itself: to stop it would hide the queue, and gain nothing. */
static int refuse_view(const struct fastspool *fs, enum move move)
{
    if (move == MOVE_IN)
        return tool_error(
            "a view of %s runs, and imports by itself: `fastspool status` says what it has left on the disk",
            fs->spool);
    return tool_error("a view of %s runs: run `fastspool stop` first", fs->spool);
}

static int keep_view_away(const struct fastspool *fs, enum move move)
{
    char locker[LOCKER_SENTENCE];

    progress_begin("waiting for another call to end");
    int result = hold_view(fs);
    progress_end();

    if (result == -EWOULDBLOCK && is_view(fs->state))
        return refuse_view(fs, move);
    if (result == -EWOULDBLOCK && locker_find(fs->state, PLACES_VIEW_LOCK, "view", locker))
        return tool_error("cannot hold off a view of %s: %s", fs->spool, locker);
    if (result == -EWOULDBLOCK)
        return tool_error("another export or import of %s runs: try again when it has ended", fs->spool);
    if (result < 0)
        return tool_error("cannot hold off a view of %s: %s", fs->spool, strerrordesc_np(-result));
    if (viewed(fs->spool) != 0)
        return tool_error("a view is mounted over %s: run `fastspool stop` first", fs->spool);
    return 0;
}

/* A spool that the configuration does not name may be a copy of one that Exim works with. */
static int refuse_beside(const struct fastspool_config *config, const struct fastspool *fs, enum move move)
{
    if (move == MOVE_IN)
        return beside_no_plain_exim(config);
    return beside_no_exim(config, tool_is_configured(config->spool[0]) ? NULL : fs->runtime);
}

static bool own; /* the mirror */

static void leave(struct fastspool *fs)
{
    standstill_end();
    if (own) {
        interrupt_says("its mirror may run still: run `fastspool stop`"); /* the work is done */
        own_end(fs);
    } else {
        fastspool_detach(fs);
    }
}

struct fastspool *move_begin(const char *spool, enum move move)
{
    struct fastspool_config config;
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX];

    if (tool_config_of_one(&config, spool) != 0 || tool_check_spool(&config, false) != 0)
        return NULL;
    config.view = false;
    own = own_mirror(config.spool[0], &config);
    standstill_begin(config.spool[0], &config, NULL);
    int result = sight_check(config.spool[0], &config, error);
    if (result == 0)
        result = fastspool_attach(config.spool[0], &config, &fs, error);
    if (result < 0) {
        standstill_end();
        tool_refused(result, error);
        return NULL;
    }
    standstill_begin(fs->spool, NULL, fs);
    if (refuse_beside(&config, fs, move) == 0 && (move == MOVE_ELSEWHERE || keep_view_away(fs, move) == 0))
        return fs;
    leave(fs);
    return NULL;
}

int move_end(struct fastspool *fs, int result)
{
    leave(fs);
    if (result == MOVE_INTERRUPTED)
        interrupt_end();
    return result;
}

/* ---- what is told ---- */

static uint64_t told;

void move_tell(const char *path, const char *why)
{
    char text[ESCAPE_ROOM(PATH_MAX)];

    if (told++ < NAMED)
        tool_error("%s: %s", escape_bytes(text, sizeof(text), path, strlen(path)), why);
}

void move_told(void)
{
    if (told > NAMED)
        tool_error("and %" PRIu64 " more", told - NAMED);
}

int move_failed(const char *verb, int code, const char *why)
{
    if (error_is_full(code))
        return tool_error("%s: make room, and run `fastspool %s` again, which goes on: nothing is lost", why, verb);
    bool refused = code == -EUCLEAN || code == -EXDEV; /* the sentence says what is to be done first */

    return refused ? tool_error("%s; then run `fastspool %s` again: nothing is lost", why, verb)
                   : tool_error("%s; run `fastspool %s` again, which goes on: nothing is lost", why, verb);
}

int move_interrupted(const char *verb, int64_t left, const char *where)
{
    if (left < 0)
        tool_error("interrupted: what was not moved is %s as before: run `fastspool %s` again, which goes on", where,
                   verb);
    else
        tool_error("interrupted: %" PRId64 " message%s %s as before: run `fastspool %s` again, which goes on", left,
                   left == 1 ? " is" : "s are", where, verb);
    return MOVE_INTERRUPTED;
}

/* SPDX-License-Identifier: MIT
 *
 * An upgrade: the segment of another version is released, with what every version knows of every other one's
 * (store/release.c).
 *
 * The happy path: its mirror is told to end, and writes everything to the disk; nobody uses the segment; it is removed.
 *
 * Failure modes: the mirror does not end within a minute; processes use the segment still; no mirror lives, and the
 * disk has not all of it.  Then it stays.
 */
#include "spool/upgrade.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/rights.h"
#include "spool/launch.h"
#include "spool/memory.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "store/release.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOOK     (10 * NS_PER_MS)
#define PATIENCE (60 * NS_PER_S) /* for a mirror after its last checkpoint */

/* UPGRADE_DONE: it has ended. */
static enum upgrade end_other_mirror(const char *state, const struct release *release)
{
    for (uint64_t start = clock_monotonic(); launch_mirror_lives(state); clock_sleep(LOOK)) {
        STORE(*release->ending, 1);
        futex_count(release->wanted);
        if (clock_monotonic() - start > PATIENCE)
            return UPGRADE_MIRROR;
    }
    return UPGRADE_DONE;
}

enum upgrade upgrade_release(const char *state, const struct stat *spool, uint32_t *version,
                             char error[FASTSPOOL_ERROR_MAX])
{
    struct rights rights = rights_of_owner(spool->st_uid, spool->st_gid);
    int state_fd = open(state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    enum upgrade found = UPGRADE_FAILED;
    struct release release;
    struct record record;

    int result = state_fd < 0 ? -errno : record_read(state_fd, &record);
    if (result < 0)
        error_set(error, result, "read %s/" PLACES_RUNTIME ": %s", state, strerrordesc_np(-result));
    else
        result = release_open(record.runtime, spool, &release, error);
    int lock = result == 0 ? presence_open(state_fd, false) : -1;
    if (result == 0)
        found = end_other_mirror(state, &release);
    if (found == UPGRADE_DONE && (lock < 0 || presence_claim(lock) < 0))
        found = UPGRADE_IN_USE;
    if (found == UPGRADE_DONE && LOAD(*release.unwritten) > 0)
        found = UPGRADE_UNWRITTEN;
    if (found == UPGRADE_DONE)
        memory_remove(record.runtime);
    if (result == 0) {
        *version = release.version;
        release_close(&release);
    }
    if (lock >= 0)
        close(lock);
    if (state_fd >= 0)
        close(state_fd);
    rights_back(rights);
    return found;
}

bool upgrade_is_unwritten(const char *state, const struct stat *spool)
{
    struct rights rights = rights_of_owner(spool->st_uid, spool->st_gid);
    int state_fd = open(state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char error[FASTSPOOL_ERROR_MAX];
    struct release release;
    struct record record;
    bool is = state_fd >= 0 && launch_mirror_lives(state) == 0 && record_read(state_fd, &record) == 0 &&
              release_open(record.runtime, spool, &release, error) == 0;

    if (is) {
        is = LOAD(*release.unwritten) > 0;
        release_close(&release);
    }
    if (state_fd >= 0)
        close(state_fd);
    rights_back(rights);
    return is;
}

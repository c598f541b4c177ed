/* SPDX-License-Identifier: MIT
 *
 * The mirror that a call has started for its own work.  Export and import are often called where nobody uses the spool:
 * no Exim would ever use that mirror, and a monitor would ask why it is there.
 *
 * The happy path: this process withdraws, and says in STATE/lock that it waits (spool/presence.c).  A mirror that lives
 * alone while somebody waits ends within a moment, with a last commit, and gives the memory back.
 *
 * Failure modes:
 *   - Another process uses the store by then, as an Exim that has just been started: the mirror does not live
 *     alone, and goes on.
 *   - One comes while the mirror ends: it waits until the lock is free, and makes the store anew.
 *   - The last commit fails: the mirror ends, and what the disk lacks stays in memory.
 *   - This process is killed: the mirror lives on, until `fastspool stop`.
 *   - The mail user writes in the segment that a mirror is just starting, or gives no sign of one that lives: each wait
 *     has an end.
 */
#include "own.h"

#include "base/clock.h"
#include "base/places.h"
#include "base/rights.h"
#include "config.h"
#include "fastspool.h"
#include "progress.h"
#include "spool/launch.h"
#include "spool/presence.h"
#include "store/descriptions.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOKS      (2 * NS_PER_S)  /* in that time a mirror that works has looked whether it lives alone */
#define PATIENCE   (60 * NS_PER_S) /* for its last commit and checkpoint */
#define LOOK_EVERY (20 * NS_PER_MS)

bool own_mirror(const char *spool, const struct fastspool_config *config)
{
    char state[FASTSPOOL_PATH_MAX + sizeof(PLACES_STATE) + 1];

    snprintf(state, sizeof(state), "%s%s", config->state[0] ? config->state : spool,
             config->state[0] ? "" : "/" PLACES_STATE);
    return strlen(state) < FASTSPOOL_PATH_MAX && launch_mirror_lives(state) == 0;
}

/* A mirror that has given a sign of life since, and not claimed the store, does not live alone. */
static void wait_for_end(struct fastspool *fs, int lock)
{
    uint64_t began = clock_monotonic();

    presence_wait(lock);
    while (launch_lives(fs) == 1 && clock_monotonic() - began < PATIENCE) {
        bool looked = LOAD(fs->header->mirror.beat) >= began + LOOKS;
        if (looked && presence_of_others(lock) != PRESENCE_CLAIMED)
            return;
        clock_sleep(LOOK_EVERY);
    }
}

void own_end(struct fastspool *fs)
{
    struct rights rights = rights_of_owner(fs->owner, fs->group);
    int state_fd = open(fs->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int lock = state_fd < 0 ? -1 : presence_open(state_fd, false);

    rights_back(rights);
    if (state_fd >= 0)
        close(state_fd);
    if (lock >= 0) {
        progress_begin("ending the mirror");
        /* A mirror that comes up only now would look for nobody's wait. */
        launch_settle(&fs->header->mirror.starting, launch_mirror_lives, fs->state);
        descriptions_pool_close(fs); /* from here on nothing is done in the store */
        presence_withdraw(fs->presence_fd);
        wait_for_end(fs, lock);
        progress_end();
        close(lock);
    }
    fastspool_detach(fs);
}

/* SPDX-License-Identifier: MIT
 *
 * A lock that one call of a command holds at a time.
 *
 * The happy path: nobody has it.
 *
 * Failure modes:
 *   - A call that was killed, or its child, has it for a moment still: on a slow disk until the fsync that it is in
 *     returns.  It is waited for, so that the same call can come at once.
 *   - A process that only looks has it, shared, for an instant.
 *   - Another call runs, or what else holds it for its whole life: -EWOULDBLOCK.
 */
#include "lock.h"

#include "base/clock.h"

#include <errno.h>
#include <stddef.h>
#include <sys/file.h>

#define PATIENCE   (10 * NS_PER_S)
#define INSTANT    (NS_PER_S / 2) /* for a look */
#define LOOK_EVERY (20 * NS_PER_MS)

int lock_take(int fd, bool (*lives_on)(const void *context), const void *context)
{
    uint64_t start = clock_monotonic();

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int error = errno;
        uint64_t waited = clock_monotonic() - start;
        if (error != EWOULDBLOCK || waited > PATIENCE || (waited > INSTANT && lives_on && lives_on(context)))
            return -error;
        clock_sleep(LOOK_EVERY);
    }
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * What the view's clients have synced.
 *
 * In `acked` the fsync of a directory waits for all that its process has synced.  The view's server is one process for
 * all clients: if it counted for all together, each would wait for what the others sync meanwhile, and all would stand
 * in line, because the kernel holds the directory's lock during its fsync.
 *
 * Happy path: a process has a place in a table by its number.  Two that share one wait for each other's, which is only
 * stronger.  So nothing has to be removed when a process ends, and a number that is used again does no harm.
 *
 * Failure modes:
 *   - The kernel names a thread, and a process has several.  The first has the process's number (pidfd_open(2) accepts
 * no other).  What another one syncs counts for every process; and if it syncs a directory, everything counts.
 *   - A process of another PID namespace has number 0, and is treated as such a thread.
 */
#include "view/synced.h"

#include "base/atomic.h"

#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PLACES 4096

static uint64_t places[PLACES]; /* highest change that a process with this number, cut to the table, has synced */
static uint64_t by_threads;     /* the same of all threads that are not the first of their process */

static bool is_process(pid_t pid)
{
    long fd = pid > 0 ? syscall(SYS_pidfd_open, pid, 0) : -1;

    if (fd >= 0)
        syscall(SYS_close, fd);
    return fd >= 0;
}

static void raise_to(uint64_t *place, uint64_t change)
{
    uint64_t before = LOAD(*place);

    while (before < change &&
           !__atomic_compare_exchange_n(place, &before, change, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

uint64_t *synced_of(pid_t pid, int directory, uint64_t *own)
{
    bool process = is_process(pid);

    if (!directory)
        return process ? &places[pid % PLACES] : &by_threads;
    *own = LOAD(by_threads);
    for (int i = process ? pid % PLACES : 0, end = process ? i + 1 : PLACES; i < end; i++)
        raise_to(own, LOAD(places[i]));
    return own;
}

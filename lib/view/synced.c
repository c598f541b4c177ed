/* SPDX-License-Identifier: MIT
 *
 * What the view's clients have synced and changed.
 *
 * The kernel holds a directory's lock during its fsync: no other process can make or find a name there.  Two things
 * keep that short.
 *
 * First, whose: in `acked` the fsync of a directory waits for all that its process has synced.  The view's server is
 * one process for all clients: if it counted for all together, each would wait for what the others sync meanwhile.
 *
 * Second, when: a directory that is opened for its fsync has waited in the open, where the kernel holds no lock.  In
 * `acked` that is enough, if it is the first fsync of this open directory, soon after, by the thread that has opened
 * it, whose process has changed no name and synced no file in between.  (What another process has changed there since
 * the open is its own to sync.  Without this each would wait for the others' newest change.)
 *
 * Happy path: a process has a place in a table by its number.  Two that share one wait for each other's, which is only
 * stronger.  So nothing has to be removed when a process ends, and a number that is used again does no harm.
 *
 * Failure modes:
 *   - The kernel names a thread, and a process has several.  The first has the process's number (pidfd_open(2)
 *     accepts no other).  What another one syncs counts for every process; and if it syncs a directory, everything
 *     counts.
 *   - A process of another PID namespace has number 0, and is treated as such a thread.
 */
#include "view/synced.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "store/inside.h"

#include <sys/syscall.h>
#include <unistd.h>

#define PLACES 4096
#define SOON   NS_PER_S

static uint64_t places[PLACES];  /* highest change that a process with this number, cut to the table, has synced */
static uint64_t by_threads;      /* the same of all threads that are not the first of their process */
static uint64_t changes[PLACES]; /* counts a process's changes of names */
static uint64_t changes_by_threads;

/* An open directory, by its description. */
static struct opened {
    pid_t pid; /* that opened it to sync it; 0: it has been synced */
    int result;
    uint64_t at; /* CLOCK_MONOTONIC ns */
    uint64_t mark;
} opened[INSIDE_DESCRIPTIONS];

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

uint64_t *synced_of(pid_t pid, bool directory, uint64_t *own)
{
    bool process = is_process(pid);

    if (!directory)
        return process ? &places[pid % PLACES] : &by_threads;
    *own = LOAD(by_threads);
    for (int i = process ? pid % PLACES : 0, end = process ? i + 1 : PLACES; i < end; i++)
        raise_to(own, LOAD(places[i]));
    return own;
}

void synced_note_change(pid_t pid)
{
    __atomic_add_fetch(is_process(pid) ? &changes[pid % PLACES] : &changes_by_threads, 1, __ATOMIC_RELAXED);
}

/* Grows with each change of a name and each sync that may be @pid's process's.  0: @pid is no process. */
static uint64_t mark_of(pid_t pid)
{
    if (!is_process(pid))
        return 0;
    return LOAD(changes[pid % PLACES]) + LOAD(changes_by_threads) + LOAD(places[pid % PLACES]) + LOAD(by_threads) + 1;
}

void synced_opened(int description, pid_t pid, int result)
{
    opened[description] = (struct opened){pid, result, clock_monotonic(), mark_of(pid)};
}

bool synced_enough(int description, pid_t pid, int *result)
{
    struct opened *open = &opened[description];
    bool enough = open->pid != 0 && open->pid == pid && open->mark != 0 && open->mark == mark_of(pid) &&
                  clock_monotonic() - open->at < SOON;

    *result = open->result;
    open->pid = 0;
    return enough;
}

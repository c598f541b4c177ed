/* SPDX-License-Identifier: MIT
 *
 * When a process was started, as what, and how it is now.
 */
#ifndef FASTSPOOL_STARTED_H
#define FASTSPOOL_STARTED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define STARTED_NAME 16

/** When process or thread @pid was started, CLOCK_BOOTTIME ns, to 10 ms.  0: it is gone, or /proc does not say.  @name:
 *  of the program that it executes, as the kernel cuts it. */
uint64_t started_at(pid_t pid, char name[STARTED_NAME]);

/** Its parent; 0: there is none, or it can't be said. */
pid_t started_parent(pid_t pid);

/** A process at this moment. */
struct started_now {
    uid_t uid;         /* effective */
    char state;        /* of its first thread: 'R', 'S', 'D', 'T', ... */
    uint64_t switches; /* how often that thread has slept since it was started */
};

/** False: it is gone, or /proc does not say. */
bool started_look(pid_t pid, struct started_now *now);

/** Is process @pid stopped, by a signal or a debugger?  False, too, where /proc does not say. */
bool started_is_stopped(pid_t pid);

#endif

/* SPDX-License-Identifier: MIT
 *
 * When a process was started, as what, and whether it is stopped.
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

/** Is process @pid stopped, by a signal or a debugger?  False, too, where /proc does not say. */
bool started_is_stopped(pid_t pid);

#endif

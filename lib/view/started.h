/* SPDX-License-Identifier: MIT
 *
 * When a process was started.
 */
#ifndef FASTSPOOL_VIEW_STARTED_H
#define FASTSPOOL_VIEW_STARTED_H

#include <stdint.h>
#include <sys/types.h>

/** When process or thread @pid was started, CLOCK_BOOTTIME ns, to 10 ms.  0: it is gone, or /proc does not say. */
uint64_t started_at(pid_t pid);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the library has decided for a process.
 */
#ifndef FASTSPOOL_TOOLS_DECIDED_H
#define FASTSPOOL_TOOLS_DECIDED_H

#include "base/decision.h"

#include <stdbool.h>
#include <sys/types.h>

#define DECIDED_LIBRARY "libfastspool.so"

/** Is the library in the memory of process @pid?  *@decision: what it has decided there, UNDECIDED where that can't be
 *  read.  Needs root, for other users' processes: what can't be read counts as no. */
bool decided_has(pid_t pid, enum decision *decision);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The mount namespace of process 1, from which mounts reach every service; and the PID namespace of this process.
 */
#ifndef FASTSPOOL_NAMESPACE_H
#define FASTSPOOL_NAMESPACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** Does @path lead to the file @known, where this process is now? */
bool namespace_sees(const char *path, const struct stat *known);

/** Enter the mount namespace of process 1, with its root, and stay there if @accept(@context) says so.  True: this
 * process is there. False: it is where it was, in its own root.  Only for a child that has no thread beside it: it ends
 * where there is no way back. */
bool namespace_enter_first(bool (*accept)(const void *context), const void *context);

/** The number of this process's PID namespace, to which its process and thread ids belong.  0: it can't be said,
 * without /proc before Linux 6.11.  Keeps errno. */
uint64_t namespace_of_pids(void);

#endif

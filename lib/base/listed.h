/* SPDX-License-Identifier: MIT
 *
 * The locks that the kernel lists for everybody.
 */
#ifndef FASTSPOOL_LISTED_H
#define FASTSPOOL_LISTED_H

#include <sys/types.h>

struct stat;

/** A lock of F_OFD_SETLK belongs to no process. */
#define LISTED_NO_PROCESS (-1)

/** The process that has taken an exclusive lock of the file with @st, or of flock(2) has opened it, as /proc/locks
 *  says.  0: nobody of this PID namespace has one; LISTED_NO_PROCESS; or another negative errno. */
pid_t listed_locker(const struct stat *st);

#endif

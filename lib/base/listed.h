/* SPDX-License-Identifier: MIT
 *
 * The locks that the kernel lists for everybody.
 */
#ifndef FASTSPOOL_LISTED_H
#define FASTSPOOL_LISTED_H

#include <sys/types.h>

struct stat;

/** The process that has taken an exclusive lock of the file with @st, or of flock(2) has opened it, as /proc/locks
 * says.  0: nobody of this PID namespace has one; -1: one is there, of F_OFD_SETLK, which has no process; another
 * negative errno.
 */
pid_t listed_locker(const struct stat *st);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Children that the program doesn't notice: no SIGCHLD, and its wait() doesn't see them.
 */
#ifndef FASTSPOOL_CHILD_H
#define FASTSPOOL_CHILD_H

#include <sys/types.h>

/** fork(2), but the child sends no signal when it ends. */
pid_t child_fork(void);

/** Run @run(@context) in such a child, with all signals held off, and wait for its end.  0, or -errno where no child
 *  could be made; what became of it the caller has to look at.  Keeps errno. */
int child_run(void (*run)(void *context), void *context);

#endif

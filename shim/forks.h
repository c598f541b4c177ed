/* SPDX-License-Identifier: MIT
 *
 * Forks, and the one lock of the shim.
 */
#ifndef FASTSPOOL_FORKS_H
#define FASTSPOOL_FORKS_H

#include <signal.h>
#include <stdbool.h>

/** What forks_end() restores. */
struct outside {
    sigset_t mask;
    bool postpones; /* signals wait for signals_release(), and the mask is as it was */
    int cancels;    /* of pthread_setcancelstate(3) */
    int *place;     /* of this thread's errno: to ask costs the child of a fork a page fault */
    int error;      /* its value */
};
/** Take the lock, to decide or attach.  Other threads and forks wait, and no signal handler runs in this thread: to
 *  them an undecided process would look like one that isn't served.  False: this thread holds the lock already.
 *  @sections: those of a store may run meanwhile, or it looks which signals are pending. */
bool forks_begin(struct outside *outside, bool sections);
void forks_end(const struct outside *outside);
/** Call @of_a_fork ahead of each fork from now on, without the lock. */
void forks_call_ahead(void (*of_a_fork)(void));

#endif

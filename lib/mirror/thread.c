/* SPDX-License-Identifier: MIT
 *
 * Starting a thread.
 *
 * The happy path: a new thread inherits the signal mask of the one that starts it, so that one blocks the signals for
 * the moment.  Its stack is small: under a limit of data (RLIMIT_DATA) that the mirror can't shed, stacks count in
 * full.
 *
 * Failure modes: the system has no room for a thread: EAGAIN, and the mask is as before.
 */
#include "mirror/thread.h"

#include <signal.h>
#include <stdint.h>

#define STACK (UINT64_C(1) << 20)

int thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t blocked, old;
    int error = pthread_attr_init(&attributes);

    if (error)
        return -error;
    pthread_attr_setstacksize(&attributes, STACK);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    error = pthread_create(thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

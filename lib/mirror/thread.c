/* SPDX-License-Identifier: MIT
 *
 * Starting a thread.
 *
 * The happy path: a new thread inherits the signal mask of the one that starts it, so that one blocks the signals for
 * the moment.
 *
 * Failure modes: the system has no room for a thread: EAGAIN, and the mask is as before.
 */
#include "mirror/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t blocked, old;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    int error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

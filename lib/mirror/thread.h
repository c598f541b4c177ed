/* SPDX-License-Identifier: MIT
 *
 * The threads of the mirror beside the first one.
 */
#ifndef FASTSPOOL_THREAD_H
#define FASTSPOOL_THREAD_H

#include <pthread.h>

/** Start a thread with SIGTERM and SIGINT blocked in it: both are for the first thread.  0 or a negative errno. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

#endif

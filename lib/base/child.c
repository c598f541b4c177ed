/* SPDX-License-Identifier: MIT
 *
 * Children that the program doesn't notice.  No handler of the program may run in one.
 */
#include "base/child.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t child_fork(void)
{
    return (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
}

int child_run(void (*run)(void *context), void *context)
{
    sigset_t all, old;
    int saved = errno;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t child = child_fork();
    if (child == 0) {
        run(context);
        _exit(0);
    }
    int result = child < 0 ? -errno : 0;
    while (child > 0 && waitpid(child, NULL, __WCLONE) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return result;
}

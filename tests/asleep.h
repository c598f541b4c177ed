/* SPDX-License-Identifier: MIT
 *
 * Where another process sleeps: for tests that go on when it waits, not after some time.
 */
#ifndef FASTSPOOL_TESTS_ASLEEP_H
#define FASTSPOOL_TESTS_ASLEEP_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/** Does this process sleep in the system call with this number? */
static inline bool asleep_in(pid_t process, long call)
{
    char path[40];
    long number = -1;

    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)process);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%ld", &number) != 1)
        number = -1; /* "running" */
    if (file)
        fclose(file);
    return number == call;
}

#endif

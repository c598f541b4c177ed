/* SPDX-License-Identifier: MIT
 *
 * The Exim processes that run on this machine.
 */
#ifndef FASTSPOOL_EXIMS_H
#define FASTSPOOL_EXIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define EXIMS_LIBRARY "libfastspool.so"

struct exims_process {
    pid_t pid;
    bool served;      /* the library is in its memory */
    bool replaced;    /* its image was replaced, as by an upgrade */
    bool elsewhere;   /* in another PID namespace than this process */
    char command[80]; /* its command line */
};

/** The processes that run one of the @count @images, up to @most.  A process that has just begun, and has no library
 *  yet, gets a moment.  Needs root.  Returns how many there are. */
size_t exims_find(const char *const images[], size_t count, struct exims_process *found, size_t most);

/** Is the library in the memory of @pid?  What can't be read counts as no. */
bool exims_map_library(pid_t pid);

#endif

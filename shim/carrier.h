/* SPDX-License-Identifier: MIT
 *
 * Carriers: processes that write to spool files for processes and programs that may not use the store.
 */
#ifndef FASTSPOOL_CARRIER_H
#define FASTSPOOL_CARRIER_H

#include <stdbool.h>
#include <stdint.h>

/** An open file that a carrier writes to. */
struct carried {
    uint32_t description;
    int in;  /* of a pipe: the carrier's end */
    int out; /* what stands for the file elsewhere: every write to it arrives */
    int fd;  /* the program's descriptor that holds the description in the carrier, -1: none yet */
};

/** Make the pipe of @description.  0 or -errno. */
int carrier_pipe(struct carried *carried, uint32_t description);
/** Start the carrier of @count files, before this process leaves the store or executes a program.  Closes each `in`,
 * and each `out` if it fails.  @asked: this process will ask it, by asking.h's functions.  0 or -errno. */
int carrier_start(struct carried *carried, int count, bool asked);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The mirror's process: it writes the store to the disk.  Each spool has one.  It runs as the
 * spool's owner.
 */
#ifndef FASTSPOOL_PROCESS_H
#define FASTSPOOL_PROCESS_H

#include <stdint.h>

struct fastspool;

/** Exit status where another mirror runs: EX_TEMPFAIL. */
#define PROCESS_SECOND 75

struct process_options {
    const char *state; /* the state directory, shorter than FASTSPOOL_PATH_MAX; "" or NULL: SPOOL/.fastspool */
    uint64_t memory;   /* bytes that the store may hold from now on; 0: as before */
    uint64_t journal;  /* bytes of the journal that wait before a checkpoint is made */
    void (*ready)(struct fastspool *fs); /* called once, when the mirror serves the store; NULL: nobody asks */
};

/** Be the mirror of @spool until SIGTERM or SIGINT.  The process becomes the spool's owner for good, and installs
 *  signal handlers: call this from main(), with one thread.  Errors go to syslog and standard error.  Returns an exit
 *  status: 0 after SIGTERM, PROCESS_SECOND where another mirror runs, 1 after an error. */
int process_run(const char *spool, const struct process_options *options);

#endif

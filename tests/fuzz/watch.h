/* SPDX-License-Identifier: MIT
 *
 * Watched children: a child does what may go wrong, and its parent tells how it ended.
 */
#ifndef FUZZ_WATCH_H
#define FUZZ_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** Seconds that a child may take before it gets SIGTERM; seconds of a processor after that; and how often so many
 *  seconds may pass if it gets no processor. */
#define WATCH_WORK     2u
#define WATCH_PATIENCE 10u
#define WATCH_WAITS    6

/** How the children of a run have ended. */
struct watch {
    const char *what;
    uint64_t seed;  /* the next one */
    uint64_t count; /* how many are left */
    uint64_t until; /* CLOCK_MONOTONIC ns, 0: no end but the count */
    bool live;
    uint64_t children;
    uint64_t terminated; /* they waited until SIGTERM */
    uint64_t told;       /* exit status WATCH_TOLD */
    uint64_t findings;
};
/** Exit status: a damaged page has killed it, and the mirror would have said so. */
#define WATCH_TOLD 99

/** Read --seed, --count, --seconds and --live.  Exits with 2 on anything else. */
void watch_options(struct watch *watch, int argc, char **argv);
/** The next seed; false: all are done. */
bool watch_next(struct watch *watch, uint64_t *seed);
/** Wait for @child, and count its end.  @seed: printed with a finding, which is: a signal; no end in WATCH_PATIENCE
 *  seconds behind SIGTERM; an exit status other than 0 and WATCH_TOLD; more memory than a store has. */
void watch_child(struct watch *watch, pid_t child, uint64_t seed);
/** Print the counts.  Returns the exit status of the program. */
int watch_end(const struct watch *watch);

#endif

/* SPDX-License-Identifier: MIT
 *
 * A process that dies at a chosen step: the N-th store into the segment, or the N-th stop at a system call.
 */
#ifndef FASTSPOOL_VICTIM_H
#define FASTSPOOL_VICTIM_H

#include "store/store.h"

#include <sys/types.h>

/** What a victim does to @fs: `prepare` before the counting begins, `run` during it.  Either may be NULL. */
struct deed {
    void (*prepare)(struct fastspool *fs);
    void (*run)(struct fastspool *fs);
};

enum victim_end {
    VICTIM_KILLED, /* at its step */
    VICTIM_DONE,   /* it completed: there was no such step */
    VICTIM_LOST,   /* it died of something else */
};

/** Fork a process that does @deed on @fs, and kill it (SIGKILL) at its @step-th store into the segment; 0: never. */
enum victim_end victim_of_stores(struct fastspool *fs, const struct deed *deed, unsigned step);

/** The same at its @step-th stop at a system call.  Each call stops twice, at its entry and at its exit. */
enum victim_end victim_of_calls(struct fastspool *fs, const struct deed *deed, unsigned step);

#endif

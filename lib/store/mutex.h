/* SPDX-License-Identifier: MIT
 *
 * The lock of the critical sections: a word of the segment (header.section.lock) that holds the thread id of its
 * holder.
 */
#ifndef FASTSPOOL_MUTEX_H
#define FASTSPOOL_MUTEX_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Time after which a waiter looks again, and unmoved looks after which the holder counts as stuck. */
#define MUTEX_LOOK  (100 * NS_PER_MS)
#define MUTEX_STUCK 50u
/** For how long the last holder leaves the lock to another process that has section upon section. */
#define MUTEX_RUN   (16 * NS_PER_US)

/** What a waiter has seen.  Starts as zeros. */
struct mutex_wait {
    uint64_t since;    /* CLOCK_MONOTONIC ns of the first sleep, 0: none yet */
    uint64_t looked;   /* of the last look that counts */
    uint32_t holder;   /* the thread in the word */
    uint32_t sequence; /* section.sequence */
    uint32_t looks;    /* since either of them moved */
    bool slept;        /* others may sleep, too: the next holder must wake one */
};

enum mutex_answer {
    MUTEX_TAKEN,
    MUTEX_TAKEN_OVER, /* the last holder has died inside: roll its section back */
    MUTEX_BUSY,       /* leave the guard, sleep with mutex_sleep(), and try again */
};

/** What the lock has to know of this thread: asked once, by get_robust_list(2) and gettid(2).  0, or -errno: a kernel
 *  or a filter that refuses it. */
int mutex_know_myself(void);

/** Inside the guard: try to take the lock.  Returns enum mutex_answer, or a negative errno: -EDEADLK, this thread holds
 *  it already; -EXDEV, the process has come into another PID namespace; that of mutex_know_myself(). */
int mutex_try(const struct fastspool *fs, const struct mutex_wait *wait);

/** Outside the guard, so signals arrive: sleep until the lock may be free, for MUTEX_LOOK at most. */
void mutex_sleep(struct fastspool *fs, struct mutex_wait *wait);

/** Inside the guard: give the lock back. */
void mutex_release(struct fastspool *fs);

/** In the child of a fork, where its parent tells of forks: the first call need not look whether it is one. */
void mutex_after_fork_child(void);

/** A number of the process that its forked children do not have; 0: it can't be known whether it is the same as before.
 */
uint32_t mutex_life(void);
/** Is @number, which mutex_life() has given, that of this process?  A forked child has none yet, and gets none here:
 *  that would be two pages to write. */
bool mutex_is_life(uint32_t number);

/** namespace_of_pids(), asked once in the life of a process. */
uint64_t mutex_pid_namespace(void);

#endif

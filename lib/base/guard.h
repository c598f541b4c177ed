/* SPDX-License-Identifier: MIT
 *
 * The guard: what a process does around each critical section of a store.
 *
 * The preloaded library holds signals off, and makes sure that no user can stop the process while it holds the lock.
 * Its guard is a constant of its own (shim/signals.c), among those that the loader relocates and makes read-only: a
 * write through a wild pointer is a SIGSEGV, and no way to run other code.  All other programs have the store's, which
 * is weak and does nothing (section.c).
 */
#ifndef FASTSPOOL_GUARD_H
#define FASTSPOOL_GUARD_H

struct section_guard {
    void (*enter)(void); /* before each try to take the lock; NULL: nothing is done */
    void (*leave)(void); /* after it is released, and before the process sleeps because it is taken; the same */
};
extern struct section_guard section_guard;

static inline void guard_enter(void)
{
    if (section_guard.enter)
        section_guard.enter();
}

static inline void guard_leave(void)
{
    if (section_guard.leave)
        section_guard.leave();
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * Atomic access to a field that other threads, signal handlers or processes change meanwhile.
 */
#ifndef FASTSPOOL_ATOMIC_H
#define FASTSPOOL_ATOMIC_H

#include <stdint.h>

/** An atomic field, to be changed: for __atomic_*() and futex_count().  Its structure may be const: the segment's are,
 *  and their atomic fields are the only ones that change outside sections. */
#define ATOMIC(field) (*(__typeof__(((void)0, (field))) *)(uintptr_t)(&(field)))

#define LOAD(field)         __atomic_load_n(&(field), __ATOMIC_ACQUIRE)
#define STORE(field, value) __atomic_store_n(&ATOMIC(field), (value), __ATOMIC_RELEASE)

/** Between two looks at a field that another processor is about to change. */
static inline void atomic_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

#endif

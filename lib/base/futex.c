/* SPDX-License-Identifier: MIT
 *
 * Futexes between processes: words of the segment that count events.
 */
#include "base/futex.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void futex_wait(const uint32_t *word, uint32_t value, uint64_t nanoseconds)
{
    const struct timespec timeout = clock_timespec(nanoseconds);
    int saved = errno;

    syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
    errno = saved;
}

static uint32_t bit(uint32_t class)
{
    return UINT32_C(1) << class % 32;
}

void futex_wait_in(const uint32_t *word, uint32_t class, uint32_t value, uint64_t nanoseconds)
{
    const struct timespec end = clock_timespec(clock_precise() + nanoseconds);
    int saved = errno;

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &end, NULL, bit(class));
    errno = saved;
}

static void wake(const uint32_t *word, int most)
{
    int saved = errno;

    syscall(SYS_futex, word, FUTEX_WAKE, most, NULL, NULL, 0);
    errno = saved;
}

void futex_wake(const uint32_t *word)
{
    wake(word, INT_MAX);
}

void futex_wake_one(const uint32_t *word)
{
    wake(word, 1);
}

void futex_count(uint32_t *word)
{
    __atomic_add_fetch(word, 1, __ATOMIC_ACQ_REL);
    futex_wake(word);
}

void futex_count_without(uint32_t *word, uint32_t class)
{
    int saved = errno;

    __atomic_add_fetch(word, 1, __ATOMIC_ACQ_REL);
    syscall(SYS_futex, word, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, ~bit(class));
    errno = saved;
}

/* Either the sleeper's store of *@enough is seen here, or the sleeper sees the count, and doesn't sleep.  Nobody else
 * is let off before the wake: this thread may die.  What a sleeper says behind the wake stays. */
void futex_count_to(uint32_t *word, uint32_t *enough)
{
    uint32_t count = __atomic_add_fetch(word, 1, __ATOMIC_SEQ_CST);
    uint32_t said = __atomic_load_n(enough, __ATOMIC_SEQ_CST);

    if ((int32_t)(count - said) < 0)
        return;
    futex_wake(word);
    __atomic_compare_exchange_n(enough, &said, count + FUTEX_NEVER, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Move all sleepers of the word to the same word, and wake none.  A count in memory would keep those that were killed.
 */
uint64_t futex_sleepers(const uint32_t *word)
{
    int saved = errno;
    long count = syscall(SYS_futex, word, FUTEX_REQUEUE, 0, (long)INT_MAX, word, 0);

    errno = saved;
    return count > 0 ? (uint64_t)count : 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Futexes between processes: words of the segment that count events.
 */
#ifndef FASTSPOOL_FUTEX_H
#define FASTSPOOL_FUTEX_H

#include <stdint.h>

/** Sleep while *@word is @value, for at most @nanoseconds.  A signal ends it early.  Keeps errno. */
void futex_wait(const uint32_t *word, uint32_t value, uint64_t nanoseconds);
/** The same.  The sleeper is of a class: one of 32 that take turns. */
void futex_wait_in(const uint32_t *word, uint32_t class, uint32_t value, uint64_t nanoseconds);
/** Wake every sleeper. */
void futex_wake(const uint32_t *word);
/** Wake one sleeper, if there is any. */
void futex_wake_one(const uint32_t *word);
/** Count an event, and wake every sleeper. */
void futex_count(uint32_t *word);
/** Count an event, and wake every sleeper but those of @class. */
void futex_count_without(uint32_t *word, uint32_t class);
/** More events than come until a sleeper says again how many are enough. */
#define FUTEX_NEVER (UINT32_C(1) << 30)
/** Count an event, and wake every sleeper if the count has come to *@enough, or is beyond it by less than 2^31.  Then
 *  *@enough moves away by FUTEX_NEVER: the next ones wake nobody. */
void futex_count_to(uint32_t *word, uint32_t *enough);
/** How many threads sleep now, of all processes, as the kernel says.  Keeps errno. */
uint64_t futex_sleepers(const uint32_t *word);

#endif

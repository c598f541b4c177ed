/* SPDX-License-Identifier: MIT
 *
 * The thread that the lock's word names: does it exist, and is it inside?
 */
#ifndef FASTSPOOL_HOLDER_H
#define FASTSPOOL_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Does the thread exist?  @closely: one that has ended and waits for its parent does not. */
bool holder_exists(uint32_t thread, bool closely);

/** The lock has not moved for long.  True: the thread lives, and is not inside.  False: it is inside, and has been
 *  killed if this process may do so; or neither can be known. */
bool holder_is_outside(const struct fastspool *fs, uint32_t thread);

#endif

/* SPDX-License-Identifier: MIT
 *
 * One mirror for a store.
 */
#ifndef FASTSPOOL_ALONE_H
#define FASTSPOOL_ALONE_H

#include <stdbool.h>

struct fastspool;

/** Take the lock that is the mirror's life, until this process ends, and wait for a mirror that has lost it.
 *  -EWOULDBLOCK: another one holds it; else another negative errno. */
int alone_begin(const struct fastspool *fs);
/** Is the lock at its place still?  False: it was removed or replaced, and another mirror may start any time. */
bool alone_still(const struct fastspool *fs);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Direct calls: what the store calls, where its sources are compiled into the library.
 *
 * The compiler reads this first (-include).  So the store calls libc itself, not the wrappers, and knows nothing of it.
 *
 * Happy path:
 *   - direct.sed makes a macro of every name in symbols.def.  These come next, as direct_calls.h.
 *   - A macro with arguments is expanded only before a parenthesis, so struct stat stays.  Prototypes would be
 *     expanded, so their headers come first.
 *
 * Failure modes:
 *   - A function whose address is taken is not redirected.  tests/shim/direct.py finds it.
 */
#ifndef FASTSPOOL_DIRECT_H
#define FASTSPOOL_DIRECT_H

#include "real.h"

#include <stdlib.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>

#endif

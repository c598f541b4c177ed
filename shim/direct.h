/* SPDX-License-Identifier: MIT
 *
 * Put in front of the store's sources where they are compiled into the library (-include): their calls go straight to
 * libc, not through the wrappers that the library exports.  The store knows nothing of it.
 *
 * direct.sed makes a macro of every name in symbols.def; these come next, as direct_calls.h.  A macro with arguments is
 * expanded only before a parenthesis: struct stat stays.  But prototypes would be expanded, so their headers come
 * first.
 *
 * Failure modes: a function whose address is taken is not redirected.  tests/shim/direct.py finds what is left.
 */
#ifndef FASTSPOOL_DIRECT_H
#define FASTSPOOL_DIRECT_H

#include "real.h"

#include <stdlib.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#endif

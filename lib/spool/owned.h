/* SPDX-License-Identifier: MIT
 *
 * Whose the parts of a store are: which one its owner can't use, and the command that mends it.
 */
#ifndef FASTSPOOL_OWNED_H
#define FASTSPOOL_OWNED_H

#include "fastspool.h"

#include <sys/stat.h>

/** Look at all that the owner of @spool, its real path, which @st describes, has to open, but for a view: the spool
 *  itself, the state directory @state, what is in it, and the memory that it names; and the way there.  With the
 *  owner's rights, which the caller has, or has been lent.  @runtime: as configured, "" if it is not; NULL: the memory
 *  is open already, and not looked at.  0; or -EPERM, with a sentence about the first one that he can't use, or that
 *  others can. */
int owned_check(const char *spool, const struct stat *st, const char *state, const char *runtime,
                char error[FASTSPOOL_ERROR_MAX]);

/** The same of the spool's own directory alone, which Exim has to open. */
int owned_check_spool(const char *spool, const struct stat *st, char error[FASTSPOOL_ERROR_MAX]);
/** The same of what a view has to open besides: its locks.  This process must have none of them. */
int owned_check_view(const char *spool, const struct stat *st, const char *state, char error[FASTSPOOL_ERROR_MAX]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * A running Exim as the proof that the loader takes the library.
 */
#ifndef FASTSPOOL_TOOLS_PROOF_H
#define FASTSPOOL_TOOLS_PROOF_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/** Does process @pid run @exim, and has the loader taken the installed library, whose file is @library, into it, so
 * that it would do so again now, in secure execution, too?  (That the file is set-user-ID is the caller's to see.)
 * False, too, where it can't be said. */
bool proof_of(pid_t pid, const char *exim, const struct stat *library);

#endif

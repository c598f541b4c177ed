/* SPDX-License-Identifier: MIT
 *
 * The process that has a lock of the state directory, which is the mail user's: any process of that user can have one.
 */
#ifndef FASTSPOOL_LOCKER_H
#define FASTSPOOL_LOCKER_H

#include "base/places.h"

#include <stdbool.h>

/** Size of a sentence, NUL included. */
#define LOCKER_SENTENCE (2 * PLACES_PATH_MAX)

/** Does a process have a lock of STATE/@name, of whichever kind, that is no @what ("mirror", "view")?  Then @sentence
 *  names it and says what to do.  A process that runs the command is one; for PLACES_VIEW_LOCK root's alone.  @what
 * NULL: any other process than this one, which only root finds.  False, too, where it can't be said, as of a process of
 *  another PID namespace.  Looks at all descriptors of all processes. */
bool locker_find(const char *state, const char *name, const char *what, char sentence[LOCKER_SENTENCE]);

#endif

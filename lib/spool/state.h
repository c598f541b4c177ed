/* SPDX-License-Identifier: MIT
 *
 * The spool, its state directory, and which users they let in.
 */
#ifndef FASTSPOOL_STATE_H
#define FASTSPOOL_STATE_H

#include "fastspool.h"

#include <stdbool.h>
#include <sys/stat.h>

/** Open the spool directory: its descriptor and its real path go into @fs, what it is into @st.  0, or a negative errno
 *  with a sentence. */
int state_open_spool(struct fastspool *fs, const char *spool, struct stat *st, char *error);
/** May this process use the store?  1: as root or the owner, 0: as a trusted user.  Else -EACCES, with a sentence.
 *  Whether it may start the view goes into @fs. */
int state_check_user(const struct fastspool_config *config, struct fastspool *fs, const struct stat *spool,
                     char *error);
/** May state directory @state of @spool, its real path, be made anew?  Not while the view of another one lives, nor
 * beside one that may hold mail.  With the owner's rights.  0, or a negative errno with a sentence. */
int state_check_new(const char *spool, const char *state, char *error);
/** A state that may hold mail of @spool, its real path, as the link with @number there says, which is less than
 *  PLACES_NOTES.  False: there is no such link, or it leads nowhere.  With the owner's rights. */
bool state_noted(const char *spool, unsigned number, char state[FASTSPOOL_PATH_MAX]);
/** @holds: make a link in the spool of @fs that says that its state may hold mail; those that lead to other states
 *  stay.  Else take it away.  As the owner.  0 or -errno; -EMLINK: too many others may hold mail. */
int state_remember(const struct fastspool *fs, bool holds);
/** Open the state directory.  @create: create it if it is missing.  A descriptor, which is the caller's, or a negative
 *  errno with a sentence.  Its path goes into @fs. */
int state_open(struct fastspool *fs, const struct fastspool_config *config, const struct stat *spool, bool create,
               char *error);

#endif

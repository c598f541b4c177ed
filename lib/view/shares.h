/* SPDX-License-Identifier: MIT
 *
 * Shares: how much of the store and of the view's server one user may hold.
 */
#ifndef FASTSPOOL_VIEW_SHARES_H
#define FASTSPOOL_VIEW_SHARES_H

#include <stdbool.h>
#include <sys/types.h>

enum share { SHARE_OPEN, SHARE_LOCK, SHARES };

/** Divide the process's limit of descriptors.  Once, before the first share is taken. */
void shares_begin(void);
/** May @uid hold one more?  Then it is counted until shares_give().  Call as the spool's owner: root's and his own
 * share is larger. */
bool shares_take(enum share share, uid_t uid);
void shares_give(enum share share, uid_t uid);

#endif

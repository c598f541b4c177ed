/* SPDX-License-Identifier: MIT
 *
 * The control group of this process.
 */
#ifndef FASTSPOOL_GROUP_H
#define FASTSPOOL_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

/** Does the control group of this process, or one above it, belong to a user that @trusts says no of?  Such a user may
 *  stop the process, whatever its uids are. */
bool group_is_users(bool (*trusts)(uid_t uid));

#endif

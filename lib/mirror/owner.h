/* SPDX-License-Identifier: MIT
 *
 * The owner of a spool that was restored where Exim's user has another number.
 */
#ifndef FASTSPOOL_OWNER_H
#define FASTSPOOL_OWNER_H

#include "fastspool.h"
#include "mirror/database.h"

#include <sys/stat.h>

/** In @transaction, give to the owner and the group of the spool directory, as @spool is, what belongs to those of
 * inode
 *  @root.  1: files were given; 0: all is the spool owner's already; a negative errno with a sentence. */
int owner_follow(struct database *database, MDB_txn *transaction, uint32_t root, const struct stat *spool,
                 char error[FASTSPOOL_ERROR_MAX]);

#endif

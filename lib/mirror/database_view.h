/* SPDX-License-Identifier: MIT
 *
 * A look at the database that changes nothing: for verify and dump.
 */
#ifndef FASTSPOOL_DATABASE_VIEW_H
#define FASTSPOOL_DATABASE_VIEW_H

#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/format.h"

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

/** The database as it was at one instant. */
struct database_view {
    struct database database;
    MDB_txn *transaction;
    struct disk_meta meta;
    uint64_t number; /* of the transaction that made what is seen */
};

/** Open the database in directory @path for reading.  @registered: beside a mirror that runs, note the look in LMDB's
 *  table of readers, so that the mirror keeps what is seen; else no lock file is touched, and database_view_whole()
 *  tells.  0, or a negative errno with a sentence: nothing is open.
 *  Damaged pages may kill the process: call it in a child, see verify.c. */
int database_view_open(struct database_view *view, const char *path, bool registered, char error[FASTSPOOL_ERROR_MAX]);
void database_view_close(struct database_view *view);

/** Was all that was read so far of that one instant?  No: the mirror has used pages of it again. */
bool database_view_whole(const struct database_view *view);
/** Has the mirror made no checkpoint since? */
bool database_view_last(const struct database_view *view);

#endif

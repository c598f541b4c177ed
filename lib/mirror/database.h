/* SPDX-License-Identifier: MIT
 *
 * The mirror's database: LMDB, opened by one process alone.  Linked into the tool, never into the library.
 *
 * It is the journal's checkpoint: what outlives the journal, up to the batch that "meta" names.
 *
 * Three tables.  "inodes": inode number (4 bytes, big endian) to a struct disk_inode and its names.  "data": inode
 * number and slice number (4 + 4 bytes, big endian) to at most SLICE_SIZE bytes of the file; a slice that is missing
 * is zeros.  "meta": what the database holds.  Values are those of a batch's records (format.h).
 */
#ifndef FASTSPOOL_DATABASE_H
#define FASTSPOOL_DATABASE_H

#include "mirror/format.h"

#include <lmdb.h>
#include <pthread.h>

struct database {
    MDB_env *environment;
    MDB_dbi inodes, data, meta;
};

/** The database of the mirror process, for its threads: LMDB may be opened once in a process. */
struct shared_database {
    const char *path;
    pthread_rwlock_t lock;    /* read: the threads that use it; write: who opens or closes it */
    struct database database; /* environment NULL: closed */
    uint32_t closing;         /* somebody waits to close it; atomic */
};

/** A key as LMDB takes it; @key must stay as long. */
static inline MDB_val database_key(const struct format_key *key)
{
    return (MDB_val){key->size, (void *)key->bytes};
}

/** Open the database in directory @path.  Where there is none an empty one is made, wholly or not at all.  Errors are
 *  sentences in @error. */
int database_open(struct database *database, const char *path, char error[FASTSPOOL_ERROR_MAX]);
void database_close(struct database *database);

/** Make and end the shared database; it is opened where it is first used. */
void shared_database_init(struct shared_database *shared, const char *path);
void shared_database_end(struct shared_database *shared);
/** Use it, beside others; as database_open().  Then leave it: @broken closes it, so that nothing of what failed is left
 * in memory, and who comes next reads the disk anew. */
int shared_database_enter(struct shared_database *shared, struct database **database, char error[FASTSPOOL_ERROR_MAX]);
void shared_database_leave(struct shared_database *shared, bool broken);

/** Begin a transaction; mdb_txn_abort() leaves the database as it was.  In @meta: what it holds. */
int database_begin(struct database *database, MDB_txn **transaction, struct disk_meta *meta,
                   char error[FASTSPOOL_ERROR_MAX]);
/** Put or delete what a record says.  -EBADMSG: it says nothing that makes sense. */
int database_apply(struct database *database, MDB_txn *transaction, const struct record *record, const void *value,
                   char error[FASTSPOOL_ERROR_MAX]);
/** Put @meta, and commit: 0: all of it is on the disk.  An error: the database is as it was, and @mirror must be closed
 *  (LMDB goes on with what it has in memory; we don't). */
int database_commit(struct database *database, MDB_txn *transaction, const struct disk_meta *meta,
                    char error[FASTSPOOL_ERROR_MAX]);

/** Bytes of the database's pages that are free. */
uint64_t database_free_bytes(struct database *database);

/** Two transactions that change nothing.  LMDB takes a page again only two transactions after the one that freed it:
 * where the disk is full, what the last checkpoints deleted is room for the next. */
int database_turn_over(struct database *database, char error[FASTSPOOL_ERROR_MAX]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The mirror's database: LMDB, opened by one process alone.  Linked into the tool, never into the library.
 *
 * It holds the journal's checkpoints: every change up to the batch that "meta" names.
 *
 * Three tables.  "inodes": inode number (4 bytes, big endian) to a struct disk_inode and its names.  "data": inode
 * number and slice number (4 + 4 bytes, big endian) to at most SLICE_SIZE bytes of the file; a slice that is missing
 * is zeros.  "meta": what the database holds.  Values are those of a batch's records (format.h).
 */
#ifndef FASTSPOOL_DATABASE_H
#define FASTSPOOL_DATABASE_H

#include "base/unconst.h"
#include "fastspool.h"
#include "mirror/format.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database {
    MDB_env *environment;
    MDB_dbi inodes, data, meta;
};

/** The database, shared by the threads of the mirror: LMDB may be opened only once in a process. */
struct shared_database {
    const char *path;
    pthread_rwlock_t lock;    /* read: a thread that uses it; write: one that opens or closes it */
    struct database database; /* environment NULL: closed */
    uint32_t closing;         /* counts threads that wait to close it; atomic */
};

/** A key as LMDB takes it; @key must stay as long. */
static inline MDB_val database_key(const struct format_key *key)
{
    return (MDB_val){key->size, UNCONST(key->bytes)};
}

/** Open the database in directory @path.  A missing one is made, empty, wholly or not at all.  0, or a negative errno
 *  with a sentence: nothing is open; -EBADMSG: it is damaged.  Once in a process. */
int database_open(struct database *database, const char *path, char error[FASTSPOOL_ERROR_MAX]);
void database_close(struct database *database);
/** Was @fault, the address of a SIGBUS, in the lock file, which LMDB writes to through memory?  Then its disk has no
 *  room for that: why, -ENOSPC or -EDQUOT; otherwise 0.  For a signal handler. */
int database_lacks_room(const void *fault);
/** Is @path a directory without the database's file, as one whose disk is not mounted, or with one that is empty, as an
 *  operator's slip leaves it? */
bool database_is_emptied(const char *path);

/** Make and end the shared database; its first use opens it.  @path is the caller's, and must stay. */
void shared_database_init(struct shared_database *shared, const char *path);
void shared_database_end(struct shared_database *shared);
/** Use it, beside other threads; errors as database_open().  Then leave it.  @broken closes it once all have left, so
 *  that nothing of what failed stays in memory, and the next use reads the disk anew. */
int shared_database_enter(struct shared_database *shared, struct database **database, char error[FASTSPOOL_ERROR_MAX]);
void shared_database_leave(struct shared_database *shared, bool broken);
/** Is it emptied, or open and no longer in the state directory?  @state is a descriptor of that. */
bool shared_database_is_away(struct shared_database *shared, int state);
/** If its file is not there, or empty, it is lost for good: close it.  The next use makes a new one. */
void shared_database_forget(struct shared_database *shared, int state);

/** Begin a writing transaction, the caller's to commit or to mdb_txn_abort(), which leaves the database as it was.
 *  @meta: what the database holds.  0, or a negative errno with a sentence: no transaction. */
int database_begin(struct database *database, MDB_txn **transaction, struct disk_meta *meta,
                   char error[FASTSPOOL_ERROR_MAX]);
/** Put or delete what a record says.  0, or a negative errno with a sentence; -EBADMSG: the record makes no sense. */
int database_apply(struct database *database, MDB_txn *transaction, const struct record *record, const void *value,
                   char error[FASTSPOOL_ERROR_MAX]);
/** Put @meta and commit; the transaction is over.  0: all of it is on the disk.  A negative errno with a sentence: the
 *  database is as it was, and must be closed (LMDB would go on with what it has in memory). */
int database_commit(struct database *database, MDB_txn *transaction, const struct disk_meta *meta,
                    char error[FASTSPOOL_ERROR_MAX]);

/** Count the free pages from number @first on.  0, or LMDB's code. */
int database_count_free(MDB_env *environment, size_t first, size_t *count);

/** Bytes of free pages in the database; 0 where they cannot be counted. */
uint64_t database_free_bytes(struct database *database);

/** Commit two transactions that change nothing.  LMDB reuses a page only two transactions after the one that freed it:
 *  on a full disk, this turns what the last checkpoints deleted into room for the next. */
int database_turn_over(struct database *database, char error[FASTSPOOL_ERROR_MAX]);

#endif

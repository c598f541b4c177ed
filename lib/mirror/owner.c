/* SPDX-License-Identifier: MIT
 *
 * The owner of a spool that was restored where Exim's user has another number: chown -R has given the new owner the
 * spool and its state, but not what the state says of owners.
 *
 * The happy path: the inode of the spool directory says who was the owner when the database was written.  What is his
 * becomes the new owner's, and so with the group.  All of it is in one transaction with what the recovery reads, so it
 * is done whole, once.
 *
 * Failure modes: files of other users keep their numbers: root's are root's everywhere, and of others nobody knows who
 * they are now.
 */
#include "mirror/owner.h"

#include "base/error.h"
#include "mirror/format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int said(char *error, int code)
{
    return error_set(error, -EIO, "give the mail of the database to the spool's owner: %s", mdb_strerror(code));
}

/* Whose is the inode of the spool directory? */
static int look(struct database *database, MDB_txn *transaction, uint32_t root, struct disk_inode *disk, char *error)
{
    struct format_key key = format_inode_key(root);
    MDB_val id = database_key(&key), value;
    int code = mdb_get(transaction, database->inodes, &id, &value);

    if (code != 0)
        return said(error, code);
    return format_decode_inode(value.mv_data, value.mv_size, disk, NULL) < 0
               ? error_set(error, -EBADMSG, "the database is damaged: a record makes no sense (inode %u)", root)
               : 0;
}

static int give(MDB_cursor *cursor, MDB_val *key, const MDB_val *value, const struct disk_inode *old,
                const struct stat *spool)
{
    struct disk_inode disk;

    if (format_decode_inode(value->mv_data, value->mv_size, &disk, NULL) < 0)
        return 0; /* the recovery says so */
    char *changed = malloc(value->mv_size);
    if (!changed)
        return ENOMEM;
    disk.uid = disk.uid == old->uid ? spool->st_uid : disk.uid;
    disk.gid = disk.gid == old->gid ? spool->st_gid : disk.gid;
    memcpy(changed, value->mv_data, value->mv_size);
    memcpy(changed, &disk, sizeof(disk));
    int code = mdb_cursor_put(cursor, key, &(MDB_val){value->mv_size, changed}, MDB_CURRENT);
    free(changed);
    return code;
}

int owner_follow(struct database *database, MDB_txn *transaction, uint32_t root, const struct stat *spool,
                 char error[FASTSPOOL_ERROR_MAX])
{
    struct disk_inode old;
    MDB_cursor *cursor;
    MDB_val key, value;
    int result = look(database, transaction, root, &old, error);

    if (result < 0 || (old.uid == spool->st_uid && old.gid == spool->st_gid))
        return result;
    int code = mdb_cursor_open(transaction, database->inodes, &cursor);
    if (code != 0)
        return said(error, code);
    for (code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); code == 0;
         code = code ? code : mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
        code = give(cursor, &key, &value, &old, spool);
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 1 : said(error, code);
}

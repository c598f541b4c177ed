/* SPDX-License-Identifier: MIT
 *
 * Recovery: from the database to a segment, after a reboot.
 *
 * The happy path: the segment is emptied (a recovery that was cut short begins anew), every inode is made under its old
 * number, then every name, then the data, then attributes and times are set as they were (making names touches them),
 * the numbers in between become free, and nothing is dirty: all of it is on the disk.
 *
 * Nobody else uses a segment in state RECOVERING, but the building goes through the store's own functions, section by
 * section, so that what they promise holds for what recovery makes.
 *
 * Failure modes: a record that is too short, a name that leads to no directory, a file without a name, a chunk behind
 * the end of its file: the database is damaged, and the recovery fails with a sentence that says what and where.  It
 * reads only: nothing on disk changes, however it ends.
 */
#include "mirror.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define NAMES_STEP 32 /* names that one section makes: each changes some 50 words */

static int damaged(char *error, const char *what, uint32_t inode)
{
    snprintf(error, FASTSPOOL_ERROR_MAX, "the database is damaged: %s (inode %u)", what, inode);
    return -EIO;
}

static int said(char *error, int code)
{
    snprintf(error, FASTSPOOL_ERROR_MAX, "read the database: %s", mdb_strerror(code));
    return -EIO;
}

/* ---- walking a table ---- */

struct walk {
    struct fastspool *fs;
    struct recovered *recovered;
    char *error;
    uint32_t root;
};

/* One record: its key's first number, its value. */
typedef int visit(struct walk *walk, const MDB_val *key, const MDB_val *value);

static int for_each(MDB_txn *transaction, MDB_dbi table, struct walk *walk, visit *each)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int code = mdb_cursor_open(transaction, table, &cursor), result = 0;

    if (code != 0)
        return said(walk->error, code);
    for (code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); code == 0 && result >= 0;
         code = result < 0 ? 0 : mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
        result = each(walk, &key, &value);
    mdb_cursor_close(cursor);
    if (result < 0)
        return result;
    return code == MDB_NOTFOUND ? 0 : said(walk->error, code);
}

static uint32_t number_of(const MDB_val *key)
{
    uint32_t number;
    memcpy(&number, key->mv_data, sizeof(number));
    return ntohl(number);
}

static int record_of(struct walk *walk, const MDB_val *key, const MDB_val *value, uint32_t *inode,
                     struct disk_inode *disk)
{
    if (key->mv_size != sizeof(uint32_t) || value->mv_size < sizeof(*disk))
        return damaged(walk->error, "a record has the wrong length", 0);
    *inode = number_of(key);
    memcpy(disk, value->mv_data, sizeof(*disk));
    if (*inode == 0 || *inode >= INODES_MAX || (!S_ISREG(disk->mode) && !S_ISDIR(disk->mode)) || disk->mode > UINT16_MAX)
        return damaged(walk->error, "a record makes no sense", *inode);
    return 0;
}

/* ---- inodes ---- */

struct restored {
    uint32_t inode;
    const struct disk_inode *disk;
};

static int restore_inode(struct fastspool *fs, void *argument)
{
    const struct restored *restored = argument;
    const struct disk_inode *disk = restored->disk;
    bool directory = S_ISDIR(disk->mode);
    struct inode new = {
        .generation = disk->generation,
        .mode = (uint16_t)disk->mode,
        .flags = INODE_USED | INODE_PERSISTED,
        .uid = disk->uid,
        .gid = disk->gid,
        .size = directory ? BLOCK_SIZE : 0,
        .links = directory ? 1 : 0,
    };

    if (restored->inode >= fs->header->inodes.capacity)
        return section_want(TABLE_INODES);
    section_copy(fs, inode_at(fs, restored->inode), &new, sizeof(new));
    if (restored->inode >= fs->header->inodes.used)
        SET(fs, fs->header->inodes.used, restored->inode + 1);
    SET(fs, fs->header->inodes.count, fs->header->inodes.count + 1);
    if (!directory)
        SET(fs, fs->header->files, fs->header->files + 1);
    return 0;
}

static int visit_inode(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    struct restored restored;
    struct disk_inode disk;
    int result = record_of(walk, key, value, &restored.inode, &disk);

    restored.disk = &disk;
    if (result == 0 && section_run(walk->fs, restore_inode, &restored) < 0) {
        snprintf(walk->error, FASTSPOOL_ERROR_MAX, "the spool needs more than the configured `memory`");
        result = -ENOSPC;
    }
    walk->recovered->files += S_ISREG(disk.mode);
    return result;
}

/* ---- names ---- */

struct names {
    uint32_t inode;
    const char *at;  /* next disk_name */
    const char *end;
    uint32_t left;
};

static int restore_names(struct fastspool *fs, void *argument)
{
    struct names names = *(struct names *)argument;

    for (int step = 0; names.left > 0 && step < NAMES_STEP; step++, names.left--) {
        struct disk_name name;
        if ((size_t)(names.end - names.at) < sizeof(name))
            return -EBADMSG;
        memcpy(&name, names.at, sizeof(name));
        const char *text = names.at + offsetof(struct disk_name, text);
        names.at += sizeof(name) + name.length;
        if (names.at > names.end || name.length == 0 || !inodes_valid(fs, name.parent) ||
            !S_ISDIR(inode_at(fs, name.parent)->mode) || name.parent == names.inode)
            return -EBADMSG;
        int result = names_add(fs, name.parent, text, name.length, names.inode);
        if (result < 0)
            return result;
    }
    *(struct names *)argument = names;
    return names.left > 0;
}

static int visit_names(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    struct disk_inode disk;
    struct names names;
    int result = record_of(walk, key, value, &names.inode, &disk);

    if (result < 0)
        return result;
    names.at = (const char *)value->mv_data + sizeof(disk);
    names.end = (const char *)value->mv_data + value->mv_size;
    names.left = disk.names;
    if (names.inode == walk->root ? disk.names != 0 : disk.names == 0)
        return damaged(walk->error, "a file without a name", names.inode);
    do
        result = section_run(walk->fs, restore_names, &names);
    while (result > 0);
    if (result == -EBADMSG)
        return damaged(walk->error, "a name leads nowhere", names.inode);
    return result;
}

/* ---- data ---- */

struct bytes {
    uint32_t inode;
    uint64_t offset;
    const MDB_val *value;
};

static int restore_bytes(struct fastspool *fs, void *argument)
{
    const struct bytes *bytes = argument;
    return data_write(fs, bytes->inode, bytes->value->mv_data, bytes->value->mv_size, bytes->offset);
}

static int visit_data(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    uint32_t chunk;

    if (key->mv_size != 2 * sizeof(uint32_t) || value->mv_size == 0 || value->mv_size > MIRROR_CHUNK)
        return damaged(walk->error, "a chunk has the wrong length", 0);
    memcpy(&chunk, (const char *)key->mv_data + sizeof(uint32_t), sizeof(chunk));
    struct bytes bytes = {number_of(key), (uint64_t)ntohl(chunk) * MIRROR_CHUNK, value};
    if (!inodes_valid(walk->fs, bytes.inode) || !S_ISREG(inode_at(walk->fs, bytes.inode)->mode))
        return damaged(walk->error, "data of no file", bytes.inode);
    int result = section_run(walk->fs, restore_bytes, &bytes);
    if (result == -ENOSPC)
        snprintf(walk->error, FASTSPOOL_ERROR_MAX, "the spool needs more than the configured `memory`");
    else if (result < 0)
        return damaged(walk->error, "a chunk lies where no file can reach", bytes.inode);
    walk->recovered->bytes += value->mv_size;
    return result;
}

/* ---- attributes, last ---- */

static int restore_attributes(struct fastspool *fs, void *argument)
{
    const struct restored *restored = argument;
    struct inode *inode = inode_at(fs, restored->inode);

    if (S_ISREG(inode->mode) && restored->disk->size > inode->size)
        SET(fs, inode->size, restored->disk->size); /* ends in a hole */
    SET(fs, inode->atime, restored->disk->atime);
    SET(fs, inode->mtime, restored->disk->mtime);
    SET(fs, inode->ctime, restored->disk->ctime);
    inodes_clean(fs, restored->inode);
    SET(fs, inode->changed_in, 0);
    return 0;
}

static int visit_attributes(struct walk *walk, const MDB_val *key, const MDB_val *value)
{
    struct restored restored;
    struct disk_inode disk;
    int result = record_of(walk, key, value, &restored.inode, &disk);

    restored.disk = &disk;
    if (result < 0)
        return result;
    const struct inode *inode = inode_at(walk->fs, restored.inode);
    if (S_ISREG(inode->mode) && inode->size > disk.size)
        return damaged(walk->error, "data behind the end of a file", restored.inode);
    return section_run(walk->fs, restore_attributes, &restored);
}

/* ---- the numbers in between ---- */

struct gaps {
    uint32_t next;
};

static int free_gaps(struct fastspool *fs, void *argument)
{
    struct gaps *gaps = argument;
    struct table *table = &fs->header->inodes;
    uint32_t i = gaps->next;

    for (int step = 0; step < 256 && i < table->used; step++, i++) {
        if (inode_at(fs, i)->flags & INODE_USED)
            continue;
        SET(fs, inode_at(fs, i)->names, table->free);
        SET(fs, table->free, i);
    }
    gaps->next = i;
    return i < table->used;
}

/* ---- all of it ---- */

static int read_root(struct mirror *mirror, MDB_txn *transaction, struct walk *walk)
{
    static const char name[] = "store";
    struct disk_meta meta;
    MDB_val key = {sizeof(name), (void *)name}, value;
    int code = mdb_get(transaction, mirror->meta, &key, &value);

    if (code == MDB_NOTFOUND)
        return -ENOENT; /* nothing was ever committed */
    if (code != 0)
        return said(walk->error, code);
    if (value.mv_size != sizeof(meta))
        return damaged(walk->error, "its own description has the wrong length", 0);
    memcpy(&meta, value.mv_data, sizeof(meta));
    if (meta.format != MIRROR_FORMAT)
        return damaged(walk->error, "its format is not this version's", 0);
    walk->root = (uint32_t)meta.root;
    return 0;
}

static int rebuild(struct mirror *mirror, MDB_txn *transaction, struct walk *walk)
{
    struct gaps gaps = {1};
    int result = read_root(mirror, transaction, walk);

    if (result == 0)
        result = for_each(transaction, mirror->inodes, walk, visit_inode);
    if (result < 0)
        return result;
    if (!inodes_valid(walk->fs, walk->root) || !S_ISDIR(inode_at(walk->fs, walk->root)->mode))
        return damaged(walk->error, "the spool's own directory is missing", walk->root);
    struct inode *root = inode_at(walk->fs, walk->root);
    root->links = 2;
    root->dir.parent = walk->root;
    walk->fs->header->root = walk->root;
    result = for_each(transaction, mirror->inodes, walk, visit_names);
    if (result == 0)
        result = for_each(transaction, mirror->data, walk, visit_data);
    if (result == 0)
        result = for_each(transaction, mirror->inodes, walk, visit_attributes);
    while (result >= 0 && (result = section_run(walk->fs, free_gaps, &gaps)) > 0)
        ;
    walk->fs->header->oldest_dirty = 0;
    STORE(walk->fs->header->durable, walk->fs->header->change);
    return result;
}

int recovery_run(struct fastspool *fs, const char *path, struct recovered *recovered, char error[FASTSPOOL_ERROR_MAX])
{
    struct walk walk = {.fs = fs, .recovered = recovered, .error = error};
    struct mirror mirror;
    MDB_txn *transaction;

    *recovered = (struct recovered){0};
    int result = segment_reset(fs);
    if (result < 0)
        snprintf(error, FASTSPOOL_ERROR_MAX, "empty the segment: %s", strerrordesc_np(-result));
    if (result == 0)
        result = mirror_open(&mirror, path, false, error);
    if (result == 0) {
        int code = mdb_txn_begin(mirror.environment, NULL, MDB_RDONLY, &transaction);
        result = code ? said(error, code) : rebuild(&mirror, transaction, &walk);
        if (code == 0)
            mdb_txn_abort(transaction);
        mirror_close(&mirror);
    }
    if (result == -ENOENT)
        result = inodes_make_root(fs);
    return result;
}

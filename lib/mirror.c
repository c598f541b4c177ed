/* SPDX-License-Identifier: MIT
 *
 * Writing captures to the database.
 *
 * The happy path: one transaction a capture; for each inode its record is put or deleted, the chunks that its dirty
 * blocks reach are put, and those behind its end deleted.  The bytes come straight from the segment: the capture's
 * block numbers are pinned until the commit ends.
 *
 * Failure modes: whatever fails aborts the transaction, and the database holds the instant of the capture before; a
 * full disk is ENOSPC, all else that LMDB may say is EIO with its sentence.  The map is as large as it may ever be from
 * the start, so it is never resized; it is not writable, so a stray store can't reach it.
 */
#include "mirror.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_LARGEST  (UINT64_C(1) << 40) /* bytes of address space; the file grows as needed */
#define MAP_SMALLEST (UINT64_C(1) << 32)

static int explain(int code, const char *what, char *error)
{
    snprintf(error, FASTSPOOL_ERROR_MAX, "%s: %s", what, mdb_strerror(code));
    if (code == MDB_MAP_FULL)
        return -ENOSPC;
    return code > 0 ? -code : -EIO;
}

/* ---- opening ---- */

/* A file shorter than its last page says it is would be a SIGBUS at a look behind its end. */
static int check_length(MDB_env *environment)
{
    MDB_envinfo info;
    MDB_stat stat_of_main;
    mdb_filehandle_t fd;
    struct stat st;
    int code = mdb_env_info(environment, &info);

    if (code == 0)
        code = mdb_env_stat(environment, &stat_of_main);
    if (code == 0)
        code = mdb_env_get_fd(environment, &fd);
    if (code != 0)
        return code;
    if (fstat(fd, &st) < 0)
        return errno;
    return (uint64_t)st.st_size < (info.me_last_pgno + 1) * stat_of_main.ms_psize ? MDB_CORRUPTED : 0;
}

static int open_environment(struct mirror *mirror, const char *path, bool create)
{
    int code = ENOMEM;

    for (uint64_t size = MAP_LARGEST; size >= MAP_SMALLEST && code == ENOMEM; size /= 4) {
        code = mdb_env_create(&mirror->environment);
        if (code != 0)
            return code;
        code = mdb_env_set_mapsize(mirror->environment, size);
        if (code == 0)
            code = mdb_env_set_maxdbs(mirror->environment, 4);
        if (code == 0)
            code = mdb_env_open(mirror->environment, path, create ? 0 : MDB_RDONLY, 0600);
        if (code != 0)
            mirror_close(mirror);
    }
    return code;
}

static int open_tables(struct mirror *mirror, bool create)
{
    MDB_txn *transaction;
    unsigned flags = create ? MDB_CREATE : 0;
    int code = mdb_txn_begin(mirror->environment, NULL, create ? 0 : MDB_RDONLY, &transaction);

    if (code != 0)
        return code;
    code = mdb_dbi_open(transaction, "inodes", flags, &mirror->inodes);
    if (code == 0)
        code = mdb_dbi_open(transaction, "data", flags, &mirror->data);
    if (code == 0)
        code = mdb_dbi_open(transaction, "meta", flags, &mirror->meta);
    if (code != 0) {
        mdb_txn_abort(transaction);
        return code;
    }
    return mdb_txn_commit(transaction);
}

int mirror_open(struct mirror *mirror, const char *path, bool create, char error[FASTSPOOL_ERROR_MAX])
{
    char what[FASTSPOOL_PATH_MAX + 32];
    char file[FASTSPOOL_PATH_MAX + 16];
    struct stat st;

    *mirror = (struct mirror){0};
    snprintf(what, sizeof(what), "open the database %s", path);
    snprintf(file, sizeof(file), "%s/data.mdb", path);
    if (!create && stat(file, &st) < 0)
        return -errno;
    if (create && mkdir(path, 0700) < 0 && errno != EEXIST)
        return explain(errno, what, error);
    int code = open_environment(mirror, path, create);
    if (code == 0)
        code = check_length(mirror->environment);
    if (code == 0)
        code = open_tables(mirror, create);
    if (code == 0)
        return 0;
    mirror_close(mirror);
    return code == MDB_NOTFOUND ? -ENOENT : explain(code, what, error);
}

void mirror_close(struct mirror *mirror)
{
    if (mirror->environment)
        mdb_env_close(mirror->environment);
    mirror->environment = NULL;
}

/* ---- writing ---- */

struct chunk_key {
    uint32_t inode; /* both big endian: so chunks lie in the order of the file */
    uint32_t chunk;
};

static int put_record(struct mirror *mirror, MDB_txn *transaction, const struct captured *file)
{
    uint32_t number = htonl(file->inode);
    MDB_val key = {sizeof(number), &number}, value = {sizeof(struct disk_inode), NULL};
    const struct inode *record = &file->record;

    for (size_t i = 0; i < file->names; i++)
        value.mv_size += sizeof(struct disk_name) + file->name[i].length;
    int code = mdb_put(transaction, mirror->inodes, &key, &value, MDB_RESERVE);
    if (code != 0)
        return code;
    const struct disk_inode disk = {record->generation, record->mode, record->uid, record->gid, record->size,
                                    record->atime, record->mtime, record->ctime, (uint32_t)file->names, 0};
    char *at = value.mv_data;
    memcpy(at, &disk, sizeof(disk));
    at += sizeof(disk);
    for (size_t i = 0; i < file->names; i++) {
        const struct disk_name name = {file->name[i].parent, file->name[i].length};
        memcpy(at, &name, sizeof(name));
        memcpy(at + offsetof(struct disk_name, text), file->name[i].text, name.length);
        at += sizeof(name) + name.length;
    }
    return 0;
}

/* Bytes [offset, offset + size) of a captured file into @bytes; false: all of them lie in holes. */
static bool gather(struct fastspool *fs, const struct captured *file, uint64_t offset, uint32_t size, char *bytes)
{
    bool any = false;

    for (uint32_t done = 0; done < size;) {
        uint32_t index = (uint32_t)((offset + done) / BLOCK_SIZE) - file->first;
        uint32_t from = (uint32_t)((offset + done) % BLOCK_SIZE);
        uint32_t part = size - done < BLOCK_SIZE - from ? size - done : BLOCK_SIZE - from;
        uint32_t block = index < file->count ? file->blocks[index] : 0;
        if (block)
            memcpy(bytes + done, block_at(fs, block) + from, part);
        else
            memset(bytes + done, 0, part);
        any = any || block;
        done += part;
    }
    return any;
}

static int put_chunk(struct mirror *mirror, MDB_txn *transaction, struct fastspool *fs, const struct captured *file,
                     uint32_t chunk)
{
    const struct chunk_key number = {htonl(file->inode), htonl(chunk)};
    uint64_t offset = (uint64_t)chunk * MIRROR_CHUNK;
    uint64_t left = file->record.size - offset;
    char bytes[MIRROR_CHUNK];
    MDB_val key = {sizeof(number), (void *)&number};
    MDB_val value = {left < MIRROR_CHUNK ? left : MIRROR_CHUNK, bytes};

    if (gather(fs, file, offset, (uint32_t)value.mv_size, bytes))
        return mdb_put(transaction, mirror->data, &key, &value, 0);
    int code = mdb_del(transaction, mirror->data, &key, NULL);
    return code == MDB_NOTFOUND ? 0 : code;
}

/* Delete the chunks of an inode from number @chunk on. */
static int delete_chunks(struct mirror *mirror, MDB_txn *transaction, uint32_t inode, uint32_t chunk)
{
    const struct chunk_key first = {htonl(inode), htonl(chunk)};
    MDB_val key = {sizeof(first), (void *)&first}, value;
    MDB_cursor *cursor;
    int code = mdb_cursor_open(transaction, mirror->data, &cursor);

    if (code != 0)
        return code;
    code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (code == 0 && key.mv_size == sizeof(first) && memcmp(key.mv_data, &first.inode, sizeof(first.inode)) == 0) {
        code = mdb_cursor_del(cursor, 0);
        if (code == 0)
            code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT); /* the one behind the deleted one */
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

static int put_data(struct mirror *mirror, MDB_txn *transaction, struct fastspool *fs, const struct captured *file)
{
    const struct inode *record = &file->record;
    uint32_t chunks = (uint32_t)((record->size + MIRROR_CHUNK - 1) / MIRROR_CHUNK);
    uint32_t chunk = (uint32_t)((uint64_t)record->dirty_from * BLOCK_SIZE / MIRROR_CHUNK);
    uint32_t end = (uint32_t)(((uint64_t)record->dirty_to * BLOCK_SIZE + MIRROR_CHUNK - 1) / MIRROR_CHUNK);
    int code = 0;

    for (; code == 0 && chunk < end && chunk < chunks; chunk++)
        code = put_chunk(mirror, transaction, fs, file, chunk);
    return code ? code : delete_chunks(mirror, transaction, file->inode, chunks);
}

static int put_file(struct mirror *mirror, MDB_txn *transaction, struct fastspool *fs, const struct captured *file)
{
    uint32_t number = htonl(file->inode);
    MDB_val key = {sizeof(number), &number};

    if (file->record.links == 0) {
        int code = mdb_del(transaction, mirror->inodes, &key, NULL);
        return code == 0 || code == MDB_NOTFOUND ? delete_chunks(mirror, transaction, file->inode, 0) : code;
    }
    int code = put_record(mirror, transaction, file);
    if (code != 0)
        return code;
    if (S_ISREG(file->record.mode) && file->record.size > 0)
        return file->record.dirty_to > file->record.dirty_from ? put_data(mirror, transaction, fs, file) : 0;
    /* Nothing in it: what the number's last file had must go. */
    return delete_chunks(mirror, transaction, file->inode, 0);
}

static int put_meta(struct mirror *mirror, MDB_txn *transaction, const struct fastspool *fs)
{
    static const char name[] = "store";
    struct disk_meta meta = {MIRROR_FORMAT, fs->header->root};
    MDB_val key = {sizeof(name), (void *)name}, value = {sizeof(meta), &meta};

    return mdb_put(transaction, mirror->meta, &key, &value, 0);
}

int mirror_apply(struct mirror *mirror, struct fastspool *fs, const struct capture *capture,
                 char error[FASTSPOOL_ERROR_MAX])
{
    MDB_txn *transaction;
    int code = mdb_txn_begin(mirror->environment, NULL, 0, &transaction);

    if (code != 0)
        return explain(code, "begin a transaction", error);
    for (size_t i = 0; code == 0 && i < capture->count; i++)
        code = put_file(mirror, transaction, fs, &capture->file[i]);
    if (code == 0)
        code = put_meta(mirror, transaction, fs);
    if (code != 0) {
        mdb_txn_abort(transaction);
        return explain(code, "write to the database", error);
    }
    code = mdb_txn_commit(transaction);
    return code ? explain(code, "commit to the database", error) : 0;
}

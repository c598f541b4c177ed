/* SPDX-License-Identifier: MIT
 *
 * The mirror's database: LMDB, opened by one process alone.  Linked into the tool, never into the library.
 *
 * Three tables.  "inodes": inode number (4 bytes, big endian) to a struct disk_inode and its names.  "data": inode
 * number and chunk number (4 + 4 bytes, big endian) to at most MIRROR_CHUNK bytes of the file; a chunk that is missing
 * is zeros.  "meta": what was written last.  Numbers in values are in the machine's byte order: the database is of
 * this machine, and `meta` says so.
 */
#ifndef FASTSPOOL_MIRROR_H
#define FASTSPOOL_MIRROR_H

#include "store.h"

#include <lmdb.h>

/* One overflow page of LMDB.  (Measured, in a fragmented database: a value of 1 MB takes 3,215 ms whole, 2 ms in these.) */
#define MIRROR_CHUNK 4072u

#define MIRROR_FORMAT UINT64_C(0x314244535f544653) /* "SFT_SDB1" in little endian */

struct mirror {
    MDB_env *environment;
    MDB_dbi inodes, data, meta;
};

struct disk_inode {
    uint32_t generation;
    uint32_t mode;
    uint32_t uid, gid;
    uint64_t size;
    uint64_t atime, mtime, ctime;
    uint32_t names; /* how many struct disk_name follow, each at once behind the last */
    uint32_t zero;
};

struct disk_name {
    uint32_t parent; /* inode number of the directory */
    uint8_t length;
    char text[];     /* not terminated */
};

struct disk_meta {
    uint64_t format; /* MIRROR_FORMAT */
    uint64_t root;   /* inode number of the spool directory */
};

/** Open the database in directory @path, making it where @create; without, a database that does not exist is -ENOENT.
 *  Errors are sentences in @error. */
int mirror_open(struct mirror *mirror, const char *path, bool create, char error[FASTSPOOL_ERROR_MAX]);
void mirror_close(struct mirror *mirror);

/** Write a capture, as one transaction.  Returns 0 or a negative errno: then the database is as it was. */
int mirror_apply(struct mirror *mirror, struct fastspool *fs, const struct capture *capture,
                 char error[FASTSPOOL_ERROR_MAX]);

/** What a recovery brought back. */
struct recovered {
    uint64_t files;
    uint64_t bytes;
};

/** Fill the segment (RECOVERING, and nobody else's) from the database in STATE/mirror.  No database: an empty store.
 *  A damaged one is -EIO, and nothing on disk has been touched. */
int recovery_run(struct fastspool *fs, const char *path, struct recovered *recovered, char error[FASTSPOOL_ERROR_MAX]);

#endif

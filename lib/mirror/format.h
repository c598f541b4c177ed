/* SPDX-License-Identifier: MIT
 *
 * A batch: one instant of the spool, as a sequence of records, and the form in which files lie on the disk.
 *
 * The journal holds batches; the database holds the same values under the same keys, so that applying a batch is to put
 * and to delete.  Numbers are in the machine's byte order: a state directory is of one machine.
 */
#ifndef FASTSPOOL_BATCH_H
#define FASTSPOOL_BATCH_H

#include <stddef.h>
#include <stdint.h>

struct capture;
struct fastspool;

/** Bytes of a file that one key of the database holds: one overflow page of LMDB.  (Measured, in a fragmented database:
 *  a value of 1 MB takes 3,215 ms whole, 2 ms in these.) */
#define SLICE_SIZE 4072u

/** What a file is, apart from its content: the value of RECORD_INODE. */
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
    uint32_t length; /* bytes, at most 255 */
    char text[];     /* not terminated */
};

enum record_kind {
    RECORD_INODE = 1, /* value: struct disk_inode and its names; slices behind its size are gone */
    RECORD_GONE = 2,  /* no value: neither the inode nor any slice of it exists any more */
    RECORD_SLICE = 3, /* value: bytes [slice * SLICE_SIZE, ... + size) of the file */
    RECORD_HOLE = 4,  /* no value: this slice is zeros, and not kept */
};

/** Heads each record; the value follows, filled up with zeros to a multiple of 8 bytes. */
struct record {
    uint32_t kind; /* enum record_kind */
    uint32_t inode;
    uint32_t slice;
    uint32_t size; /* of the value, bytes */
};

/** Takes the next @size bytes of a batch.  Negative: the batch ends there, with this error. */
typedef int format_sink(void *context, const void *bytes, size_t size);

/** Bytes that format_encode() will give. */
uint64_t format_size(const struct capture *capture);

/** Give the records of a capture to @sink, piece by piece: format_size() bytes in all.  The capture's blocks are pinned
 *  until capture_end(). */
int format_encode(struct fastspool *fs, const struct capture *capture, format_sink *sink, void *context);

/** The record at *@at, checked to lie before @end, and *@at behind it.  1: a record; 0: the end; -EBADMSG. */
int format_next(const char **at, const char *end, struct record *record, const void **value);

#endif

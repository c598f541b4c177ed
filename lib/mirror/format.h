/* SPDX-License-Identifier: MIT
 *
 * What lies on the disk: keys, values, records, and the heads and tails of the journal.  Encoded and decoded here
 * alone.
 *
 * A batch is one instant of the spool, as a sequence of records.  The journal holds batches; the database holds the
 * same values, so that applying a batch is to put and to delete.  Numbers are in the machine's byte order, except in
 * keys: a state directory belongs to one machine.
 *
 * Decoding trusts nothing: any bytes give a value that is in range, or -EBADMSG.
 */
#ifndef FASTSPOOL_FORMAT_H
#define FASTSPOOL_FORMAT_H

#include <stddef.h>
#include <stdint.h>

struct capture;
struct fastspool;

/** Bytes of a file that one key of the database holds: one overflow page of LMDB.  (Measured in a fragmented database:
 *  1 MB takes 3,215 ms as one value, 2 ms in slices.) */
#define SLICE_SIZE 4072u

/** A file apart from its content: the value of RECORD_INODE. */
struct disk_inode {
    uint32_t generation;
    uint32_t mode;
    uint32_t uid, gid;
    uint64_t size;
    uint64_t atime, mtime, ctime;
    uint32_t names; /* how many struct disk_name follow, without gaps */
    uint32_t zero;
};

struct disk_name {
    uint32_t parent; /* inode number of the directory */
    uint32_t length; /* bytes, at most 255 */
    char text[];     /* not terminated */
};

enum record_kind {
    RECORD_INODE = 1, /* value: struct disk_inode and its names; slices beyond its size are gone */
    RECORD_GONE = 2,  /* no value: the inode and all its slices are deleted */
    RECORD_SLICE = 3, /* value: bytes [slice * SLICE_SIZE, ... + size) of the file */
    RECORD_HOLE = 4,  /* no value: this slice is zeros, and the database has no key for it */
};

/** Heads each record; the value follows, padded with zeros to a multiple of 8 bytes. */
struct record {
    uint32_t kind; /* enum record_kind */
    uint32_t inode;
    uint32_t slice;
    uint32_t size; /* of the value, bytes */
};

/** Takes the next @size bytes of a batch.  Negative: encoding ends with this error. */
typedef int format_sink(void *context, const void *bytes, size_t size);

/** Bytes that format_encode() produces. */
uint64_t format_size(const struct capture *capture);

/** Encode a capture: give its records to @sink, piece by piece, format_size() bytes in all.  Straight from the segment:
 *  the capture's blocks are pinned until capture_end().  0, or the sink's error. */
int format_encode(struct fastspool *fs, const struct capture *capture, format_sink *sink, void *context);

/** The next record at *@at, checked to end before @end; *@at moves on.  1: a record; 0: there are no more; -EBADMSG. */
int format_next(const char **at, const char *end, struct record *record, const void **value);

/* ---- the database ---- */

#define DATABASE_FORMAT UINT64_C(0x324244535f544653) /* "SFT_SDB2" in little endian */

/** The one value of the table "meta". */
struct disk_meta {
    uint64_t format; /* DATABASE_FORMAT */
    uint64_t root;   /* inode number of the spool directory, 0: nothing was ever written */
    uint64_t batch;  /* number of the last batch that is in the database */
};

/** A key of the database.  Its numbers are big endian: inodes lie in their order, slices in the order of the file. */
struct format_key {
    unsigned char bytes[8];
    size_t size;
};
struct format_key format_inode_key(uint32_t inode);
struct format_key format_slice_key(uint32_t inode, uint32_t slice);
struct format_key format_meta_key(void);

/** A key read back: 0, or -EBADMSG: it has another length, or a number that no inode has. */
int format_parse_inode_key(const void *bytes, size_t size, uint32_t *inode);
int format_parse_slice_key(const void *bytes, size_t size, uint32_t *inode, uint32_t *slice);

/** The names of an inode, and one of them: it points into the value. */
struct format_names {
    const char *at;
    const char *end;
    uint32_t left;
};
struct format_name {
    uint32_t parent; /* as the disk says: any number */
    const char *text;
    size_t length; /* 1 to 255 */
};

/** The value of an inode, checked: its length, that it is a file or a directory, and attributes that one can have.
 * @names may be NULL.  0 or -EBADMSG. */
int format_decode_inode(const void *value, size_t size, struct disk_inode *disk, struct format_names *names);
/** The next name, checked: it lies in the value, and is one that a file can have: no '/' or NUL in it, not "." or "..".
 *  1: a name; 0: there are no more; -EBADMSG. */
int format_next_name(struct format_names *names, struct format_name *name);

/** The value of "meta", checked: its length and format.  0 or -EBADMSG. */
int format_decode_meta(const void *value, size_t size, struct disk_meta *meta);

/** How many slices a file of @size bytes has. */
uint32_t format_slices(uint64_t size);

/* ---- the journal's files ---- */

/** Bytes.  A file's head takes one block; batches begin on a block boundary, so that no write touches a block that
 *  holds durable bytes. */
#define FORMAT_BLOCK 4096u

/** Heads a file. */
struct journal_head {
    uint64_t magic;
    uint64_t first;   /* number of the file's first batch: orders the files */
    uint64_t follows; /* number of the last durable batch when the file was begun */
    uint64_t salt;
    uint32_t zero;
    uint32_t crc; /* of all before */
};

/** Heads a batch. */
struct batch_head {
    uint64_t magic;
    uint64_t salt; /* of the file */
    uint64_t number;
    uint64_t previous; /* the last batch known durable */
    uint64_t size;     /* of the payload, a multiple of 8 */
    uint32_t root;     /* inode of the spool directory */
    uint32_t crc;      /* of all before */
};

/** Follows the payload. */
struct batch_tail {
    uint64_t magic;
    uint64_t number;
    uint32_t crc; /* of the payload */
    uint32_t zero;
};

/** Why reading a file of the journal ends where it does; in words: journal_scan_reason(). */
enum journal_reason {
    JOURNAL_WHOLE,            /* it does not end here */
    JOURNAL_FILE_END,         /* the file ends, at a block boundary */
    JOURNAL_ZEROS,            /* a block of zeros */
    JOURNAL_MAGIC,            /* neither zeros nor a head */
    JOURNAL_SALT,             /* a batch of another use of the file */
    JOURNAL_HEAD_CHECKSUM,    /* of a file or a batch */
    JOURNAL_TOO_LARGE,        /* a batch larger than the file */
    JOURNAL_CUT_SHORT,        /* the file ends within a head or batch */
    JOURNAL_TAIL,             /* no tail, or that of another batch */
    JOURNAL_PAYLOAD_CHECKSUM, /* the tail is the batch's, the payload is not */
    JOURNAL_ORDER,            /* a batch's number is not higher than that of the one before */
    JOURNAL_FOLLOWS,          /* whole batches that do not count: a later file follows an earlier batch */
    JOURNAL_HELD,             /* not read: no batch of the file is both wanted and counts */
    JOURNAL_GONE,             /* the file was released and removed meanwhile */
    JOURNAL_NO_FILE,          /* a directory, link, FIFO or the like of a file's name */
};

/** Set magic and checksum; the other fields are the caller's. */
void format_seal_file_head(struct journal_head *head);
void format_seal_batch_head(struct batch_head *head);

/** The checksum of a payload, piece by piece: @crc is FORMAT_CRC at first. */
#define FORMAT_CRC UINT32_MAX
uint32_t format_crc(uint32_t crc, const void *bytes, size_t size);
/** The tail of a batch whose payload has this checksum. */
struct batch_tail format_batch_tail(uint64_t number, uint32_t crc);

/** Bytes that a batch takes in its file. */
uint64_t format_batch_space(uint64_t payload);

/** Read a head from @block, the first @got bytes of its block: JOURNAL_WHOLE, or why it is none. */
enum journal_reason format_file_head(const char *block, size_t got, struct journal_head *head);
/** The same for a batch of a file with @salt, of @room bytes. */
enum journal_reason format_batch_head(const char *block, size_t got, uint64_t salt, uint64_t room,
                                      struct batch_head *head);
/** Does @body, payload and tail, belong to @head? */
enum journal_reason format_batch_body(const struct batch_head *head, const char *body);

#endif

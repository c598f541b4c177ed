/* SPDX-License-Identifier: MIT
 *
 * What the parts of a verification share.
 */
#ifndef FASTSPOOL_VERIFY_INSIDE_H
#define FASTSPOOL_VERIFY_INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database_view;
struct disk_inode;
struct findings;
struct verified;

/** What is being read: where the process dies over it, this is where the damage is. */
struct verify_place {
    enum verify_table { VERIFY_NO_TABLE, VERIFY_INODES, VERIFY_DATA } table;
    uint32_t inode;
    uint32_t slice;
};

/** "inodes", "data". */
const char *verify_table_name(enum verify_table table);

/** What the database knows of an inode. */
struct verify_inode {
    uint64_t size;
    uint32_t generation;
    uint32_t above; /* the directory that its name is in; 0: no name */
    uint8_t kind;   /* 0: there is none */
};
enum { VERIFY_FILE = 1, VERIFY_DIRECTORY = 2 };

/** The inodes of the database, by number; [1, count). */
struct verify_inodes {
    uint32_t count;
    struct verify_inode *inode;
};

/** Every entry of the database.  *@inodes is the caller's to free.  -EIO: LMDB can't read on, and says why in
 * @findings; -ENOMEM. */
int verify_database(const struct database_view *view, struct verify_place *place, struct verify_inodes *inodes,
                    struct verified *verified, struct findings *findings);

/** What is known of a journal. */
struct verify_known {
    bool database;    /* a database can be read; */
    uint64_t above;   /* it holds the batches up to this one */
    uint64_t durable; /* the last batch that memory knows to be durable; 0: there is no memory */
};
/** Every batch of the journal in @directory (-1: there is none) that the database doesn't hold.  0, or a negative
 * errno: it can't be read, and @findings says why. */
int verify_journal(int directory, const struct verify_known *known, struct verified *verified,
                   struct findings *findings);

/** A value that both have: an inode and its names.  Says what is wrong with it: @where, of @inode. */
struct disk_inode;
typedef void verify_name(void *context, uint32_t parent, const char *text, size_t length);
bool verify_value(const char *where, uint32_t inode, const void *value, size_t size, struct disk_inode *disk,
                  verify_name *each, void *context, struct findings *findings);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The record: STATE/runtime, which says where the memory of the store is.
 */
#ifndef FASTSPOOL_RECORD_H
#define FASTSPOOL_RECORD_H

#include "fastspool.h"
#include "spool/presence.h"

#include <stdbool.h>
#include <sys/stat.h>

struct record {
    char runtime[FASTSPOOL_PATH_MAX];     /* RUNTIME/fastspool.ID */
    char identity[PRESENCE_IDENTITY_MAX]; /* of the state directory that it was written in; "": by an older version */
    char held[PRESENCE_IDENTITY_MAX];     /* of the one that this process has open; set by memory_open(), not written */
    char place[48];                       /* device and inode number of the spool directory */
    char spool[FASTSPOOL_PATH_MAX];       /* its path */
};

/** Read STATE/runtime.  0 or -errno; -ENOENT: there is none, or it names no directory. */
int record_read(int state_fd, struct record *record);
/** Publish @record.  0 or -errno. */
int record_write(int state_fd, const struct record *record);
/** Set what @record says of the spool.  True: it said so already. */
bool record_spool(struct record *record, const struct stat *st, const char *spool);
/** Does @record say the same place of the spool, or at least the same path? */
bool record_is_of(const struct record *record, const struct stat *st, const char *spool);

#endif

/* SPDX-License-Identifier: MIT
 *
 * A tally of what lies on the disk of a spool that has no store in memory, and a look at its directories.
 */
#ifndef FASTSPOOL_TALLY_H
#define FASTSPOOL_TALLY_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define TALLY_KINDS 8

/** Of which kind, less than TALLY_KINDS, is the file of @size bytes at @path, relative to the spool? */
typedef unsigned tally_kind(const void *context, const char *path, uint64_t size);

/** What is amiss with the journal. */
enum tally_journal {
    TALLY_WHOLE,    /* nothing, as far as it can be told: files that are missing at its end leave no trace */
    TALLY_NONE,     /* it is not there */
    TALLY_HOLE,     /* batches are missing: the recovery goes on without them */
    TALLY_DETACHED, /* it begins behind what the database has: no recovery goes on */
};

struct tally {
    uint64_t names[TALLY_KINDS];   /* in the database, of each kind */
    char read[FASTSPOOL_PATH_MAX]; /* what the file says that was to be read; "": nothing */
    enum tally_journal journal;
    bool more; /* the journal has changes that the database lacks: it may be more, or fewer */
};

/** Count in the state directory @state of the user @owner and @group, and read the start of file @read.  It changes
 *  nothing, and reads no mail.  0; or a negative errno: it can't be said.  LMDB is opened in a child of this process,
 *  which has the owner's rights. */
int tally_disk(const char *state, uid_t owner, gid_t group, tally_kind *kind, const void *context, const char *read,
               struct tally *tally);

struct tally_directory {
    char path[FASTSPOOL_PATH_MAX]; /* relative to the spool; "": none */
    struct stat st;                /* owner, group, mode, and as many links as a directory with its directories has */
};

/** Is the directory at @path, with @st, what is looked for, and rather than @found, "": none yet? */
typedef bool tally_pick(const void *context, const char *path, const struct stat *st, const char *found);

/** The directory of the database in @state that @pick picks of all, as a recovery brings it back in a spool of @owner
 *  and @group.  The same, of which the cost is a walk through all inodes; -EBUSY: the journal has changes, too, and one
 *  was picked. */
int tally_directory(const char *state, uid_t owner, gid_t group, tally_pick *pick, const void *context,
                    struct tally_directory *directory);
/** database_is_emptied() of the state directory @state. */
bool tally_is_emptied(const char *state);

#endif

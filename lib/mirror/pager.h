/* SPDX-License-Identifier: MIT
 *
 * The pager: the mirror's third thread.  It answers page-ins, and evicts.
 *
 * Processes ask through the segment: header.residency.pageins lists the files, header.residency.pager_wanted wakes the
 * thread.
 */
#ifndef FASTSPOOL_PAGER_H
#define FASTSPOOL_PAGER_H

#include "fastspool.h"
#include "mirror/prefetch.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct database;
struct pagein;
struct shared_database;

/** In header.residency.pagein_fatal: not one file, but the database could not be read. */
#define PAGER_ALL UINT32_MAX

struct pager {
    struct fastspool *fs;
    struct shared_database *database;
    void (*want_checkpoint)(void *context); /* data could be evicted but for a checkpoint; may be NULL */
    void *context;
    pthread_t thread;
    struct prefetch prefetch;
    bool spills;         /* there may be spill files */
    uint64_t wished;     /* CLOCK_MONOTONIC ns when it last wanted a checkpoint */
    uint64_t too_little; /* CLOCK_MONOTONIC ns when it last found too little to evict; 0: it found enough */
    uint32_t ending;     /* atomic */
};

/** Fill in the data of one wanted file, from what @transaction sees.  Then call pagein_end().  @spill: a
 *  descriptor of its spill file, -1: memory.  0; -ENOSPC: no room there now; -EIO: the database does not hold it;
 *  -ESTALE: the file has changed since.  One thread at a time in a process. */
int pager_load(struct fastspool *fs, struct database *database, MDB_txn *transaction, const struct pagein *pagein,
               int spill);

/** Answer the page-ins that are requested now.  1: there may be more, call again; 0: there were no more; a negative
 *  errno with a sentence: the database cannot be opened, and all of them have failed with that.  One thread at a time
 *  in a process. */
int pager_serve(struct pager *pager, char error[FASTSPOOL_ERROR_MAX]);

/** Start the thread; the caller has set the fields above `thread`, the rest is zero.  0 or a negative errno. */
int pager_start(struct pager *pager);
/** End the thread and join it; page-ins that it has not answered stay in the list. */
void pager_end(struct pager *pager);

#endif

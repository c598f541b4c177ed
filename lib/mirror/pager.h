/* SPDX-License-Identifier: MIT
 *
 * The pager: a thread of the mirror that brings evicted files back, and evicts.
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
    void (*want_checkpoint)(void *context); /* something could be evicted but for a checkpoint */
    void *context;
    pthread_t thread;
    struct ahead ahead;
    bool spills;      /* there may be spill files */
    uint64_t wished;  /* CLOCK_MONOTONIC ns when it last wanted a checkpoint, */
    uint64_t in_vain; /* and when it last found too little to evict, 0: it found enough */
    uint32_t ending;  /* atomic */
};

/** Fill in the data of one wanted file, from what @transaction sees; then pagein_end().  @spill: its spill
 * file, -1: memory.  -ENOSPC: no room there now; -EIO: the database doesn't hold it.  For one thread alone. */
int pager_load(struct fastspool *fs, struct database *database, MDB_txn *transaction, const struct pagein *pagein,
               int spill);

/** Fill in the data of the files that are wanted now.  1: there may be more, come again; 0; -errno where the database
 * can't be opened: then they have all failed with it.  For one thread alone. */
int pager_bring_back(struct pager *pager, char error[FASTSPOOL_ERROR_MAX]);

/** Start and end the thread.  The fields above `thread` are the caller's to set. */
int pager_start(struct pager *pager);
void pager_end(struct pager *pager);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The checkpointer: the mirror's second thread.  It keeps a spare file of the journal ready and makes checkpoints, so
 * that a commit waits for neither.
 *
 * It also looks once a second, so age alone makes a checkpoint due.  After a checkpoint that failed it tries again a
 * second later, however often it is woken meanwhile; the error is in header.disk.checkpoint_error and goes to syslog.
 */
#ifndef FASTSPOOL_CHECKPOINTER_H
#define FASTSPOOL_CHECKPOINTER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct journal;
struct shared_database;

/** Set the first three fields, the rest is zero; they must outlive the thread. */
struct checkpointer {
    struct fastspool *fs;
    struct journal *journal; /* open before checkpointer_start() */
    struct shared_database *database;

    uint32_t ready; /* the journal is open, and the thread runs; atomic */
    pthread_t thread;
    pthread_mutex_t running; /* held while a checkpoint runs; before `mutex` */
    pthread_mutex_t mutex;   /* for all below; journal_files.mutex may be taken under it, never the other way round */
    pthread_cond_t wake;     /* a checkpoint or a spare file may be due */
    pthread_cond_t done;     /* a checkpoint ended, or a spare file was made */
    bool ending;             /* make the last one */
    int error;               /* of the last checkpoint, a negative errno; 0: it succeeded */
    unsigned begun, ended;   /* checkpoints */
};

/** Start the thread, with SIGTERM and SIGINT blocked in it.  0 or a negative errno. */
int checkpointer_start(struct checkpointer *c);

/** Make a last checkpoint, and join the thread. */
void checkpointer_end(struct checkpointer *c);

/** Look now whether a checkpoint or a spare file is due.  Any thread, while it runs. */
void checkpointer_wake(struct checkpointer *c);

/** Ask for a checkpoint, because memory cannot be evicted without one.  @checkpointer: a struct checkpointer; nothing
 *  happens where its thread does not run.  Any thread. */
void checkpointer_want(void *checkpointer);

/** No checkpoint runs until checkpointer_release(); one that runs ends before.  For the committer, which writes all of
 *  it anew.  @whole: it has. */
void checkpointer_hold(struct checkpointer *c);
void checkpointer_release(struct checkpointer *c, bool whole);

/** The journal is full: wait for the checkpoint that makes room.  0: there is room; else the checkpoint's negative
 *  errno, which is why nothing can be committed.  For the committer. */
int checkpointer_wait_for_room(struct checkpointer *c);

/** The disk has no room for another file: wait for the checkpoint that frees some, where one can be expected to.  0:
 *  try again; a negative errno.  For the committer. */
int checkpointer_wait_for_files(struct checkpointer *c);

#endif

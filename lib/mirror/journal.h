/* SPDX-License-Identifier: MIT
 *
 * The journal: what makes an fsync true.  Files of batches in STATE/journal/, written by one process, the mirror.
 *
 * A file is written full of zeros ahead of time and used again and again (measured on ext4: 7,400 appends a second,
 * against 4,700 in a file that grows).  Its names are fixed (0000, 0001, ...); what it holds, its first block says:
 *
 *     block 0:       struct journal_head
 *     from 4096 on:  batches, each on a block boundary: struct batch_head, payload, struct batch_tail, zeros
 *
 * Numbers.  Each batch has a number that grows and is never given twice, also not to a batch whose writing failed or
 * whose writer died.  `previous` names the last batch known durable when it was written, so a chain of batches can be
 * told from one with a hole.  A file `follows` the last batch known durable when the file was begun: batches with
 * higher numbers in older files were never promised to anybody, and don't count.
 *
 * A salt, random at each use of a file, stands in its head and in each of its batches: what an earlier use left behind,
 * or a mail whose text looks like a batch, is never taken for one.
 */
#ifndef FASTSPOOL_JOURNAL_H
#define FASTSPOOL_JOURNAL_H

#include "base/clock.h"
#include "fastspool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct capture;

#define JOURNAL_FILES_MAX 1024u

/** Journal that waits before a checkpoint is made.  64 MiB is a minute of 100 messages/s: what is delivered sooner
 * never reaches the database, and a recovery reads it in a second. */
#define JOURNAL_BYTES (UINT64_C(64) << 20)

/** Age of the oldest batch that waits for a checkpoint, ns. */
#define JOURNAL_AGE (60 * NS_PER_S)

/** A journal of so many times its checkpoint's size is full: the checkpoint can't keep up, or fails. */
#define JOURNAL_FULL 4u

/** Files that share the bytes of a checkpoint. */
#define JOURNAL_PARTS    8u
#define JOURNAL_FILE_MIN 65536u

struct journal_file {
    uint32_t name;
    bool condemned; /* a write or an fdatasync failed: what is durable in it counts, and it is never written again */
    uint64_t follows;
    uint64_t size;
};

struct journal {
    struct fastspool *fs; /* its header holds the numbers: header.journal.batch, header.journal.durable */
    int directory;
    uint64_t limit; /* bytes that wait before a checkpoint */
    uint64_t file_size;
    int fd;        /* of the file that is written, -1: none; the committing thread's alone, as are: */
    uint64_t end;  /* where its next batch goes */
    uint64_t salt; /* what its batches repeat */

    pthread_mutex_t preparing;                   /* held while a spare file is made; before `mutex` */
    pthread_mutex_t mutex;                       /* for all below: a second thread prepares and releases files */
    struct journal_file file[JOURNAL_FILES_MAX]; /* in use, oldest first; the last one is `fd` where that is open */
    size_t files;
    uint32_t spare[JOURNAL_FILES_MAX]; /* names of files with blocks and without meaning */
    size_t spares;
    uint32_t next_name;
    uint64_t waiting;  /* bytes since the last checkpoint */
    uint64_t oldest;   /* CLOCK_MONOTONIC ns of the oldest of them, 0: none */
    uint64_t reusable; /* bytes of free pages in the database, after the last checkpoint */
    bool no_space;     /* no room on the disk for another file: a checkpoint is wanted */
    bool wanted;       /* somebody wants a checkpoint: memory can't be evicted before */
};

/** Open STATE/journal, making it where it is missing, durably.  fs->header says which batch is durable. */
int journal_open(struct journal *journal, struct fastspool *fs, uint64_t limit, char error[FASTSPOOL_ERROR_MAX]);
void journal_close(struct journal *journal);

/** Write a capture as one batch, and wait until it is on the disk: then header.journal.durable is its number.  After an
 *  error nothing is known of it, and the next try goes to another file. */
int journal_append(struct journal *journal, const struct capture *capture, char error[FASTSPOOL_ERROR_MAX]);

/** Make a spare file where there is none: blocks of zeros, on the disk.  May run beside journal_append(). */
int journal_prepare(struct journal *journal);

/** Up to where a checkpoint that begins now reaches. */
struct journal_point {
    uint64_t ticket; /* every change up to this one is in it */
    uint64_t number; /* of the last durable batch */
    uint64_t bytes;  /* that wait up to there */
};
struct journal_point journal_point(struct journal *journal);

/** A checkpoint holds every batch up to @point, durably: files that hold no later one may be used again. */
void journal_release(struct journal *journal, struct journal_point point, uint64_t reusable);

/** Have a checkpoint made as soon as may be. */
void journal_want_checkpoint(struct journal *journal);

/** Is it time for a checkpoint?  For that, or for journal_prepare()?  Is there no room for more without a checkpoint?
 */
bool journal_due(struct journal *journal);
bool journal_wants(struct journal *journal);
bool journal_full(struct journal *journal);

/** What a look through the journal found. */
struct journal_found {
    uint64_t last;    /* number of the last batch that counts; at least `above` */
    uint64_t highest; /* highest number seen anywhere, also of what does not count */
    uint64_t batches; /* that count and lie above `above` */
    uint64_t bytes;   /* of their payloads */
    uint64_t missing; /* batches that do not follow the one before them: something between is lost */
    bool detached;    /* the first one does not follow `above` */
};

/** One batch: its number, the inode of the spool's root, and its records.  Negative: the look ends. */
typedef int journal_visit(void *context, uint64_t number, uint32_t root, const char *records, size_t size);

/** Show every batch with a number in (@above, @upto] to @visit, oldest first.  @fd: STATE/journal.  Files are read
 * only. Returns 0, what @visit returned, or -errno of a read that failed. */
int journal_look(int fd, uint64_t above, uint64_t upto, journal_visit *visit, void *context,
                 struct journal_found *found);

#endif

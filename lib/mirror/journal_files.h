/* SPDX-License-Identifier: MIT
 *
 * The journal's files: which are in use, which are spares, how much waits for a checkpoint, and whether the disk has
 * room for another one.
 *
 * Two threads share them: the committer begins files, the checkpointer prepares and releases them.  Functions
 * without a thread rule may be called by both.
 */
#ifndef FASTSPOOL_JOURNAL_FILES_H
#define FASTSPOOL_JOURNAL_FILES_H

#include "fastspool.h"
#include "mirror/ends.h"
#include "mirror/journal_scan.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/** Journal that waits before a checkpoint is made.  64 MiB is a minute of 100 messages/s: a message delivered
 *  sooner never reaches the database.  A recovery reads 64 MiB in a second. */
#define JOURNAL_BYTES (UINT64_C(64) << 20)

/** Bytes of the smallest file. */
#define JOURNAL_FILE_MIN 65536u

struct capture;

struct journal_file {
    uint32_t name;
    bool condemned; /* a write or an fdatasync failed: what is durable in it counts, and it is never written again */
    uint64_t follows;
    uint64_t size;
};

struct journal_files {
    struct fastspool *fs; /* its header holds the numbers: header.journal.batch, header.journal.durable */
    int above, directory; /* STATE and STATE/journal */
    uint64_t limit;       /* bytes that wait before a checkpoint */
    uint64_t file_size;

    pthread_mutex_t preparing;                   /* held while a spare file is made; before `mutex` */
    pthread_mutex_t mutex;                       /* for all below */
    struct journal_file file[JOURNAL_FILES_MAX]; /* in use, oldest first; the last one may be written */
    size_t count;
    uint32_t spare[JOURNAL_FILES_MAX]; /* names of files that have their blocks and hold nothing */
    size_t spares;
    uint32_t next_name;
    uint64_t waiting;  /* bytes since the last checkpoint */
    uint64_t oldest;   /* CLOCK_MONOTONIC ns of the oldest of them, 0: none */
    struct ends ends;  /* in the batches since then; unknown are those of the mirrors before */
    uint64_t reusable; /* bytes of free pages in the database, after the last checkpoint */
    bool no_space;     /* no room on the disk for another file: a checkpoint is wanted */
    bool wanted;       /* a checkpoint is wanted, so that memory can be evicted */

    /* What is gone.  For the committer alone, but for the last two, which are atomic: */
    dev_t device; /* of the directory */
    ino_t inode;
    struct timespec looked; /* when names in it had changed last, at the last look */
    bool sure;              /* it is the one that holds the journal, or will: header.journal.inode */
    bool removed;           /* it was removed, and nothing is in its place: nobody can put it back */
    bool away;              /* it is not in STATE, wherever that has moved, or the database is not */
    bool lost;              /* batches that were durable can't be read */
};

/** Open STATE/journal, and take stock of its files.  If it is missing, make it and sync its name.  0, or a negative
 *  errno with a sentence; close it then, too. */
int journal_files_open(struct journal_files *files, struct fastspool *fs, uint64_t limit,
                       char error[FASTSPOOL_ERROR_MAX]);
void journal_files_close(struct journal_files *files);

/** For the committer: begin another file, a spare or a new one.  A descriptor for writing, the caller's; -ENOSPC:
 *  the disk has no room for it, or there are too many files: a checkpoint helps; another negative errno. */
int journal_files_begin(struct journal_files *files);
/** For the committer: batch @number, of @capture, is on the disk.  header.journal.durable says so from now on.  The
 *  last file, which has it, ends at @end now; @bytes more wait. */
void journal_files_grow(struct journal_files *files, uint64_t number, const struct capture *capture, uint64_t end,
                        uint64_t bytes);
/** For the committer, which has closed it: the last file is not to be trusted any more.  Where it holds nothing
 *  durable, it goes. */
void journal_files_condemn(struct journal_files *files);

/** Make a spare file where there is none: blocks of zeros, on the disk.  0 or a negative errno. */
int journal_files_prepare(struct journal_files *files);

/** Up to where a checkpoint that begins now reaches. */
struct journal_point {
    uint64_t ticket;  /* every change up to this one is in it */
    uint64_t number;  /* of the last durable batch */
    uint64_t bytes;   /* that wait up to there */
    struct ends ends; /* in the batches up to there */
};
/** Then call one of the next two, which free the ends. */
struct journal_point journal_files_point(struct journal_files *files);

/** A checkpoint holds every batch up to @point, durably: files that hold no later one may be used again.  @reusable:
 *  bytes of free pages in the database. */
void journal_files_release(struct journal_files *files, struct journal_point *point, uint64_t reusable);
/** There is no such checkpoint.  The next one has to look for the ends up to @point. */
void journal_files_miss(struct journal_files *files, struct journal_point *point);

/** What is gone of the journal: the directory, or a file that holds batches; spare files that are gone are forgotten.
 *  @database: the database is.  For the committer, once a second: a system call, where no name in the directory has
 *  changed. */
void journal_files_look(struct journal_files *files, bool database);
/** The same for the files alone, behind a write: is every one that holds batches there? */
bool journal_files_whole(struct journal_files *files);
/** Durable batches can't be read: until journal_files_renew() nothing is to be committed. */
void journal_files_lose(struct journal_files *files);
/** Is something gone that commits need? */
bool journal_files_lost(const struct journal_files *files);
/** The directory has what is durable, or nothing is: this mirror and the next ones know it again. */
void journal_files_trust(struct journal_files *files);
/** Is the directory the one that has held the journal, and in its place, so that what is gone there was removed; or was
 *  it removed itself? */
bool journal_files_sure(const struct journal_files *files);
/** For the committer, which has no file open, while no checkpoint runs: the database holds all.  Begin without files,
 *  in a new directory where it is missing.  0, or a negative errno with a sentence. */
int journal_files_renew(struct journal_files *files, char error[FASTSPOOL_ERROR_MAX]);

/** Want a checkpoint as soon as possible. */
void journal_files_want_checkpoint(struct journal_files *files);

/** Is a checkpoint due? */
bool journal_files_due(struct journal_files *files);
/** Is a checkpoint or journal_files_prepare() due? */
bool journal_files_wanting(struct journal_files *files);
/** Is the journal full: must commits wait for a checkpoint? */
bool journal_files_full(struct journal_files *files);

#endif

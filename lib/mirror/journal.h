/* SPDX-License-Identifier: MIT
 *
 * The journal: what makes an fsync true.  Files of batches in STATE/journal/, written by one process, the mirror.
 *
 * A file is written full of zeros ahead of time and used again and again (measured on ext4: 7,400 appends a second,
 * against 4,700 in a file that grows).  Files have fixed names (0000, 0001, ...); the first block says what a file
 * holds:
 *
 *     block 0:       struct journal_head
 *     from 4096 on:  batches, each on a block boundary: struct batch_head, payload, struct batch_tail, zeros
 *
 * Numbers.  The numbers of batches grow.  None is used twice, even after a write that failed or a mirror that died.
 * `previous` names the last batch known durable when it was written, so a chain of batches can be told from one with a
 * hole.  A file `follows` the last batch known durable when the file was begun: batches with higher numbers in older
 * files were never acknowledged, and do not count.
 *
 * Salt.  Each use of a file has a random salt, in the file's head and in each of its batches.  So neither what an
 * earlier use left behind nor a mail whose text looks like a batch is ever taken for one.
 *
 * This module appends; journal_files.h is which files there are, journal_scan.h reads them.
 */
#ifndef FASTSPOOL_JOURNAL_H
#define FASTSPOOL_JOURNAL_H

#include "fastspool.h"
#include "mirror/journal_files.h"

#include <stdint.h>

struct capture;

struct journal {
    struct journal_files pool;
    int fd;        /* of the file that is written, -1: none; this and the rest: the committer's alone */
    uint64_t end;  /* where its next batch goes */
    uint64_t salt; /* what its batches repeat */
};

/** Open STATE/journal.  If it is missing, make it and sync its name.  fs->header says which batch is durable.  @limit:
 *  bytes that wait before a checkpoint is due.  0, or a negative errno with a sentence; close it then, too. */
int journal_open(struct journal *journal, struct fastspool *fs, uint64_t limit, char error[FASTSPOOL_ERROR_MAX]);
void journal_close(struct journal *journal);

/** The database holds all: begin anew behind it, as journal_files_renew(). */
int journal_renew(struct journal *journal, char error[FASTSPOOL_ERROR_MAX]);

/** Write a capture as one batch, and wait until it is on the disk: then header.journal.durable is its number.  0, or a
 *  negative errno with a sentence: nothing is known of the batch, and the next try goes to another file. */
int journal_append(struct journal *journal, const struct capture *capture, char error[FASTSPOOL_ERROR_MAX]);

#endif

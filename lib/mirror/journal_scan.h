/* SPDX-License-Identifier: MIT
 *
 * Reading the journal: which batches are there, which of them count, and where and why each file ends.
 *
 * A scan reads each file from its head to the first thing that is no whole batch of this use of the file: a torn end,
 * or what an earlier use left.  Then it reads the next file.  The chain of numbers shows whether something is missing
 * in between (struct journal_found).
 */
#ifndef FASTSPOOL_JOURNAL_SCAN_H
#define FASTSPOOL_JOURNAL_SCAN_H

#include "mirror/format.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_FILES_MAX 1024u

/** A file of the journal and its head, as found on the disk. */
struct journal_listed {
    uint32_t name;
    uint64_t size;              /* bytes */
    enum journal_reason reason; /* JOURNAL_WHOLE: `head` is one; else the file holds no batches, as a spare file does */
    struct journal_head head;
};

/** Where something ended, and why. */
struct journal_end {
    uint32_t file;
    enum journal_reason reason;
    uint64_t offset; /* in the file, bytes: of what could not be read */
};

/** A batch that counts.  @records: as format_next() reads them, until the visit returns. */
struct journal_batch {
    uint32_t file;
    uint64_t offset;
    uint64_t number;
    uint64_t previous; /* the last batch known durable when this one was written */
    uint32_t root;     /* inode of the spool's directory */
    const char *records;
    size_t size;
};

/** A file, after it was read.  Valid during the callback. */
struct journal_scanned {
    const struct journal_listed *file;
    uint64_t limit;             /* batches with higher numbers do not count; UINT64_MAX: all count */
    uint64_t batches;           /* whole ones, also those that do not count */
    struct journal_end read;    /* where the whole batches end; JOURNAL_HELD: where reading did not begin */
    struct journal_end counted; /* where those that count end: as `read`, or JOURNAL_FOLLOWS before it */
};

/** Negative: the scan ends with this error. */
typedef int journal_visit(void *context, const struct journal_batch *batch);
typedef void journal_ended(void *context, const struct journal_scanned *scanned);

/** What to read: batches with numbers in (@above, @upto].  Both callbacks may be NULL. */
struct journal_scan {
    uint64_t above, upto;
    journal_visit *visit; /* sees each of them, oldest first */
    journal_ended *ended; /* sees each file, after its batches; files without a head last */
    void *context;
};

/** What a scan found. */
struct journal_found {
    uint64_t last;           /* number of the last batch that counts; at least `above` */
    uint64_t highest;        /* highest number seen anywhere, also of what does not count */
    uint64_t batches;        /* that count and lie in (above, upto] */
    uint64_t bytes;          /* of their payloads */
    uint64_t missing;        /* batches that do not follow the one before them: something between is lost */
    bool detached;           /* the first one does not follow `above` */
    struct journal_end end;  /* of the file read last; offset 0: none was read */
    struct journal_end hole; /* the end of the file before the first of the `missing` places */
    uint64_t hole_after;     /* the last batch before the first of the `missing` places */
};

/** Read the journal in @directory (STATE/journal); it changes nothing.  Files may be appended to and released
 *  meanwhile, as long as the batches in (above, upto] stay.  0, what @visit returned, or -errno of a read that
 *  failed. */
int journal_scan(int directory, const struct journal_scan *scan, struct journal_found *found);

/** Is the file neither whole nor a spare: is its head damaged or of another version, or is it no regular file?  It may
 *  hold batches that this version cannot read. */
bool journal_scan_is_foreign(const struct journal_listed *file);

/** All files of the journal, those with a head first, in the order of their batches.  0, -errno; -EFBIG: too many. */
int journal_scan_files(int directory, struct journal_listed files[JOURNAL_FILES_MAX], size_t *count);

/** What ended there, in words that fit behind "at byte N: ". */
const char *journal_scan_reason(enum journal_reason reason);

#endif

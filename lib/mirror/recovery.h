/* SPDX-License-Identifier: MIT
 *
 * Recovery: from the disk to a segment, after a reboot.
 */
#ifndef FASTSPOOL_RECOVERY_H
#define FASTSPOOL_RECOVERY_H

#include "fastspool.h"
#include "mirror/journal_scan.h"

#include <stdbool.h>
#include <stdint.h>

/** What a recovery has found. */
struct recovered {
    uint64_t messages; /* names that end in -D below input */
    uint64_t files;
    uint64_t bytes;          /* of the files */
    uint64_t batches;        /* of the journal */
    bool journal_gone;       /* it is missing, and the database is no new one */
    uint64_t missing;        /* places in the journal where something durable cannot be read any more */
    struct journal_end hole; /* the end of the file before the first of the `missing` places */
    uint64_t hole_after;     /* the last batch before the first of the `missing` places */
};

/** Fill the segment (RECOVERING, and no other process's) from the database and the journal in STATE: names and
 *  attributes; data stays where it is, evicted.  Neither: an empty store.  0, or a negative errno with a sentence.
 *  -EBADMSG: the database or the journal is damaged, and nothing on disk has been touched; any other error may be gone
 *  at the next try, but -ENOSPC with header.recovery.too_small set. */
int recovery_run(struct fastspool *fs, struct recovered *recovered, char error[FASTSPOOL_ERROR_MAX]);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The committer: commits, and when.  It runs in the mirror's first thread, which calls them by turns.
 *
 * Group commit: while a batch is written, more waiters come, and the next batch serves all of them.  Where they come
 * one by one, committer_gather() lets some of them join before the next commit begins.
 */
#ifndef FASTSPOOL_COMMITTER_H
#define FASTSPOOL_COMMITTER_H

#include "mirror/rhythm.h"

#include <stdbool.h>
#include <stdint.h>

struct checkpointer;
struct fastspool;

struct committer {
    struct fastspool *fs;
    struct checkpointer *checkpointer; /* its thread runs; so its journal is open */
    struct rhythm rhythm;              /* its waiters are those that header.mirror.wanted counts as they come */
    uint64_t committed;                /* CLOCK_MONOTONIC ns of the last commit */
};

void committer_init(struct committer *committer, struct fastspool *fs, struct checkpointer *checkpointer);

/** One commit: capture all that is dirty, append it to the journal, wake the waiters.  0: it is on the disk, or nothing
 *  was dirty.  A negative errno: the waiters got it too, and all of it is dirty as before; syslog gets one line.  May
 *  wait for a checkpoint. */
int committer_commit(struct committer *committer);

/** The last commit of a store whose memory was removed, so that nobody can attach to it any more: what it holds goes to
 *  the journal, and at the instant of the capture it becomes FAILED, with the sentence @why.  0 or -errno. */
int committer_seal(struct committer *committer, const char *why);

/** Sleep until the next commit is due: the flush interval is over, or enough waiters have come, or they have waited
 *  for long enough.  False: a second has passed, and none is due; call again.  Returns early once @ending says so.  A
 *  sign of life. */
bool committer_gather(struct committer *committer, bool (*ending)(const struct fastspool *fs));

/** Is this error of a try worth a line in syslog?  Not where a mirror has given up with the same, and said so, less
 *  than a minute ago: the next ones meet what it has met. */
bool committer_is_news(const struct fastspool *fs, int error);
/** A mirror that can't write gives up, with this error, and says so. */
void committer_gave_up(struct fastspool *fs, int error);

/** A sign of life, for `fastspool status`. */
void committer_beat(struct fastspool *fs);

#endif

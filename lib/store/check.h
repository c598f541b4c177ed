/* SPDX-License-Identifier: MIT
 *
 * What must be true of a segment whenever nobody is inside a critical section.
 */
#ifndef FASTSPOOL_CHECK_H
#define FASTSPOOL_CHECK_H

struct fastspool;
struct findings;

/** Is the whole segment intact?  What is wrong is added to @findings.  Looks at a snapshot (snapshot.h), so what a dead
 * process has left is repaired first.  How many things are wrong, or a negative errno: there was no look. */
int check_segment(struct fastspool *fs, struct findings *findings);

/** The same for a snapshot, or for a segment that nobody changes meanwhile. */
int check_snapshot(const struct fastspool *snapshot, struct findings *findings);

#endif

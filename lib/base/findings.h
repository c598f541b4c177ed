/* SPDX-License-Identifier: MIT
 *
 * Findings: what a check found wrong, a sentence each, with what and where.
 */
#ifndef FASTSPOOL_FINDINGS_H
#define FASTSPOOL_FINDINGS_H

#include <stdint.h>

/** Bytes of a sentence, its NUL included. */
#define FINDING_MAX 320

/** The memory is shared with the children of later forks: what a child finds, its parent reads. */
struct findings {
    uint32_t count; /* all that were found */
    uint32_t most;  /* as many of them are kept, the first ones */
    char sentence[][FINDING_MAX];
};

/** Room for @most sentences; NULL: there is no memory. */
struct findings *findings_new(uint32_t most);
/** @most: as findings_new() had it, whatever a child may have written there.  NULL: nothing. */
void findings_free(struct findings *findings, uint32_t most);

/** One more.  What is no printable ASCII becomes '?'; a longer sentence is cut. */
void findings_add(struct findings *findings, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Add what a child has found in @from, which has room for @most: whatever it may have written there. */
void findings_join(struct findings *findings, const struct findings *from, uint32_t most);

/** How many sentences are kept. */
uint32_t findings_kept(const struct findings *findings);

#endif

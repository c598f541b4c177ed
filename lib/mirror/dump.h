/* SPDX-License-Identifier: MIT
 *
 * Dumps: a segment, a journal, a database as text, for a bug report.
 *
 * Names are escaped.  What mails say isn't shown unless @bodies: else there is a size and a checksum (CRC-32C).
 */
#ifndef FASTSPOOL_DUMP_H
#define FASTSPOOL_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct fastspool;
struct header;

/** All that @snapshot shows; data is read from @fs's segment as it is now.  0, or a negative errno. */
int dump_segment(const struct fastspool *fs, const struct fastspool *snapshot, bool bodies, FILE *out);

/** The last @most entries of the segment's history. */
void dump_history(const struct header *header, uint32_t most, FILE *out);

/** Every batch of the journal below STATE, @state, that counts, and the end of every file.  0, or a negative errno. */
int dump_journal(const char *state, bool bodies, FILE *out);

/** Every entry of the database below STATE, @state.  It is read in a child: damaged pages may kill it.  0, or a
 * negative errno: -EBADMSG: what can't be read is said in the text. */
int dump_database(const char *state, bool bodies, FILE *out);

/* ---- for the parts ---- */

/** Bytes of mail: the rest of a line, and, @bodies, the bytes, a line of text a line. */
void dump_bytes(const void *bytes, size_t size, bool bodies, FILE *out);
/** Nanoseconds since 1970. */
void dump_time(uint64_t time, FILE *out);

#endif

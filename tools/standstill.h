/* SPDX-License-Identifier: MIT
 *
 * What a call waits for that stands still, in words.
 */
#ifndef FASTSPOOL_STANDSTILL_H
#define FASTSPOOL_STANDSTILL_H

#include <stdint.h>

struct fastspool;
struct fastspool_config;

/** From here on a thread looks once a second.  What this call waits for is told on standard error when it has stood for
 *  some seconds, and again each minute: the mirror of @spool, by @fs, or where that is NULL by @config; a child of this
 *  process; this process itself.  Ends what was begun before. */
void standstill_begin(const char *spool, const struct fastspool_config *config, struct fastspool *fs);
/** Before @fs is detached. */
void standstill_end(void);

/** This process ends with exit status 1, @seconds from now, and says @sentence.  Counts while something is begun. */
void standstill_limit(uint64_t seconds, const char *sentence);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What may not be done beside a running Exim.
 */
#ifndef FASTSPOOL_BESIDE_H
#define FASTSPOOL_BESIDE_H

#include <stdbool.h>

struct fastspool;
struct fastspool_config;

/** What takes mail out of the stores of @config, or holds them up: refused while an Exim runs that has one, by the
 *  library or on a view.  Also where that can't be said.  @memory: of a spool that the configuration does not name, the
 *  directory of its store's memory: those Exims count that have it; else NULL.  0; or 1, with the reason printed. */
int beside_no_exim(const struct fastspool_config *config, const char *memory);

/** What takes mail from the disk into the store of @config's spool: refused while Exims run and none has the store.
 * What can't be said is no reason.  0; or 1, with the reason printed. */
int beside_no_plain_exim(const struct fastspool_config *config);

/** Does an Exim use the store of @fs: the library's, or on a view?  Also where that can't be said.  Needs root. */
bool beside_is_used(const struct fastspool_config *config, const struct fastspool *fs);

/** The store of @fs was stopped, and processes use it still: name the Exims of these, or else the others, and what ends
 *  them.  False: there are none.  What can't be looked at counts, and is told. */
bool beside_users(const struct fastspool_config *config, const struct fastspool *fs);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The memory of a store: opened, made, published, removed.
 */
#ifndef FASTSPOOL_MEMORY_H
#define FASTSPOOL_MEMORY_H

#include "fastspool.h"

#include <sys/stat.h>

struct record; /* spool/record.h */

/** Open the published memory, which @record names then.  -ENOENT: it is not to be seen from here.  -ESTALE: the record
 *  was written in another state directory, of which this one is a copy.  Else a negative errno with a sentence. */
int memory_open(struct fastspool *fs, int state_fd, const struct stat *spool, struct record *record, char *error);
void memory_close(struct fastspool *fs);
/** With the claim: create an empty store in state RECOVERING, and publish it.  @before: of an earlier store, whose
 *  memory goes. */
int memory_make(struct fastspool *fs, const struct fastspool_config *config, int state_fd, const struct stat *spool,
                const struct record *before, char *error);
/** Remove a runtime directory that is of no use any more: one that can't be used, that nobody else uses, or a half-made
 *  one.  Processes that have it mapped keep the mapping.  With the owner's rights: he wrote where it is, and may have
 *  links on the way there. */
void memory_remove(const char *runtime);
/** The same for the memory of an attached store, by any process. */
void memory_discard(const struct fastspool *fs);

/** What `runtime` is to say of the store that this process has open. */
int memory_describe(const struct fastspool *fs, const struct stat *spool, struct record *record, char *error);
int memory_publish(const struct fastspool *fs, int state_fd, const struct record *record, char *error);

/** Is @memory, as configured, enough for a store?  0, or -ENOSPC with a sentence. */
int memory_check(uint64_t memory, char *error);
/** How much the store may take by the configuration of this process, or its default: no more than the runtime
 *  directory's file system has.  0: that has too little for any store. */
uint64_t memory_wanted(const struct fastspool *fs);

/** Does a view of an earlier store hide the disk's directory?  1 or 0; -errno: it can't be said.  Without /proc a view
 *  can't be told from another mount, and counts as none. */
int memory_is_viewed(const struct fastspool *fs, char *error);

#endif

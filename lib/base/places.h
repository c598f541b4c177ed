/* SPDX-License-Identifier: MIT
 *
 * Path names: every name below the state directory (STATE), the runtime directory (RUNTIME) and /run.
 *
 *     SPOOL/.fastspool/         STATE, unless `state` is configured; 0700 of the spool's owner
 *         runtime               text: the path of the directory in RUNTIME that holds the store's memory
 *         runtime.new           the same while it is written
 *         lock                  flock: one process at a time makes a store
 *         mirror.lock           flock: held by the mirror as long as it lives
 *         journal/0000 ...      the journal's files
 *         mirror/               the database: data.mdb, lock.mdb
 *         mirror.new/           the same while it is made
 *         spill/INODE-GENERATION  open files whose data has no room in memory
 *     RUNTIME/fastspool.ID/     RUNTIME is /dev/shm, unless `runtime` is configured; ID is random; 0700
 *         segment               the store
 *         locks                 record locks
 *         p00 ... p63           placeholders
 *     /run/fastspool/HASH       a spool that root has registered
 */
#ifndef FASTSPOOL_PLACES_H
#define FASTSPOOL_PLACES_H

#include <stdint.h>

#define PLACES_STATE       ".fastspool"
#define PLACES_RUNTIME     "runtime"
#define PLACES_RUNTIME_NEW "runtime.new"
#define PLACES_MAKING      "lock"
#define PLACES_MIRROR_LOCK "mirror.lock"
#define PLACES_JOURNAL     "journal"
#define PLACES_DATABASE    "mirror"
#define PLACES_SPILL       "spill"

#define PLACES_MEMORY  "/dev/shm"
#define PLACES_SEGMENT "segment"
#define PLACES_LOCKS   "locks"

#define PLACES_REGISTRY "/run/fastspool"

/** Bytes of a path that these functions make, its NUL included; enough for any state directory (255) and what is below.
 */
#define PLACES_PATH_MAX 320
/** Bytes of a name without a directory. */
#define PLACES_NAME_MAX 32

/** STATE/NAME. */
void places_in_state(const char *state, const char *name, char path[PLACES_PATH_MAX]);
/** STATE/spill/INODE-GENERATION, and that name read back: 0, or -1 where @name is none. */
void places_spill(const char *state, uint32_t inode, uint32_t generation, char path[PLACES_PATH_MAX]);
int places_parse_spill(const char *name, uint32_t *inode, uint32_t *generation);
/** The name of a file in STATE/journal, and that name read back: 0, or -1. */
void places_journal_file(uint32_t number, char name[PLACES_NAME_MAX]);
int places_parse_journal_file(const char *name, uint32_t *number);
/** BASE/fastspool.ID; -1: longer than @size bytes. */
int places_runtime(const char *base, uint64_t id, char *path, int size);
/** The name of a placeholder in a runtime directory. */
void places_placeholder(unsigned number, char name[PLACES_NAME_MAX]);
/** The registry's file for a spool whose path has this hash. */
void places_registered(uint64_t hash, char path[PLACES_PATH_MAX]);

#endif

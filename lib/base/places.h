/* SPDX-License-Identifier: MIT
 *
 * Path names: all that fastspool uses below the state directory (STATE), the runtime directory (RUNTIME) and /run.
 *
 *     SPOOL/.fastspool/         STATE, unless `state` is configured; 0700 of the spool's owner
 *         runtime               text: the path of RUNTIME/fastspool.ID, and whose it is (spool/record.c)
 *         runtime.new           the same, while it is being written
 *         lock                  fcntl: held by every attached process, shared (spool/presence.c)
 *         mirror.lock           flock: held by the mirror for its whole life
 *         view.lock             flock: held by the view's supervisor for its whole life
 *         server.lock           fcntl: held by the view's server for its whole life
 *         journal/0000 ...      the journal's files
 *         mirror/               the database: data.mdb, lock.mdb
 *         mirror.new/           the same, while it is being made
 *         spill/INODE-GENERATION  an open file whose data has no room in memory
 *         anew                  somebody says that what is gone of the state is lost (mirror/rescue.c)
 *     RUNTIME/fastspool.ID/     RUNTIME is `runtime`, or /run/fastspool/memory/HASH, or /dev/shm (spool/runtime.c);
 *                               ID is random; 0700
 *         segment               the store's memory
 *         locks                 record locks
 *         p00 ... p63           placeholders
 *     /run/fastspool/HASH       a spool that root has registered
 *         memory/               the tmpfs of root's
 *         .memory.lock          flock: of the process that mounts it or makes it larger
 *         .HASH.view            flock: held by the supervisor of the spool's view, of whichever state, for its whole
 *                               life; 0600 of root's, as a process that can open it can hold it
 */
#ifndef FASTSPOOL_PLACES_H
#define FASTSPOOL_PLACES_H

#include <stddef.h>
#include <stdint.h>

#define PLACES_STATE         ".fastspool"
#define PLACES_RUNTIME       "runtime"
#define PLACES_RUNTIME_NEW   "runtime.new"
#define PLACES_LOCK          "lock"
#define PLACES_MIRROR_LOCK   "mirror.lock"
#define PLACES_VIEW_LOCK     "view.lock"
#define PLACES_SERVER_LOCK   "server.lock" /* of the view's server */
#define PLACES_JOURNAL       "journal"
#define PLACES_DATABASE      "mirror"
/** In it: LMDB's. */
#define PLACES_DATABASE_LOCK "lock.mdb"
#define PLACES_SPILL         "spill"
#define PLACES_ANEW          "anew"
/** In the spool: a symbolic link to the state that may hold its mail, wherever that is.  Of further ones that may,
 *  too, the names have a number behind a dot. */
#define PLACES_NOTE          ".fastspool.state"
#define PLACES_NOTES         4

#define PLACES_MEMORY  "/dev/shm"
#define PLACES_SEGMENT "segment"
#define PLACES_LOCKS   "locks"

/** A name in any directory of a view that is never listed: it leads root and the owner to the file with this handle. */
#define PLACES_HANDLE       ".fastspool.%016llx"
#define PLACES_HANDLE_FORM  ".fastspool.%llx%n" /* for sscanf(3) */
/** Such a name of a directory of several files: a number that no other such name has had for long, then for each file
 *  its O_ACCMODE and its handle.  In the directory the files are "0", "1"... */
#define PLACES_HANDED       ".fastspool:%llx:"
#define PLACES_HANDED_START ".fastspool:%llx:%n" /* for sscanf(3) */
#define PLACES_HANDED_FILE  "%d.%llx:"
#define PLACES_HANDED_FORM  "%d.%llx:%n" /* for sscanf(3) */
#define PLACES_HANDED_MOST  11           /* files, of 19 characters at most */

/** In the store, while the disk's files are imported: the directory of those that are not in their places yet. */
#define PLACES_IMPORT   ".import"
/** In it, until it is decided that the store has it: the disk has it, too. */
#define PLACES_STAGED   PLACES_IMPORT "/new"
/** In it, from then on: the store has it. */
#define PLACES_IMPORTED PLACES_IMPORT "/taken"
/** On the disk, before the name of a message's -H file: the store has the message, or is about to. */
#define PLACES_TAKEN    ".fastspool.taken."

/** In the store, while it is exported: the directory of what the disk has, or is about to have. */
#define PLACES_EXPORT   ".export"
/** In it: what the disk has, or is about to have; the file that says which disk, "." the spool's own; and the one with
 *  the number of its copies. */
#define PLACES_EXPORTED PLACES_EXPORT "/tree"
#define PLACES_TARGET   PLACES_EXPORT "/to"
#define PLACES_NUMBER   PLACES_EXPORT "/number"
/** On the disk, with the number, before the name of a file that an export has copied: the store has it still. */
#define PLACES_COPIED   ".fastspool.copied."

/** The variable that marks what a process executes that an ordinary user started.  Also believed in secure execution.
 */
#define PLACES_USERS "FASTSPOOL_USERS"

#define PLACES_REGISTRY "/run/fastspool"

#define PLACES_TMPFS_NAME "memory"
#define PLACES_TMPFS      PLACES_REGISTRY "/" PLACES_TMPFS_NAME
#define PLACES_TMPFS_LOCK ".memory.lock"
#define PLACES_WAYS_LOCK  PLACES_REGISTRY "/.enable.lock" /* of `fastspool enable` and `disable`; root's */
#define PLACES_SIZE       ".size"

/** Size of a path buffer, NUL included: a state directory of 255 bytes, and the longest name below it. */
#define PLACES_PATH_MAX   320
/** Size of a buffer for a name without a directory, NUL included. */
#define PLACES_NAME_MAX   32
/** Size of a buffer for what the name of a copy begins with. */
#define PLACES_COPIED_MAX 48

/** STATE/NAME. */
void places_in_state(const char *state, const char *name, char path[PLACES_PATH_MAX]);
/** The link in @spool with @number, less than PLACES_NOTES. */
void places_note(const char *spool, unsigned number, char path[PLACES_PATH_MAX]);
/** STATE/spill/INODE-GENERATION.  Parsing the name returns 0, or -1 if @name is not of that form. */
void places_spill(const char *state, uint32_t inode, uint32_t generation, char path[PLACES_PATH_MAX]);
int places_parse_spill(const char *name, uint32_t *inode, uint32_t *generation);
/** The name of a file in STATE/journal.  Parsing it returns 0, or -1 if @name is not of that form. */
void places_journal_file(uint32_t number, char name[PLACES_NAME_MAX]);
int places_parse_journal_file(const char *name, uint32_t *number);
/** BASE/fastspool.ID.  0, or -1 if that does not fit @size bytes. */
int places_runtime(const char *base, uint64_t id, char *path, int size);
/** The name of a placeholder in RUNTIME/fastspool.ID. */
void places_placeholder(unsigned number, char name[PLACES_NAME_MAX]);
/** What the names of the copies begin with that the export @number makes; 0: that of an earlier version. */
void places_copied(uint64_t number, char copied[PLACES_COPIED_MAX]);
/** The rest of the name @name of a copy, of any export; NULL: it is none. */
const char *places_of_copy(const char *name);
/** The registry's file for the spool whose path is the first @length bytes of @spool, named by their hash. */
void places_registered(const char *spool, size_t length, char path[PLACES_PATH_MAX]);
/** The names in the tmpfs of root's for the spool @spool: its directory, and the file that says what it may take. */
void places_of_spool(const char *spool, char directory[PLACES_NAME_MAX], char size[PLACES_NAME_MAX]);
/** The name in PLACES_REGISTRY of the lock of the view of @spool, whichever state it shows. */
void places_view_of_spool(const char *spool, char name[PLACES_NAME_MAX]);

#endif

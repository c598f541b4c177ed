/* SPDX-License-Identifier: MIT
 *
 * All that the preloaded library may use of lib/store/, besides the public calls of fastspool.h.  Plain types only: no
 * structure of the segment is visible here.
 *
 * Every function returns 0 or more, or a negative errno.  @description is the number of an open file description.
 */
#ifndef FASTSPOOL_INSIDE_H
#define FASTSPOOL_INSIDE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct stat;

/* ---- the spool ---- */

/** The real path of the spool directory. */
const char *inside_spool(const struct fastspool *fs);
/** Bytes that the store can have in memory. */
uint64_t inside_memory(const struct fastspool *fs);
/** May a process of user @uid hold the lock?  Root and the owner may: no other user can stop such a process. */
bool inside_may_hold(const struct fastspool *fs, uid_t uid);
/** The lowest of the library's own descriptors from @from up to @to; UINT_MAX: there is none. */
unsigned inside_next_own(struct fastspool *fs, unsigned from, unsigned to);
/** As await_terminated() (await.h). */
bool inside_terminated(const sigset_t *own);
/** Is the store mounted over the spool's directories?  Then all files are in the store, and none is on the disk. */
bool inside_view(const struct fastspool *fs);
/** Is the store FAILED? */
bool inside_failed(const struct fastspool *fs);
/** For the view's server: set what inside_view() returns, in every process. */
void inside_set_view(const struct fastspool *fs, bool mounted);
/** For the view's server: what an import has left on the disk, for `fastspool status`. */
void inside_set_left(const struct fastspool *fs, uint32_t locked, uint32_t conflicts, uint32_t left);
/** Make directory @path, and those above it that are missing, with the attributes of the disk's. */
int inside_adopt(struct fastspool *fs, const char *path, const struct stat *attributes);

/** Visit each name in the store: its path, relative to the spool, and the size of its file.  Takes no lock: a name that
 *  comes or goes meanwhile may be missed. */
typedef void inside_visit(void *context, const char *path, uint64_t size);
void inside_each_name(struct fastspool *fs, inside_visit *visit, void *context);

/** The first @size bytes of file @path, if its data is in memory: brings nothing back.  How many; -EAGAIN: it is not
 *  there; or another negative errno. */
ssize_t inside_peek(struct fastspool *fs, const char *path, void *buffer, size_t size);

/** The process has become @uid, or of group @gid, for files too.  (Else: fastspool_credentials_changed().) */
void inside_became(uid_t uid);
void inside_became_of(gid_t gid);

/* ---- open file descriptions ---- */

/** Every description's number is less; every cookie, which is a placeholder's file offset, is more. */
#define INSIDE_DESCRIPTIONS 65536u
/** Bytes of a block, as st_blksize. */
#define INSIDE_BLOCK        4096u

/** As fastspool_open().  *@placeholder: the descriptor to duplicate for the program; it stays the store's.  *@fresh: it
 *  is duplicated already, with the lowest number that was free, close-on-exec: the caller's; -1: it is not. */
int inside_open(struct fastspool *fs, const char *path, int flags, mode_t mode, int *placeholder, int *fresh);
/** The program holds @description by a descriptor of its own.  Returns that of the store, which is the caller's from
 * now on; -1: it has none, or @few and it has few, and keeps it. */
int inside_give(struct fastspool *fs, uint32_t description, bool few);
/** The process has closed its last descriptor of it. */
int inside_close(struct fastspool *fs, uint32_t description);
/** The same, and the process is about to leave the store: what others hold is theirs to free. */
int inside_leave(struct fastspool *fs, uint32_t description);
/** The descriptor of @description that the store has besides the program's, and keeps; -1: none. */
int inside_kept(struct fastspool *fs, uint32_t description);
/** The process has closed a descriptor of it: POSIX drops the process's record locks on the file. */
void inside_drop_locks(struct fastspool *fs, uint32_t description);
/** This process writes for others, and leaves a part of memory to those that write for themselves (residency.c). */
void inside_write_for_others(struct fastspool *fs);
/** From now on another process, as a child, may hold every description that is open in this one, and has what is
 * mapped. The latter is brought up to date. */
void inside_shared(struct fastspool *fs);
/** The description that descriptor @fd of a placeholder stands for, 0: none. */
uint32_t inside_identify(struct fastspool *fs, int fd);

/** Is the file of @st a placeholder? */
bool inside_is_placeholder(const struct fastspool *fs, const struct stat *st);

/** The flags of open(2) that it remembers: access mode, O_APPEND, O_NONBLOCK... */
int inside_flags(const struct fastspool *fs, uint32_t description);
/** Set those of @which to what they are in @flags.  Returns the flags before, or -EPERM: O_NOATIME is the owner's. */
int inside_change_flags(struct fastspool *fs, uint32_t description, int which, int flags);
off_t inside_offset(const struct fastspool *fs, uint32_t description);

/** The file's handle, as of fastspool_lookup().  0: the description is not open. */
uint64_t inside_handle(struct fastspool *fs, uint32_t description);
/** Has nobody else the file of @description open? */
bool inside_is_alone(const struct fastspool *fs, uint32_t description);
/** The path of an open directory, relative to the spool, into @path; its length.  -ENOENT: it was removed. */
int inside_path(struct fastspool *fs, uint32_t description, char *path, size_t size);
/** As fastspool_pread(), of a file that need not be open for reading. */
ssize_t inside_read(struct fastspool *fs, uint32_t description, void *buffer, size_t size, off_t offset);
/** A descriptor for reading the spill file, the caller's.  -ENOENT: the file is not spilled. */
int inside_spill(struct fastspool *fs, uint32_t description);

#endif

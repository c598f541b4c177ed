/* SPDX-License-Identifier: MIT
 *
 * The plain spool on the disk, for the import and the export: what a view hides.  Paths are relative to the spool; no
 * symbolic link is followed anywhere in them.  Every function returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_DISK_H
#define FASTSPOOL_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** open(2) of a file or directory of spool @disk.  Opens no device and waits for no FIFO.  Fills in @st. */
int disk_open(int disk, const char *path, int flags, struct stat *st);
/** The same without a look, for a mount whose server may not answer.  @directory: any.  @resolve: more RESOLVE_ flags
 * of openat2(2). */
int disk_open_beneath(int directory, const char *path, int flags, uint64_t resolve);
/** -ENOENT: it is not there, or not a directory's entry. */
int disk_unlink(int disk, const char *path);
/** Make what has been done to the entries of @path's directory durable. */
int disk_sync_around(int disk, const char *path);

/** Is @st of a -D file that Exim has just made, and locks in a moment?  Also of one in the store. */
bool disk_is_being_made(const struct stat *st);
/** Take Exim's lock of a message by its -D file @data.  Returns the descriptor that holds it.  -EAGAIN: somebody has
 * it, or the message is just being made or removed. */
int disk_lock(int disk, const char *data);
/** Would disk_lock() say -EAGAIN?  Takes no lock, which an Exim could meet. */
bool disk_is_locked(int disk, const char *data);
/** Does nobody else have the file open whose lock is @lock?  Only where no process can open it any more.  True also
 * where the file system can't tell. */
bool disk_is_alone(int lock);

/** Give a message's file @path the name under which Exim doesn't find it, or its own again if it has the other one. */
int disk_take(int disk, const char *path);
int disk_give_back(int disk, const char *path);
/** Remove the file that has the other name. */
int disk_remove_taken(int disk, const char *path);

/** Make directory @path, below one that is there, with owner and mode of @st.  One that is there stays as it is. */
int disk_make_directory(int disk, const char *path, const struct stat *st);
/** Owner and mode of @st for the open file @fd.  -EPERM: only root may. */
int disk_dress(int fd, const struct stat *st);
/** Make the copy of a file that is to be @path, under the name that no program looks for: with @copied before its own
 * (places_copied()).  A descriptor for writing. */
int disk_make_copy(int disk, const char *copied, const char *path);
bool disk_has_copy(int disk, const char *copied, const char *path);
int disk_remove_copy(int disk, const char *copied, const char *path);
/** Give the copy its own name.  -ENOENT: it has it, or there is no copy; -EEXIST: another file has it. */
int disk_show_copy(int disk, const char *copied, const char *path);
/** The same with another name in its directory, where another file has its own. */
int disk_show_copy_as(int disk, const char *copied, const char *path, const char *to);

/** The mark of the disk that an import or export has begun to work on: an empty file in the spool's own directory,
 * named
 * @prefix and "here".  An empty directory in its place, as where it is not mounted, has none.  It is made and removed
 * durably.
 */
int disk_make_mark(int disk, const char *prefix);
bool disk_has_mark(int disk, const char *prefix);
int disk_remove_mark(int disk, const char *prefix);

#endif

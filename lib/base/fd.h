/* SPDX-License-Identifier: MIT
 *
 * File descriptors: the library's own high numbers, and helpers that several rooms use.
 * Every function returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_FD_H
#define FASTSPOOL_FD_H

#include <stddef.h>
#include <stdint.h>

/** Move @fd to a high number below the soft limit, close-on-exec, and return that number.  Always closes @fd.
 *  Why high: Exim closes and writes to numbers that it no longer owns, and these are low ones. */
int fd_high(int fd);

/** A duplicate of @fd with such a number; @fd stays open. */
int fd_duplicate_high(int fd);

/** No number below it is one of these. */
extern int fd_lowest_high;

/** Close the @count of them that are not negative; puts them in order.  Numbers in a row, as those of a store, take one
 *  system call. */
void fd_close_all(int *fds, size_t count);

/** Close all from @first to @last.  A kernel before 5.9 has no close_range(2), and a container's filter may refuse it:
 * then those that /proc lists. */
int fd_close_range(unsigned first, unsigned last);

/** The lower one of @next and @fd, if @fd is one from @from on. */
static inline unsigned fd_next(unsigned from, int fd, unsigned next)
{
    return fd >= 0 && (unsigned)fd >= from && (unsigned)fd < next ? (unsigned)fd : next;
}

/** The name of @fd in /proc, into @link.  (Not by snprintf(3), which takes 700 instructions: each call on a path below
 * a descriptor needs it.) */
#define FD_LINK_MAX 32
void fd_link(int fd, char link[FD_LINK_MAX]);

/** The real path of the directory @fd, which was opened as @opened, in @size bytes.  Without /proc the path is looked
 * up, and has to lead to the same directory: -ESTALE.  -ENAMETOOLONG: it does not fit. */
int fd_path(int fd, const char *opened, char *path, size_t size);

/** Take the flock(2) of @fd for writing.  It is tried for @patience ns, as a process that only looks whether another
 * one has it holds it for an instant.  -EWOULDBLOCK: another process has it. */
int fd_lock(int fd, uint64_t patience);

/** fsync(2) the directory @path, so that its entries are on the disk. */
int fd_sync_directory(const char *path);

/** Write all of @bytes to @fd at @offset. */
int fd_write_all(int fd, const void *bytes, size_t size, uint64_t offset);

/** Allocate bytes [offset, offset + size) of file @fd with fallocate(2).  Keeps errno.  -EAGAIN: no room or no
 *  memory now. */
int fd_take_room(int fd, uint64_t offset, uint64_t size);

/** The same of a file on tmpfs, and the kernel zeroes the memory now.  Else it does at the first use of each page,
 *  which may be in a critical section, and takes milliseconds for a huge page that a virtual machine has given back. */
int fd_take_zeroed(int fd, uint64_t offset, uint64_t size);

#endif

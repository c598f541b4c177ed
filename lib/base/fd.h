/* SPDX-License-Identifier: MIT
 *
 * File descriptors: where the library's own lie, and what is done with one in more than one room.
 * Every function returns 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_FD_H
#define FASTSPOOL_FD_H

#include <stddef.h>
#include <stdint.h>

/** Move @fd to a high number, close-on-exec, and return that; @fd is closed.  High: a program's next open does not land
 *  there (Exim closes and writes to numbers that it no longer owns), below the soft limit of descriptors. */
int fd_high(int fd);

/** fsync(2) directory @path: its entries are on the disk. */
int fd_sync_directory(const char *path);

/** Write all of @bytes to @fd at @offset. */
int fd_write_all(int fd, const void *bytes, size_t size, uint64_t offset);

/** Take room for bytes [offset, offset + size) of file @fd, by fallocate(2).  -EAGAIN: the file system has none now. */
int fd_take_room(int fd, uint64_t offset, uint64_t size);

#endif

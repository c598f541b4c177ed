/* SPDX-License-Identifier: MIT
 *
 * Descriptors: which numbers of this process stand for open file descriptions of the store.
 */
#ifndef FASTSPOOL_DESCRIPTORS_H
#define FASTSPOOL_DESCRIPTORS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/** The description that @fd stands for, 0: none. */
uint32_t descriptors_find(int fd);
/** fstat(2) of a number that is unknown, and by the same call that it is foreign, as most inherited ones: 0, or -1 and
 *  errno.  1: nothing is known, *@st neither. */
int descriptors_fstat(int fd, struct stat *st);
/** Does @fd stand for @description, as far as this process knows?  Asks nobody. */
bool descriptors_stands(int fd, uint32_t description);
/** A new descriptor for an open description: @fresh, which is a duplicate of its @placeholder, or one that is made now
 *  (-1).  -errno: the description is closed again. */
int descriptors_new(uint32_t description, int placeholder, int fresh, int flags);
/** @fd, which a real call has returned, stands for @description.  0: it is foreign. */
void descriptors_set(int fd, uint32_t description);
/** @fd is about to be closed or replaced.  Returns what it stood for: release that afterwards. */
uint32_t descriptors_detach(int fd);
/** One descriptor less stands for @description. */
void descriptors_release(uint32_t description);
/** The same, by a process that is about to leave the store. */
void descriptors_leave(uint32_t description);
/** A real call has returned @new, a duplicate of @old or an error.  Returns @new. */
int descriptors_duplicated(int old, int new);
/** Look at every descriptor of this process that is still unknown: it may be inherited. */
void descriptors_discover(void);
/** Call @each with every descriptor that stands for a description. */
void descriptors_each(void (*each)(int fd, uint32_t description, void *argument), void *argument);
/** @fd, a real descriptor, stands for the file that the carrier knows as @file. */
void descriptors_set_carried(int fd, int file);
/** @fd has been given to later_add(). */
void descriptors_set_later(int fd);
/** The number of the carrier's file that @fd stands for, -1: none. */
int descriptors_carried(int fd);
/** Is @fd a real file below db/ or scan/?  Its fsync is free. */
bool descriptors_is_hint(int fd);
void descriptors_mark_hint(int fd);
/** Is @fd a directory that was opened with O_PATH, and whose path has no component with the name of a directory that
 * Exim has in its spool?  So the kernel need not be asked where a path below it leads.  (Not of others: libc closes
 * them without a call that is seen, as closedir(3) does, and the number is another directory's.) */
bool descriptors_is_quiet(int fd);
void descriptors_mark_quiet(int fd);

#endif

/* SPDX-License-Identifier: MIT
 *
 * Later: files of a process that has left the store, which are opened at their first use.
 */
#ifndef FASTSPOOL_LATER_H
#define FASTSPOOL_LATER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/** So many numbers may wait for their files. */
#define LATER_NUMBERS 16

/** Descriptor @fd, a duplicate of the view's directory, stands for its file @number, which was open with @flags at
 *  @offset. */
void later_add(int fd, int number, int flags, off_t offset);
/** @fd is about to be used: it becomes its file, with all that are duplicates of it.  False: it can't.  Keeps errno. */
bool later_use(int fd);
/** @fd is about to be closed or replaced. */
void later_forget(int fd);
/** Another process, or another program, is about to have what this one has open. */
void later_use_all(void);

#endif

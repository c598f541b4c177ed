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
 *  @offset.  With O_CLOEXEC it is closed by an exec. */
void later_add(int fd, int number, int flags, off_t offset);
/** The process keeps @directory, by which it opens them, as long as one waits: at another number. */
void later_keep(int directory);
/** Is @fd what the process keeps so? */
bool later_is_own(int fd);
/** That, if it is a descriptor from @from on; UINT_MAX: it is not. */
unsigned later_next_own(unsigned from);
/** @fd is about to be used: it becomes its file, with all that are duplicates of it.  False: it can't.  Keeps errno. */
bool later_use(int fd);
/** @fd is about to be closed. */
void later_forget(int fd);
/** dup3(2) to @new, which waits.  -errno: it waits still. */
int later_replace(int old, int new, int flags);
/** Another process, or another program, is about to have what this one has open. */
void later_use_all(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the view's clients have synced and changed: for the fsync of a directory.
 */
#ifndef FASTSPOOL_VIEW_SYNCED_H
#define FASTSPOOL_VIEW_SYNCED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/** The number of the highest change that thread @pid's process has synced, for fastspool_client.synced.  @directory:
 * for the fsync of a directory, else for that of a file.  @own: space for the answer where it has no place of its own.
 */
uint64_t *synced_of(pid_t pid, bool directory, uint64_t *own);
/** Thread @pid has made, moved or removed a name. */
void synced_note_change(pid_t pid);

/** Directory @description was opened, and its wait ended with @result. */
void synced_opened(int description, pid_t pid, int result);
/** Is that wait enough for its fsync?  Then *@result is the fsync's. */
bool synced_enough(int description, pid_t pid, int *result);

#endif

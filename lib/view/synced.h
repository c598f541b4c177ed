/* SPDX-License-Identifier: MIT
 *
 * What the view's clients have synced: for the fsync of a directory, which waits for what its own process has synced.
 */
#ifndef FASTSPOOL_VIEW_SYNCED_H
#define FASTSPOOL_VIEW_SYNCED_H

#include <stdint.h>
#include <sys/types.h>

/** The number of the highest change that thread @pid's process has synced, for fastspool_client.synced.  @directory:
 * for the fsync of a directory, else for that of a file.  @own: space for the answer where it has no place of its own.
 */
uint64_t *synced_of(pid_t pid, int directory, uint64_t *own);

#endif

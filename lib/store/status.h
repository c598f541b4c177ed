/* SPDX-License-Identifier: MIT
 *
 * The status of a store.
 */
#ifndef FASTSPOOL_STATUS_H
#define FASTSPOOL_STATUS_H

#include <stdint.h>

struct fastspool;
struct fastspool_status;

/** As fastspool_status(), without the number of messages. */
int status_numbers(struct fastspool *fs, struct fastspool_status *status);

/** Visit a name in the store: @path, relative to the spool, and the inode that it has. */
typedef void status_visit(void *context, const char *path, uint32_t inode);
/** Visit each name, without the lock.  One that comes or goes meanwhile may be missed, or have half of another path; an
 *  inode may be free by then, or another file's. */
void status_each(struct fastspool *fs, status_visit *visit, void *context);

#endif

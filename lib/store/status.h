/* SPDX-License-Identifier: MIT
 *
 * The status of a store.
 */
#ifndef FASTSPOOL_STATUS_H
#define FASTSPOOL_STATUS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct fastspool_status;

/** As fastspool_status(), without the number of messages. */
int status_numbers(struct fastspool *fs, struct fastspool_status *status);

/** Count the names that @which accepts together with the name of one of the directories above. */
typedef bool status_which(const char *name, const char *directory);
uint64_t status_count(const struct fastspool *fs, status_which *which);
/** Call @each for the inode of each of these names.  A name that comes or goes meanwhile may be missed; an inode may be
 *  free by then, or another file's. */
typedef void status_inode(void *context, uint32_t inode);
void status_each(const struct fastspool *fs, status_which *which, status_inode *each, void *context);

#endif

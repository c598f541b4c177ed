/* SPDX-License-Identifier: MIT
 *
 * How a store is.
 */
#ifndef FASTSPOOL_STATUS_H
#define FASTSPOOL_STATUS_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;
struct fastspool_status;

/** All of fastspool_status() but the number of messages. */
int status_numbers(struct fastspool *fs, struct fastspool_status *status);

/** Count the names for which @which says yes to the name and that of one of the directories above it. */
typedef bool status_which(const char *name, const char *directory);
uint64_t status_count(const struct fastspool *fs, status_which *which);

#endif

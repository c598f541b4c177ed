/* SPDX-License-Identifier: MIT
 *
 * Configuration, for processes that may come to need only a part of it.
 */
#ifndef FASTSPOOL_CONFIGURATION_H
#define FASTSPOOL_CONFIGURATION_H

#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIGURATION_MEMORY_LEAST (UINT64_C(4) << 20) /* bytes of the smallest store */

/** As fastspool_config_load(), but `memory` stays 0 where it is not configured: configuration_memory() then says how
 *  much that is, and makes some twenty system calls, for what the control groups leave. */
int configuration_read(struct fastspool_config *config, const char *path, bool environment,
                       char error[FASTSPOOL_ERROR_MAX]);
/** The @memory that is configured; for 0 the default. */
uint64_t configuration_memory(uint64_t memory);

#endif

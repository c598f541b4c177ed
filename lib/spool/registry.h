/* SPDX-License-Identifier: MIT
 *
 * Spools that root has registered: what a set-user-ID program serves besides the configured ones, since in secure
 * execution no environment variable is believed.
 */
#ifndef FASTSPOOL_REGISTRY_H
#define FASTSPOOL_REGISTRY_H

struct fastspool_config;

/** Register config->spool[0], with config's state and runtime directories and sizes.  Root only.  0 or -errno. */
int registry_add(const struct fastspool_config *config);
int registry_remove(const char *spool);

/** The registered spool that is @path or above it: fills in @config (spool, state, runtime, memory, flush_interval).
 *  Only what root alone could have written is believed.  No malloc.  0, or -ENOENT. */
int registry_find(const char *path, struct fastspool_config *config);

#endif

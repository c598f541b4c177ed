/* SPDX-License-Identifier: MIT
 *
 * The registry: spools that root has registered with `fastspool run`.  A set-user-ID program serves them besides the
 * configured ones, because it must not believe the environment.
 */
#ifndef FASTSPOOL_REGISTRY_H
#define FASTSPOOL_REGISTRY_H

struct fastspool_config;

/** Register config->spool[0] with config's durability, memory, flush_interval, state and runtime.  Root only.
 *  0 or -errno. */
int registry_add(const struct fastspool_config *config);
int registry_remove(const char *spool);

/** Find the registered spool that is @path or above it, and load its configuration into @config.  Believes only what
 *  root alone can write.  No malloc.  1, or 0: there is none; -errno: it can't be said. */
int registry_find(const char *path, struct fastspool_config *config);
/** The same of the one spool that @entry is the file of, a path in the registry.  0: it is no spool's, or another's
 * name than the spool in it has. */
int registry_read(const char *entry, struct fastspool_config *config);

#endif

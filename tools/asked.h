/* SPDX-License-Identifier: MIT
 *
 * What Exim says of its own configuration (-bP).
 */
#ifndef FASTSPOOL_TOOLS_ASKED_H
#define FASTSPOOL_TOOLS_ASKED_H

#include "fastspool.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The first `program` of @config that exists; NULL: none does. */
const char *asked_program(const struct fastspool_config *config);

/** The same, where it is an Exim, and root's alone to write: root runs no other; NULL: it is none. */
const char *asked_exim(const struct fastspool_config *config);

/** The value of the main option @name in @options, which are what -bP has printed.  False: it is not there. */
bool asked_option(const char *options, const char *name, char *value, size_t room);

/** The real path of the spool of asked_program(), asked for once in a process.  False: there is no such program, it
 * does not say, the spool is no directory, or this process is not root's. */
bool asked_spool(const struct fastspool_config *config, char spool[PATH_MAX]);

/** Is @path, by which Exim calls its spool, a name that the library goes by: one of @config's, or its real path?  It
 *  follows no other link to it. */
bool asked_is_known(const struct fastspool_config *config, const char *path);
/** Does Exim call the spool that asked_spool() finds by another name, which is then in @path? */
bool asked_miscalled(const struct fastspool_config *config, char path[FASTSPOOL_PATH_MAX]);

/** The message_size_limit in @options, in bytes; where there is none, Exim's usual one: mail of that size is to be
 *  expected.  0: it is not there, or an expansion whose value Exim does not say. */
uint64_t asked_message_limit(const char *options);
/** The same of asked_program(), asked as by asked_spool(). */
uint64_t asked_limit(const struct fastspool_config *config);

#endif

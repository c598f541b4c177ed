/* SPDX-License-Identifier: MIT
 *
 * What the subcommands share: each is one file with one function, told its arguments, its own name first.
 */
#ifndef FASTSPOOL_TOOL_H
#define FASTSPOOL_TOOL_H

int tool_cat(int argc, char **argv);
int tool_flush(int argc, char **argv);
int tool_ls(int argc, char **argv);
int tool_mirror(int argc, char **argv);
int tool_run(int argc, char **argv);
int tool_status(int argc, char **argv);
int tool_stop(int argc, char **argv);

/** Print "fastspool: ..." and a line end on standard error; returns 1, for `return tool_error(...)`. */
int tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Load the configuration; @spool (may be NULL): the one that an option names, instead of the configured ones.
 *  Says what is wrong; 0 or 1. */
int tool_config(struct fastspool_config *config, const char *spool);

/** Attach the store that is there, without making one or starting a mirror.  Says what is wrong; NULL. */
struct fastspool *tool_attach(const char *spool);

/** The spool that `--spool DIR`, the one option of most subcommands, names; NULL: none.  @json may be NULL: then
 *  there is no --json.  Exits with 2 and the usage @usage where the arguments are wrong, with 0 after --help. */
const char *tool_options(int argc, char **argv, bool *json, const char *usage);

#endif

/* SPDX-License-Identifier: MIT
 *
 * What the subcommands share.  Each is one file with one function; its argv[0] is what getopt(3) begins its
 * sentences with.
 */
#ifndef FASTSPOOL_TOOL_H
#define FASTSPOOL_TOOL_H

#include "base/escape.h"
#include "fastspool.h"
#include "seen.h"

#include <stdbool.h>
#include <stdint.h>

struct option;

int tool_backup(int argc, char **argv);
int tool_cat(int argc, char **argv);
int tool_compact(int argc, char **argv);
int tool_disable(int argc, char **argv);
int tool_doctor(int argc, char **argv);
int tool_dump(int argc, char **argv);
int tool_enable(int argc, char **argv);
int tool_export(int argc, char **argv);
int tool_flush(int argc, char **argv);
int tool_import(int argc, char **argv);
int tool_ls(int argc, char **argv);
int tool_mirror(int argc, char **argv);
int tool_run(int argc, char **argv);
int tool_status(int argc, char **argv);
int tool_stop(int argc, char **argv);
int tool_verify(int argc, char **argv);
int tool_view(int argc, char **argv);

/** The exit status of `fastspool stop` where a process that it names uses the store on. */
#define TOOL_STILL_USED 2

/** Print "fastspool: ..." and a newline on standard error.  Returns 1, for `return tool_error(...)`. */
int tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** The same for @error of an attachment that has failed with @result: an ordinary user is told to be root. */
int tool_refused(int result, const char *error);

/** The end of a noun behind @count: "1 message", "2 messages". */
static inline const char *tool_plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/** Print a JSON string on standard output.  @text may hold any bytes. */
void tool_print_json(const char *text);

/** Ask @question on the terminal, unless @yes.  Without a terminal: false, and what to do is printed. */
bool tool_confirm(bool yes, const char *question);

/** Load the configuration.  @spool, if not NULL, replaces the configured spools.  Of two names of one directory the
 *  first stays.  0; -ENOENT: there is no spool; or another negative errno; each with a sentence.  What could be
 *  understood is in @config all the same. */
int tool_load_config(struct fastspool_config *config, const char *spool, char error[FASTSPOOL_ERROR_MAX]);
/** The same.  0; or 1, with the reason printed. */
int tool_config(struct fastspool_config *config, const char *spool);
/** For what acts on one spool: with several, and no @spool, the same as an error. */
int tool_config_of_one(struct fastspool_config *config, const char *spool);
/** @config with its spool @number alone. */
struct fastspool_config tool_config_of(const struct fastspool_config *config, size_t number);

/** Is the spool of @config one?  @fresh: so is a spool that the configuration names, and an empty directory: the first
 * use makes a store there.  0; or 1, with the reason printed. */
int tool_check_spool(const struct fastspool_config *config, bool fresh);
/** Does the configuration name this directory as a spool? */
bool tool_is_configured(const char *spool);
/** What has to stand before FASTSPOOL_STATE in a command about @spool, where the configuration names several, to one of
 * which a state belongs: "FASTSPOOL_SPOOL=SPOOL "; else "". */
#define TOOL_OF_SPOOL (ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX) + sizeof("FASTSPOOL_SPOOL= "))
const char *tool_of_spool(const char *spool, char words[TOOL_OF_SPOOL]);

/** Attach an existing store.  Creates none, and starts no mirror.  NULL: it failed, and the reason is printed. */
struct fastspool *tool_attach(const char *spool);

/** The next option of @options, as getopt_long(3) says it; -1: there is none.  All have letters, and --help has 'h'.
 *  Prints @usage and exits: with 64 on a wrong one, with 0 on --help and -h. */
int tool_option(int argc, char **argv, const struct option *options, const char *usage);
/** The same, where the first operand ends the options: it is a command with its own. */
int tool_option_before_command(int argc, char **argv, const struct option *options, const char *usage);
/** The operands, after the last option.  Fewer than @least or more than @most are wrong.  @needs: what they are, with
 * an article; NULL: @least is 0. */
char **tool_operands(int argc, char **argv, int least, int most, const char *needs, const char *usage);
/** Wrong arguments: print the sentence and @usage, and exit with 64. */
_Noreturn void tool_wrong(const char *usage, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** The number @text of @of ("bytes"), at least @least, that option --@option needs.  Anything else is wrong. */
uint64_t tool_number(const char *option, const char *of, const char *text, uint64_t least, const char *usage);
/** @text, if it may be the path that option --@option needs. */
const char *tool_path(const char *option, const char *text, const char *usage);
/** Parse the options of most subcommands.  Returns the argument of `--spool DIR`, or NULL.  *@json: --json was given;
 *  @json NULL: the subcommand has no --json. */
const char *tool_options(int argc, char **argv, bool *json, const char *usage);
/** The same for a subcommand that has, beside --spool and --help, one option of its own without an argument.  *@given:
 *  it was given. */
const char *tool_options_of(int argc, char **argv, const struct option *options, bool *given, const char *usage);
/** The same for a subcommand without operands. */
const char *tool_only_options(int argc, char **argv, bool *json, const char *usage);

/** Start a view that is dead again, if this is root.  Is it started? */
bool tool_mount_again(struct fastspool *fs, enum seen_state state);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The ways by which Exim gets the library: its service, its defaults, and /etc/ld.so.preload.
 */
#ifndef FASTSPOOL_WAYS_H
#define FASTSPOOL_WAYS_H

#include "base/error.h"
#include "command.h"
#include "fastspool.h"

#include <stdbool.h>
#include <stddef.h>

#define WAYS_DEFAULTS   "/etc/default/exim4"
#define WAYS_EVERYWHERE "/etc/ld.so.preload"
#define WAYS_MAX        4

/** The LD_PRELOAD of Exim's service, as systemd has it now; "": none, or no systemd runs. */
void ways_of_service(char value[COMMAND_OUTPUT]);
/** What /etc/default/exim4 makes of LD_PRELOAD @given, "": none.  The shell executes that file, as the service does. */
void ways_of_defaults(const char *given, char value[COMMAND_OUTPUT]);

/** The LD_PRELOAD that Exim will have by ways_find(): the library, and behind it what is there besides. */
void ways_value(char value[COMMAND_OUTPUT]);

struct way {
    const char *path;
    const char *what;                 /* "the service gets ...", for the operator */
    char text[COMMAND_OUTPUT + 8192]; /* to be put there */
    bool done;                        /* it is there, or somebody else's lines do the same */
};

/** Let no other `fastspool enable` or `disable` change the files as long as this process lives.  0, or 1 with the
 *  reason printed. */
int ways_lock(void);

/** Fill in what has to be written on this machine.  @check: a start of Exim that would not be served shall fail.
 *  @everywhere: also /etc/ld.so.preload.  Returns the number of ways. */
size_t ways_find(bool check, bool everywhere, struct way ways[WAYS_MAX]);
/** All files that ways_find() may name, on any machine, up to a NULL. */
extern const char *const ways_files[];

/** Write, or take away what was written: 0; or -errno, with a sentence in @error. */
int ways_put(const struct way *way, char error[ERROR_MAX]);
int ways_take(const char *file, char error[ERROR_MAX]);
/** Is something of ours in @file? */
bool ways_is_in(const char *file);

/** Is anything of ours in any of them, so that the service's Exim is to have the library? */
bool ways_are_in(void);
/** Has each Exim the library without a variable, as its image needs it or every program has it?  To know that this runs
 *  Exim, once as long as nothing changes.  Needs root. */
bool ways_need(const struct fastspool_config *config);
/** Does /etc/default/exim4 give the library to what reads it?  To know that this runs a shell. */
bool ways_by_defaults(void);
/** Will Exim's next start have the library: so, or by what `enable` has written? */
bool ways_lead(const struct fastspool_config *config);

/** Is systemd process 1? */
bool ways_booted(void);
/** How Exim is told to @verb ("stop") here: "`systemctl stop exim4`", its script, or "as this system does".  Valid
 * until the next call. */
const char *ways_command(const char *verb);

/** Is the unit @name Exim's service? */
bool ways_is_unit(const char *name);

/** How the library's file, or this program's, comes back here: by its package, or from where it was built. */
const char *ways_install(bool library);
/** How both come back, of one version. */
const char *ways_install_both(void);

/** After a change of a service's files.  Does nothing where no systemd runs. */
void ways_reload(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * The Exim processes that run on this machine.
 */
#ifndef FASTSPOOL_EXIMS_H
#define FASTSPOOL_EXIMS_H

#include "decided.h"
#include "fastspool.h"
#include "mountpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EXIMS_LIBRARY DECIDED_LIBRARY

struct exims_process {
    pid_t pid;
    bool library;     /* is in its memory */
    bool served;      /* by the library, as that says itself, or will be at its first call on the spool */
    bool users;       /* an ordinary user has started it: the library serves it never */
    bool replaced;    /* its image was replaced, as by an upgrade */
    bool elsewhere;   /* in another PID namespace than this process */
    bool daemon;      /* by its command line: takes mail, or runs the queue, until it is ended */
    bool stranded;    /* it is a daemon, and the memory of the store that it has was removed, or the state moved */
    bool configured;  /* it has a configuration of its own (-C), and so perhaps another spool */
    bool foreign;     /* it is such a daemon, and works in a directory that is no spool of ours */
    char command[80]; /* its command line */
    char moved[FASTSPOOL_PATH_MAX]; /* stranded: where the state is now; "": it is the memory */
    char over[MOUNTPOINT_PLACE];    /* stranded: what is mounted there hides the state, `moved`; "": nothing does */
};

/** Call @each, until it returns true, for the processes that run a `program` of @config, or @image, if that is not
 * NULL, but those that have an ordinary user's rights alone: such a process gets into no spool.  One that has just
 * begun, and has no library yet, gets a moment; many have it together.  Needs root.  Returns how many @each was called
 * for. */
typedef bool exims_visit(void *context, const struct exims_process *process);
size_t exims_each(const struct fastspool_config *config, const char *image, exims_visit *each, void *context);

/** Has process @pid no rights but an ordinary user's?  Such a one gets into no spool, and whoever looks into its memory
 *  may wait for ever.  False, too, where it can't be said. */
bool exims_is_powerless(pid_t pid, const struct fastspool_config *config);

/** How many processes are called like an Exim, and have an image that can't be read: without CAP_SYS_PTRACE, as root in
 *  a container, the mail user's.  Whether they are Exims, and have the library, can't be said. */
size_t exims_hidden(const struct fastspool_config *config);

/** What is found of all Exims, of any spool but the foreign ones, as no process tells which one it uses. */
struct exims_found {
    size_t daemons;                 /* of those without the library */
    pid_t plain;                    /* the first of these daemons, 0: there is none */
    pid_t stranded;                 /* a daemon whose store was removed, 0: there is none */
    char moved[FASTSPOOL_PATH_MAX]; /* as in its exims_process */
    char over[MOUNTPOINT_PLACE];    /* the same */
    bool configured;                /* one that is served has a configuration of its own */
    pid_t served;                   /* the first daemon that is served, 0: there is none */
};

/** How many Exims run without the library, or are not served by it.  Not those of other PID namespaces, nor a user's
 *  that has the library.  Looks for a tenth of a second more where one has just begun.  -1: it can't be said
 *  (exims_hidden()).  Needs root. */
int64_t exims_without(const struct fastspool_config *config, struct exims_found *found);

/** Has @process, an Exim that is served, no store yet, and other mounts, in which @runtime, the memory of the store, is
 *  not to be seen?  Where a view lives Exim is refused then.  Needs root. */
bool exims_is_blind(const struct exims_process *process, const char *runtime);
/** The first daemon of these, 0: there is none.  One with a configuration of its own may have another spool. */
pid_t exims_find_blind(const struct fastspool_config *config, const char *runtime);
#define EXIMS_BLIND "the store's memory, %s, is not to be seen in the mounts of Exim's service, and it takes no mail"
/** What to do about it. */
const char *exims_bind(const char *runtime);

/** Does an Exim run that has the store of @spool: served by the library, or on the view?  Waits for none.  Also true
 *  where it can't be said (exims_hidden()).  *@daemon, if not NULL: one that takes mail, or runs the queue, until it is
 *  ended, does.  Needs root. */
bool exims_attend(const struct fastspool_config *config, const char *spool, bool *daemon);

#endif

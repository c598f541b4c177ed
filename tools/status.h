/* SPDX-License-Identifier: MIT
 *
 * What the files of `fastspool status` share: what is known of the spool at one moment, and each way to show it.
 */
#ifndef FASTSPOOL_TOOLS_STATUS_H
#define FASTSPOOL_TOOLS_STATUS_H

#include "base/clock.h"
#include "fastspool.h"
#include "installed.h"
#include "jobs.h"
#include "memory.h"
#include "plain/census.h"
#include "queues.h"
#include "seen.h"
#include "severity.h"
#include "states.h"
#include "store/durations.h"
#include "store/section.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define STATUS_SILENT (5 * NS_PER_S) /* a mirror without a sign of life for so long is frozen, or its disk is */
#define STATUS_LINE   (2 * STATES_SENTENCE + 4)

struct commit_class {
    uint64_t below; /* nanoseconds */
    uint64_t commits;
};

#define STATUS_PAGES 400 /* bytes of the sentence about the memory's pages */

/** The spool at one moment. */
struct shown {
    const struct fastspool_config *config;
    const char *spool;
    bool named;                         /* the configuration's file names the spool, not only this call */
    int refused;                        /* the errno with which it could not be attached, negative */
    bool store;                         /* there is one; else of what is below only the last ones mean something */
    bool unknown;                       /* nobody could look whether there is one */
    const char *failure;                /* NULL: none */
    const char *recovery;               /* why it can't go on, NULL: it can */
    char sentence[SECTION_SENTENCE];    /* of either */
    bool recovering;                    /* `numbers` are not whole yet */
    unsigned recovered;                 /* percent of it */
    char refusal[FASTSPOOL_ERROR_MAX];  /* why Exim does not believe the configuration, "": it does */
    char unusable[FASTSPOOL_ERROR_MAX]; /* why the next mirror, or Exim, could not use the state or the memory; "": it
                                           could */
    bool stands;                        /* nor can those that run, or none does */
    char memory[MEMORY_FOUND + MEMORY_MEND + 2]; /* why no store could be made after this one, "": one could */
    char library[FASTSPOOL_ERROR_MAX];           /* why Exim's re-executions don't load the library, "": they do */
    char exposed[FASTSPOOL_ERROR_MAX];           /* why others could give Exim other code, "": they could not */
    bool fatal;                                  /* they end at once, as they load it, and it is a part of a library */
    char differs[INSTALLED_SENTENCE]; /* the library's file is of another version, as said; "": it is of this one */
    bool read_only;                   /* the file system of the journal */
    int checkpoint_error;             /* negative errno of the last checkpoint; 0: it succeeded */
    char locker[LOCKER_SENTENCE];     /* another process has the lock of the database, "": none is known */
    int no_tool;                      /* errno: no mirror can be started */
    uint64_t exim_limit;              /* Exim's message_size_limit, of its own spool, as asked_message_limit() */
    uint64_t late;                    /* age in ns from which on a change should be on the disk */
    struct fastspool_status numbers;
    uint64_t changes;    /* since the store was made */
    uint64_t commits_ns; /* of all commits, together */
    struct commit_class classes[DURATIONS_OCTAVES];
    char pages[STATUS_PAGES]; /* which pages the memory has, "": it can't be said */
    struct seen view;
    pid_t view_pid;
    uint32_t locked; /* what the import has left on the disk, as in view_state */
    uint32_t conflicts;
    uint32_t left;
    uint32_t hidden;    /* of it: by the view */
    enum queues queues; /* may Exim's user use its directories?  If not, `line` says so */
    bool enabled;       /* the service's Exim is to have the library */
    bool unattended;    /* no Exim runs that has the store; only root can know */
    bool passing;       /* one does, and ends soon: it is no daemon */
    struct jobs jobs;   /* where no daemon runs */
    int64_t without;    /* Exims that run without the library, of any spool; -1: only root can know */
    struct exims_found found;
    const char *runtime; /* where its memory is */
    uint64_t spared;     /* bytes that others leave it there, 0: all that it may take */
    pid_t blind;         /* a daemon that can't see the store's memory, 0: there is none; only root can know */
    struct census census;
    bool moves;       /* an import or export is at work on what `census` has as half moved */
    int64_t in_state; /* messages in the state on the disk, where no store is in memory; -1: it can't be said, */
    bool unreadable;  /* not only now: the database can't be read */
    int64_t on_disk;  /* as in `census` */
    struct states_other other;        /* another state that the configuration does not lead to */
    char unnamed[FASTSPOOL_PATH_MAX]; /* Exim's own spool, which has a state, and which the configuration does not name
                                       */
    char miscalled[FASTSPOOL_PATH_MAX]; /* the same, which the configuration names in another way; "": it does not */
    char exims[FASTSPOOL_PATH_MAX];     /* the same without a state: Exim works there on the plain disk; "": none */
    enum health health;
    char line[STATUS_LINE]; /* why */
    char more[STATUS_LINE]; /* where there is no store: what that means, or "" */
};

/** Of the messages in the store, those that Exim has frozen.  *@unread: -H files whose data is not in memory, which
 *  nobody should bring back only to count.  Reads every other -H file. */
uint64_t messages_frozen(struct fastspool *fs, uint64_t *unread);

/* What to do about mail of the disk that the view of the spool hides. */
#define STATUS_HIDDEN "`mount --bind %s /mnt` shows the disk, and syslog (\"... stays on the disk\") says why"
/* Of Exim's own spool, named twice, with a state that it would find. */
#define STATUS_UNNAMED                                              \
    "Exim's spool %s has a store, and `spool` in " FASTSPOOL_CONFIG \
    " does not name it: with the library Exim takes and delivers no mail; say `spool = %s` there"

/** What the mail does until a configuration that Exim may not use is mended.  @viewed: a view is mounted.  @attended:
 * an Exim runs that has the store. */
const char *status_until_mended(bool viewed, bool attended);
/** Say in @shown how it is, and why. */
void status_judge(struct shown *shown);
/** Add to @line why a start of Exim would be refused, or not be served.  False: it would not. */
bool status_add_refusal(const struct shown *shown, char line[STATUS_LINE]);
/** The same; and where it would not, the advice to start Exim. */
void status_add_start(const struct shown *shown, char line[STATUS_LINE], const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** Is mail half moved, as by an import or export that runs, or was killed?  Then @line says it, as of a killed one. */
bool status_half_moved(const struct census *census, char line[STATUS_LINE]);
/** Does mail stand on the plain disk, as Exim is to run, and none of any kind does?  Then @line says it. */
bool status_plain_stands(const struct shown *shown, char line[STATUS_LINE]);

/** Would Exim take a message, by its limit @exim, that is larger than the @largest file of the store?  Then @line says
 *  it. */
bool status_refuses_large(uint64_t largest, uint64_t exim, char line[STATUS_LINE]);

/** Is the library of another version than this command?  Then @line says it. */
bool status_differs(const struct shown *shown, char line[STATUS_LINE]);
/** Is Exim's own spool another one, and without fastspool, so that @messages stand?  Then @line says it.  (An Exim with
 * a configuration of its own may be the one that has this spool.) */
bool status_is_left(const struct shown *shown, uint64_t messages, char line[STATUS_LINE]);
/** Does a daemon have a store that was removed?  Then @line says so. */
bool status_is_stranded(const struct shown *shown, char line[STATUS_LINE]);

/** Say in @shown why Exim's re-executions don't load the library, if they don't. */
void status_next_library(const struct fastspool *fs, struct shown *shown);
/** Say in @shown what of the state the next mirror, or of the memory the next store, could not use, and whether mail
 *  stands so now.  After its numbers, and what its recovery says. */
void status_next_use(const struct fastspool *fs, struct shown *shown);
/** states_usable() of @state for the next mirror; 0, too, where this process is not root's, and can't say. */
int status_next_state(const struct shown *shown, const char *state, char error[FASTSPOOL_ERROR_MAX]);
/** Say in @shown why no store of the spool's @owner can be made where `runtime` says, if none can. */
void status_next_memory(struct shown *shown, uid_t owner, gid_t group);

void status_print_json(const struct shown *shown);
void status_print_text(const struct shown *shown);
/** Of the text, what is known with and without a store. */
void status_print_rest(const struct shown *shown);
/** The metrics of one more spool, kept until status_print_prometheus(): those of several spools, of one name, stand
 *  together.  @fs: the store, NULL: there is none. */
void status_add_prometheus(const struct shown *shown, struct fastspool *fs);
void status_print_prometheus(void);

/** Fill in @shown.  The caller detaches *@fs, which is NULL where there is no store. */
void status_look(const struct fastspool_config *config, struct shown *shown, struct fastspool **fs);
/** Of that only whether Exim believes the configuration, and whether its file names the spool. */
void status_look_at_configuration(struct shown *shown);
/** Show the spool until a key or signal ends it.  Returns the exit status. */
int status_watch(const struct fastspool_config *config);

#endif

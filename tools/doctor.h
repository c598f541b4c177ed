/* SPDX-License-Identifier: MIT
 *
 * What the parts of `fastspool doctor` share: the patient, and how a finding is told.
 */
#ifndef FASTSPOOL_DOCTOR_H
#define FASTSPOOL_DOCTOR_H

#include "command.h"
#include "fastspool.h"
#include "jobs.h"
#include "severity.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

enum verdict { DOCTOR_OK, DOCTOR_ATTENTION, DOCTOR_WRONG };

struct doctor {
    bool start;                        /* --start: only what keeps Exim from being served */
    bool json;                         /* --json */
    const char *preload;               /* --preload; NULL: what the next start of Exim has */
    struct fastspool_config config;    /* what Exim believes */
    char refusal[FASTSPOOL_ERROR_MAX]; /* why Exim believes it not; "": it does */
    char exim[PATH_MAX];               /* this machine's Exim; "": there is none */
    char options[COMMAND_OUTPUT];      /* what it says of its own configuration (-bP); "": nothing */
    bool loads;                        /* a set-user-ID Exim can load the library, */
    bool leads;                        /* and its next start does */
    char spool[FASTSPOOL_PATH_MAX];    /* real path of Exim's spool, else of the first configured; "": there is none */
    char state[FASTSPOOL_PATH_MAX];    /* its state directory, which need not exist */
    struct jobs jobs;                  /* where no daemon of Exim runs */
    uid_t owner;                       /* of the spool, */
    bool given_away;                   /* who is not Exim's user: who owns its state says nothing, then */
    gid_t group;
    struct fastspool *fs;          /* its store in memory; NULL: none is attached, */
    int attached;                  /* and the errno why, negative */
    char why[FASTSPOOL_ERROR_MAX]; /* and a sentence */
    char runtime[PATH_MAX];        /* where its memory is, or would be; "": in a tmpfs that Exim's start will mount */
    bool lacks_users;              /* whose a file is can't be seen here: no other check would say what is true */
    const char *subject;           /* of the check that is made now */
    unsigned told;                 /* findings so far */
    enum verdict worst;
};

/* What lets root look into other users' processes. */
#define DOCTOR_LOOKS "give this process CAP_SYS_PTRACE (--cap-add SYS_PTRACE), or run it outside of the container"

/* Between what was found and what is to be done about it. */
#define DOCTOR_TO_DO "; to do: "

/** Tell one finding of the check that is made now: what was found, and what to do about it, a sentence each without the
 *  full stop.  @mend: NULL: nothing. */
void doctor_tell(struct doctor *doctor, enum verdict verdict, const char *mend, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/** What the exit status @health of `fastspool status` is to doctor. */
enum verdict doctor_verdict(enum health health);

/** The value of Exim's main option @name, as Exim says it itself.  False: it says nothing. */
bool doctor_option(const struct doctor *doctor, const char *name, char *value, size_t room);

/** Is @spool that of this machine's Exim, as the patient's is? */
bool doctor_is_exims(const struct doctor *doctor, const char *spool);

/* The checks, in the order in which an administrator would look. */

/* doctor_library.c: the library, and how Exim gets it */
void doctor_installed(struct doctor *doctor);
void doctor_secure(struct doctor *doctor);
void doctor_preload(struct doctor *doctor);
void doctor_ahead(struct doctor *doctor);
/* doctor_exim.c: the configuration, Exim's own, and the Exims that run */
void doctor_configuration(struct doctor *doctor);
void doctor_program(struct doctor *doctor);
void doctor_spool(struct doctor *doctor);
void doctor_user(struct doctor *doctor);
void doctor_state(struct doctor *doctor);
void doctor_environment(struct doctor *doctor);
void doctor_running(struct doctor *doctor);
/* doctor_services.c: what systemd says of the services */
void doctor_services(struct doctor *doctor);
/* doctor_machine.c: memory, disk, namespaces */
void doctor_users(struct doctor *doctor);
void doctor_memory(struct doctor *doctor);
void doctor_huge_pages(struct doctor *doctor);
void doctor_disk(struct doctor *doctor);
void doctor_barriers(struct doctor *doctor);
void doctor_syncs(struct doctor *doctor);
void doctor_namespace(struct doctor *doctor);
void doctor_remove_ipc(struct doctor *doctor);
/** Does mail stand, in the store or in the state, as no Exim runs that has it? */
bool doctor_mail_stands(const struct doctor *doctor);
/* doctor_mail.c: the store, the view, and mail outside of them */
void doctor_store(struct doctor *doctor);
void doctor_queues(struct doctor *doctor);
void doctor_unattended(struct doctor *doctor);
void doctor_view(struct doctor *doctor);
void doctor_plain(struct doctor *doctor);
void doctor_readers(struct doctor *doctor);

#endif

/* SPDX-License-Identifier: MIT
 *
 * How bad a state is: the one answer of `fastspool status` and `fastspool doctor`.
 */
#ifndef FASTSPOOL_TOOLS_SEVERITY_H
#define FASTSPOOL_TOOLS_SEVERITY_H

/** The exit status of `fastspool status`. */
enum health { WELL = 0, ATTENTION = 1, MAIL_STANDS = 2, NOT_IN_USE = 3 };

enum condition {
    /* the store, and the disk below it */
    IN_ORDER,
    NOT_USED,     /* no store in memory, and no mail in the state */
    STORE_FAILS,  /* it can't be attached, or recovered, or has failed */
    STATE_FAILS,  /* its directory can't be made, used, or written to */
    STATE_LOST,   /* the same, but for what has it open already */
    MEMORY_LOST,  /* the next store's, where `runtime` says; this one goes on */
    QUEUE_CLOSED, /* to Exim's user: a directory of it is another's */
    QUEUES_MANY,  /* too many to look at each of them */
    COMMITS_FAIL, /* the last one */
    JOURNAL_LOST, /* there is no store, and files of the journal are missing: the next start goes on with the rest */
    NOT_CHECKPOINTED, /* checkpoints fail, and commits go on until the journal is full */
    MIRROR_STANDS,    /* calls wait for it, and none runs, it is frozen, or its disk is */
    NO_ROOM,          /* for what Exim asks for before it takes a message */
    NO_MIRROR,        /* and nobody waits for one */
    MEMORY_FILLED,    /* by others: there is less of it than the store may take */
    LARGE_REFUSED,    /* messages that Exim would take */
    RECOVERING,
    /* what the configuration leads to */
    CONFIGURATION_REFUSED,         /* no Exim may use the spool, but for what has it already */
    CONFIGURATION_REFUSED_ON_VIEW, /* Exim goes on by the view */
    ENVIRONMENT_REFUSED,           /* of this call alone */
    SPOOL_MISSING,
    SPOOL_CLOSED,            /* to this user */
    SPOOL_UNNAMED,           /* Exim's own, which has a state: with the library it gets nothing */
    SPOOL_MISCALLED,         /* Exim calls it by a link that the configuration does not name: it gets nothing, */
    SPOOL_MISCALLED_ON_VIEW, /* and goes on by the view */
    SPOOL_LEFT,              /* Exim's own is another one, without a state: Exim works on that disk, */
    MAIL_LEFT,               /* and mail stands here */
    OTHER_MAIL,              /* in a state that the configuration does not lead to */
    OTHER_MIRROR,            /* the same, without mail */
    /* the mail */
    MAIL_UNATTENDED,  /* in the store or the state, and no Exim runs that has it */
    MAIL_NOT_BACK,    /* in the state alone, and an Exim runs that brings it back */
    MAIL_HALF_MOVED,  /* by an import or export that was killed: no Exim finds it */
    PLAIN_UNATTENDED, /* on the plain disk of an enabled machine, and no Exim runs */
    PLAIN_GOES_ON,    /* the same beside an Exim, or on a machine that has been left */
    PLAIN_HIDDEN,     /* messages below a view, which nobody has */
    IMPORT_STANDS,    /* files of messages that Exim finds elsewhere: an import or export was interrupted */
    /* the Exims that run */
    LIBRARY_LOST,         /* its file, or its mode: Exim's re-executions do not load it */
    LIBRARY_LOST_ON_DISK, /* the same beside an Exim that has it, and there is no view, or they end with it: what that
                             takes stands */
    LIBRARY_EXPOSED,      /* others than root may write to it */
    LIBRARY_DIFFERS,      /* its file is of another version than the command, and so than the mirror */
    EXIM_STRANDED,        /* the store that a daemon has was removed: it takes no mail */
    EXIM_BLIND,           /* a daemon's mounts do not have the store's memory: it takes no mail */
    EXIM_PASSES,          /* mail is in the store, and what has that is no daemon, and ends soon */
    EXIM_ON_VIEW,         /* a daemon without the library, or in which it serves nothing */
    EXIM_ON_DISK,         /* the same, and there is no view */
    EXIM_BESIDE_MAIL,     /* the same, and mail stands */
    /* what programs without the library see */
    VIEW_DEAD,
    VIEW_LOCKED,    /* another process has its lock, or it can't be opened, and none can be mounted */
    VIEW_LAST,      /* the same, beside one that is mounted */
    VIEW_STOPPED,   /* it is mounted, and nobody goes on there */
    VIEW_UNMOUNTED, /* and it should be */
    VIEW_COVERED,   /* it is mounted, and programs do not see it */
    VIEW_STARTING,
    VIEW_HIDES, /* files of the disk */
};

enum health severity_of(enum condition condition);
/** The worse of two.  A spool that is not in use is no trouble beside one that is. */
enum health severity_worse(enum health one, enum health other);

#endif

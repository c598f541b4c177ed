/* SPDX-License-Identifier: MIT
 *
 * How bad a state is.
 *
 * The rule:
 *   - 2, mail stands: Exim can take or deliver none, or nobody has what is there.
 *   - 1, attention: mail goes on, but programs see less than there is, Exim works more slowly than it could, or what
 *     works now ends with the next start.
 *   - 0, well: all see all, or the next queue run does what is to be done.
 *   - 3: nobody uses the spool.
 *
 * `fastspool doctor` says 1 as "attention", and 2 as "wrong".  It also looks at what is no state of the spool: the next
 * start of Exim, which is wrong where it would not be served, and the machine.  So it is never milder than `status`,
 * nor than its own --start.
 */
#include "severity.h"

enum health severity_of(enum condition condition)
{
    static const enum health severities[] = {
        [IN_ORDER] = WELL,
        [NOT_USED] = NOT_IN_USE,
        [STORE_FAILS] = MAIL_STANDS,
        [STATE_FAILS] = MAIL_STANDS,
        [STATE_LOST] = ATTENTION,
        [MEMORY_LOST] = ATTENTION,
        [QUEUE_CLOSED] = MAIL_STANDS,
        [QUEUES_MANY] = ATTENTION,
        [COMMITS_FAIL] = MAIL_STANDS,
        [JOURNAL_LOST] = ATTENTION,
        [NOT_CHECKPOINTED] = ATTENTION,
        [MIRROR_STANDS] = MAIL_STANDS,
        [NO_ROOM] = MAIL_STANDS,
        [NO_MIRROR] = ATTENTION,
        [MEMORY_FILLED] = ATTENTION,
        [LARGE_REFUSED] = ATTENTION,
        [RECOVERING] = ATTENTION,
        [CONFIGURATION_REFUSED] = MAIL_STANDS,
        [CONFIGURATION_REFUSED_ON_VIEW] = ATTENTION,
        [ENVIRONMENT_REFUSED] = ATTENTION,
        [SPOOL_MISSING] = ATTENTION,
        [SPOOL_CLOSED] = ATTENTION,
        [SPOOL_UNNAMED] = MAIL_STANDS,
        [SPOOL_MISCALLED] = MAIL_STANDS,
        [SPOOL_MISCALLED_ON_VIEW] = ATTENTION,
        [SPOOL_LEFT] = ATTENTION,
        [MAIL_LEFT] = MAIL_STANDS,
        [OTHER_MAIL] = MAIL_STANDS,
        [OTHER_MIRROR] = ATTENTION,
        [MAIL_UNATTENDED] = MAIL_STANDS,
        [MAIL_NOT_BACK] = ATTENTION,
        [MAIL_HALF_MOVED] = MAIL_STANDS,
        [PLAIN_UNATTENDED] = MAIL_STANDS,
        [PLAIN_GOES_ON] = WELL,
        [PLAIN_HIDDEN] = MAIL_STANDS,
        [IMPORT_STANDS] = ATTENTION,
        [LIBRARY_LOST] = ATTENTION,
        [LIBRARY_LOST_ON_DISK] = MAIL_STANDS,
        [LIBRARY_EXPOSED] = ATTENTION,
        [LIBRARY_DIFFERS] = MAIL_STANDS,
        [EXIM_STRANDED] = MAIL_STANDS,
        [EXIM_BLIND] = MAIL_STANDS,
        [EXIM_PASSES] = ATTENTION,
        [EXIM_ON_VIEW] = ATTENTION,
        [EXIM_ON_DISK] = ATTENTION,
        [EXIM_BESIDE_MAIL] = MAIL_STANDS,
        [VIEW_DEAD] = ATTENTION,
        [VIEW_LOCKED] = ATTENTION,
        [VIEW_LAST] = ATTENTION,
        [VIEW_STOPPED] = ATTENTION,
        [VIEW_UNMOUNTED] = ATTENTION,
        [VIEW_COVERED] = ATTENTION,
        [VIEW_STARTING] = ATTENTION,
        [VIEW_HIDES] = ATTENTION,
    };

    return severities[condition];
}

enum health severity_worse(enum health one, enum health other)
{
    if (one == NOT_IN_USE || other == NOT_IN_USE)
        return one == NOT_IN_USE ? other : one;
    return one > other ? one : other;
}

/* SPDX-License-Identifier: MIT
 *
 * The mirror: the process that writes the store to the disk.  Each spool has one.  It runs as the spool's
 * owner.
 *
 * The happy path:
 *  - Drop to the owner.  Take the lock that says "the mirror lives", for life.  Recover a store that is RECOVERING.
 *  - Thread 1 commits, every flush interval or as soon as there is a waiter (committer.h).  Once a second it frees what
 *    dead processes had open, and gives empty memory back.
 *  - Thread 2 keeps a journal file ready, and makes a checkpoint when the journal has grown or aged, or when memory is
 *    wanted (checkpointer.h).  So no waiter waits for the database.
 *  - Thread 3 answers page-ins, and evicts (pager.h).
 *  - SIGTERM, or a request of `fastspool stop` in the segment: a last commit, a last checkpoint, and the end.
 *
 * Failure modes:
 *  - Another mirror holds the lock: exit 75, nothing done.  The lock is removed: alone.c.
 *  - The disk fails during recovery: recovery tries again every second.  A process that attaches gives up after ten
 *    seconds, with the reason.
 *  - The database is damaged: the store is marked FAILED with a sentence, which every process that attaches shows.
 *    Nothing on disk is touched.
 *  - LMDB reads a bad page (it follows its pages without checking them all): SIGSEGV, SIGBUS or SIGABRT.  In recovery
 *    this means that the database is damaged.  In a page-in or a checkpoint it ends this process, and the waiters get
 *    an error.  A SIGBUS in LMDB's lock file is no damage, but a disk without room (database_lacks_room()): the next
 *    mirror waits for that.
 *  - A commit fails: the waiters get the error, and the commit is tried again.
 *  - The lock of the store is not to be had, and the mirror is to end: it ends without the last commit.
 *  - This process may not write (a read-only view of the disk, a limit, missing rights, EIO) for GIVE_UP: it says so
 *    and ends, so that another process starts a mirror, which may be able to.
 *  - A checkpoint fails: syslog, and another try.  No waiter notices until the journal is full: then the checkpoint's
 *    error is the commits'.
 *  - The memory, the state directory or the spool is removed under it: one line, and the end.  What is in memory goes
 *    to the disk before, if that is there; the store is FAILED for those who have it mapped, since it can't be found
 *    again.
 *  - The process is killed, at any instant: the next mirror goes on from the segment and from the journal up to its
 *    durable mark.
 */
#include "mirror/process.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/futex.h"
#include "base/places.h"
#include "base/rights.h"
#include "fastspool.h"
#include "mirror/alone.h"
#include "mirror/capture.h"
#include "mirror/checkpointer.h"
#include "mirror/committer.h"
#include "mirror/compaction.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/journal_scan.h"
#include "mirror/pager.h"
#include "mirror/recovery.h"
#include "mirror/rescue.h"
#include "spool/attach.h"
#include "spool/loss.h"
#include "spool/memory.h"
#include "spool/owned.h"
#include "spool/presence.h"
#include "spool/state.h"
#include "store/blocks.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/orphans.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <syslog.h>
#include <unistd.h>

#define TIDY_EVERY  NS_PER_S
#define GIVE_UP     (5 * NS_PER_S)      /* of a mirror that may not write */
#define RETRY_EVERY (200 * NS_PER_MS)   /* after a commit that failed */
#define KEPT_EMPTY  (UINT64_C(8) << 20) /* empty memory that is kept for the next burst */

static volatile sig_atomic_t terminated;

static void on_term(int signal_number)
{
    (void)signal_number;
    terminated = 1;
}

/* Report an error: in syslog, and on standard error for a mirror that was started by hand. */
static int complain_once(const char *sentence)
{
    syslog(LOG_MAIL | LOG_ERR, "%s", sentence);
    fprintf(stderr, "fastspool: %s\n", sentence);
    return 1;
}

/* The same for an error that does not name the spool. */
static int complain(const char *spool, const char *error)
{
    char sentence[FASTSPOOL_PATH_MAX + SECTION_SENTENCE + sizeof(": ")];

    snprintf(sentence, sizeof(sentence), "%s: %s", spool, error);
    return complain_once(sentence);
}

/* The store has failed. */
static int complain_of_store(const struct fastspool *fs)
{
    char sentence[SECTION_SENTENCE];
    return complain(fs->spool, section_sentence(fs->header, sentence));
}

/* Errors that another process may not have, which lives in other surroundings. */
static bool is_of_this_process(int error)
{
    return error == -EROFS || error == -EACCES || error == -EPERM || error == -EFBIG || error == -EIO;
}

/* Of a try with this result: has this process been unable to write for GIVE_UP?  *@since: when that began, or 0. */
static bool gives_up(struct fastspool *fs, int result, uint64_t *since)
{
    char sentence[FASTSPOOL_ERROR_MAX];

    if (!is_of_this_process(result))
        *since = 0;
    else if (*since == 0)
        *since = clock_monotonic();
    if (*since == 0 || clock_monotonic() - *since < GIVE_UP)
        return false;
    snprintf(sentence, sizeof(sentence),
             "this mirror can't write to %.200s: %s; it ends, so that one in other surroundings may try", fs->state,
             strerrordesc_np(-result));
    if (committer_is_news(fs, result)) {
        complain(fs->spool, sentence);
        committer_gave_up(fs, result);
    }
    STORE(fs->header->tickets.commit_error, 0); /* those that come to wait now wait for the next mirror */
    return true;
}

/* ---- start ---- */

/* Become the spool's owner, for good.  A core dump of this process would have mails in it. */
static int become_owner(const char *spool, char error[FASTSPOOL_ERROR_MAX])
{
    struct stat st;

    if (stat(spool, &st) < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    int result = geteuid() == 0 ? rights_become(st.st_uid, st.st_gid) : rights_settle(geteuid());
    prctl(PR_SET_DUMPABLE, 0);
    return result < 0 ? error_set(error, result, "%s: become its owner for good: %s", spool, strerrordesc_np(-result))
                      : 0;
}

/* Has the mirror been asked to end? */
static bool is_ending(const struct fastspool *fs)
{
    return terminated || LOAD(fs->header->mirror.ending);
}

static void catch_term(void)
{
    struct sigaction action = {.sa_handler = on_term};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN); /* exiwhat takes this process for an Exim: the spool's path is in its command line */
    signal(SIGPIPE, SIG_IGN);
}

/* ---- what was removed ---- */

static enum loss lost;
static bool in_the_way;
static char lost_why[FASTSPOOL_ERROR_MAX];

/* A mirror without its store serves nobody, and would be in the way of a new one.  So does one that lives alone, when a
 * process waits for its end: it lives in another namespace, and can't reach the memory, or has started this mirror for
 * its own work. */
static void look_for_store(struct fastspool *fs)
{
    lost = loss_look(fs, lost_why);
    in_the_way = lost == LOSS_NOTHING && loss_is_in_the_way(fs);
    bool alone = alone_still(fs);
    if (lost == LOSS_NOTHING && !in_the_way && alone)
        return;
    if (!alone && lost == LOSS_NOTHING)
        complain(fs->spool,
                 "the lock of the mirror was removed or replaced: this mirror ends, and another one goes on");
    else if (in_the_way)
        syslog(LOG_MAIL | LOG_INFO, "%s: nobody uses the store any more: the mirror ends", fs->spool);
    else
        complain(fs->spool, lost_why);
    terminated = 1;
}

/* ---- recovery ---- */

static struct fastspool *served;

static void publish_state(struct fastspool *fs, uint32_t state, const char *failure)
{
    if (failure)
        section_failure(fs, failure);
    STORE(fs->header->state, state);
    futex_wake(&fs->header->state);
}

/* Not damage: the next mirror waits for room. */
static void tell_no_room(int error)
{
    if (LOAD(served->header->state) == SEGMENT_RECOVERING) {
        section_failure(served, "the database can't be written to: its disk has no room, or a quota is reached");
        STORE(served->header->recovery.error, error);
    } else {
        capture_fail(served, error);
    }
    _exit(1);
}

/* LMDB reads through a map, and follows its pages without checking them all: a damaged page may end here. */
static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    static const char failure[] = "the database is damaged: reading it ended in a fault";

    (void)context;
    int no_room = signal_number == SIGBUS ? database_lacks_room(info->si_addr) : 0;
    if (no_room)
        tell_no_room(no_room);
    if (LOAD(served->header->state) == SEGMENT_RECOVERING) {
        section_failure(served, failure);
        publish_state(served, SEGMENT_FAILED, NULL);
    } else {
        /* The next mirror fails this page-in instead of dying over the same page. */
        uint32_t reading = LOAD(served->header->residency.pagein_reading);
        STORE(served->header->residency.pagein_fatal, reading ? reading : PAGER_ALL);
        capture_fail(served, -EIO);
    }
    _exit(1);
}

static void catch_faults(struct fastspool *fs)
{
    const struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

    served = fs;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
}

/* Not damage: a disk that fails or is full may recover.  A process that attaches meanwhile shows why it waits. */
static void tell_failure(struct fastspool *fs, int error, const char *failure)
{
    if (LOAD(fs->header->recovery.error) == error)
        return;
    section_failure(fs, failure);
    STORE(fs->header->recovery.error, error);
    complain(fs->spool, failure);
}

/* Not all that was on the disk is there. */
static void tell_losses(const struct fastspool *fs, const struct recovered *recovered)
{
    if (recovered->journal_gone)
        syslog(LOG_MAIL | LOG_ERR,
               "%s: the journal is missing in %s: mail that was not yet in the database is not recovered", fs->spool,
               fs->state);
    if (recovered->missing)
        syslog(LOG_MAIL | LOG_ERR,
               "%s: the journal is damaged: in %llu place%s batches are missing between two others, first after batch "
               "%llu, where file %04u ends at byte %llu: %s",
               fs->spool, (unsigned long long)recovered->missing, recovered->missing == 1 ? "" : "s",
               (unsigned long long)recovered->hole_after, recovered->hole.file,
               (unsigned long long)recovered->hole.offset, journal_scan_reason(recovered->hole.reason));
}

/* If a part of the state is not this process's to open: which part, and what to do. */
static void explain_refusal(const struct fastspool *fs, int result, char error[FASTSPOOL_ERROR_MAX])
{
    struct stat st;

    bool is = result == -EACCES || result == -EPERM || result == -EISDIR || result == -ENOTDIR || result == -ELOOP;
    if (is && fstat(fs->spool_fd, &st) == 0)
        owned_check(fs->spool, &st, fs->state, NULL, error);
}

static int recover(struct fastspool *fs)
{
    struct recovered recovered;
    char error[FASTSPOOL_ERROR_MAX];
    uint64_t start = clock_monotonic(), since = 0;

    int result = recovery_run(fs, &recovered, error);
    while (result < 0 && result != -EBADMSG && !LOAD(fs->header->recovery.too_small) && !is_ending(fs)) {
        explain_refusal(fs, result, error);
        tell_failure(fs, result, error);
        if (gives_up(fs, result, &since))
            return 1;
        clock_sleep(NS_PER_S);
        look_for_store(fs);
        if (!is_ending(fs))
            result = recovery_run(fs, &recovered, error);
    }
    if (result < 0 && !is_ending(fs))
        publish_state(fs, SEGMENT_FAILED, error);
    if (result < 0)
        return complain(fs->spool, error);
    STORE(fs->header->recovery.error, 0);
    publish_state(fs, SEGMENT_READY, NULL);
    tell_losses(fs, &recovered);
    syslog(LOG_MAIL | LOG_INFO,
           "%s: recovered %llu message%s in %llu file%s, %llu batch%s of the journal, %llu bytes, in %.2f s", fs->spool,
           (unsigned long long)recovered.messages, recovered.messages == 1 ? "" : "s",
           (unsigned long long)recovered.files, recovered.files == 1 ? "" : "s", (unsigned long long)recovered.batches,
           recovered.batches == 1 ? "" : "es", (unsigned long long)recovered.bytes,
           (double)(clock_monotonic() - start) / 1e9);
    return 0;
}

/* ---- the first thread ---- */

static int tidy(struct fastspool *fs)
{
    int result = descriptions_reap(fs);

    if (result == 0)
        result = orphans_free(fs);
    if (result == 0)
        result = names_split_ahead(fs);
    if (result == 0)
        result = compaction_run(fs);
    return result == 0 ? blocks_give_back(fs, KEPT_EMPTY) : result;
}

/* For the day on which `state` is mistyped: note in the spool that this state holds mail, before the disk has it.  It
 * is forgotten at the end alone, as most queues are empty now and then. */
static void note_state(const struct fastspool *fs, bool *noted)
{
    bool holds = LOAD(fs->header->tree.files) > 0;
    int result = *noted || !holds ? 0 : state_remember(fs, true);

    if (result < 0)
        syslog(LOG_MAIL | LOG_WARNING, "%s: where its state is can't be noted in " PLACES_NOTE ": %s", fs->spool,
               strerrordesc_np(-result));
    *noted = *noted || holds;
}

static int commit_last(struct fastspool *fs, struct committer *committer)
{
    static const char failed[] = "the last commit failed: what was not on the disk is still in memory";

    if (lost == LOSS_STATE) {
        publish_state(fs, SEGMENT_FAILED, lost_why);
        memory_discard(fs);
        return 1;
    }
    if (lost == LOSS_MEMORY) {
        int result = committer_seal(committer, lost_why);
        return result < 0 ? complain(fs->spool, "the last commit failed: what was in memory alone is lost") : 1;
    }
    rescue_look(committer->checkpointer->journal, committer->checkpointer->database);
    if (committer_commit(committer) < 0)
        return complain(fs->spool, failed);
    if (LOAD(fs->header->tree.files) == 0)
        state_remember(fs, false);
    if (in_the_way)
        memory_discard(fs); /* all of it is on the disk, and whoever makes the next store can't reach it */
    return lost != LOSS_NOTHING;
}

/* Commit until the end, and tidy once a second. */
static int commit_until_term(struct fastspool *fs, struct committer *committer)
{
    const struct checkpointer *checkpointer = committer->checkpointer;
    uint64_t tidied = 0, since = 0;

    bool due = true, noted = false;
    while (!is_ending(fs)) {
        note_state(fs, &noted);
        int result = due ? committer_commit(committer) : 0;
        if (LOAD(fs->header->state) == SEGMENT_FAILED)
            return complain_of_store(fs);
        if (gives_up(fs, result, &since))
            return 1;
        if (clock_monotonic() - tidied >= TIDY_EVERY) {
            tidied = clock_monotonic();
            tidy(fs);
            rescue_look(checkpointer->journal, checkpointer->database);
            look_for_store(fs);
        } else if (presence_is_awaited(fs->presence_fd)) {
            look_for_store(fs); /* whoever waits need not wait for the second */
        }
        if (result < 0 && !is_ending(fs)) {
            look_for_store(fs); /* before anything is written to another's directory */
            clock_sleep(RETRY_EVERY);
        } else {
            due = committer_gather(committer, is_ending);
        }
    }
    return commit_last(fs, committer);
}

/* ---- all of it ---- */

/* Does the journal lead from the database's batch @held to the last durable one?  1: it does; 0: no; or -errno.  Where
 * the database has all that is nothing to go by, and what is written below the mount point of a disk is hidden later:
 * the directory is the one that was there, or it has files. */
static int leads_on(const struct journal_files *files, uint64_t held, uint64_t durable)
{
    const struct journal_scan scan = {.above = held, .upto = durable};
    struct journal_found found;

    if (held >= durable)
        return files->sure || files->count + files->spares > 0;
    int result = journal_scan(files->directory, &scan, &found);
    return result < 0 ? result : !found.detached && !found.missing && found.last == durable;
}

/* The disk lacks a part: may it be written anew?  @sure: it can't come back, for all that the database says. */
static int lack(struct journal *journal, const struct fastspool *fs, bool sure, char *error)
{
    journal_files_lose(&journal->pool);
    journal->pool.sure &= sure;
    return rescue_may(fs, journal) ? 0 : error_set(error, -ESTALE, RESCUE_WAITS, fs->state);
}

/* Does the disk hold what the dead mirror has acknowledged?  A journal or a database that was removed, or whose disk is
 * not mounted, does not.  A batch that is written there would follow nothing, and no recovery would read it.  If it
 * was surely removed, the first commit writes all of it anew. */
static int check_chain(struct journal *journal, const struct fastspool *fs, struct shared_database *shared, char *error)
{
    const struct header *h = fs->header;
    struct database *database;
    struct disk_meta meta;
    MDB_txn *transaction;
    uint64_t durable = LOAD(h->journal.durable);

    if (durable == 0) { /* nothing can be gone */
        journal_files_trust(&journal->pool);
        return 0;
    }
    int result = shared_database_enter(shared, &database, error);
    if (result == -ENODATA)
        return lack(journal, fs, false, error);
    if (result < 0)
        return 0; /* for the checkpoint, too */
    result = database_begin(database, &transaction, &meta, error);
    if (result == 0)
        mdb_txn_abort(transaction);
    shared_database_leave(shared, result < 0);
    if (result == 0)
        result = leads_on(&journal->pool, meta.batch, durable);
    if (result > 0)
        journal_files_trust(&journal->pool);
    if (result != 0) /* what can't be read now is for the checkpoint to say */
        return 0;
    /* else the database is another one */
    return lack(journal, fs, meta.batch > 0 || LOAD(h->residency.checkpointed) == 0, error);
}

/* The disk may fail now and recover later: try until it does, or until the end. */
static int open_journal(struct journal *journal, struct fastspool *fs, uint64_t limit, struct shared_database *shared)
{
    char error[FASTSPOOL_ERROR_MAX];
    uint64_t since = 0;
    int result;

    while (((result = journal_open(journal, fs, limit, error)) < 0 ||
            (result = check_chain(journal, fs, shared, error)) < 0) &&
           !is_ending(fs) && !gives_up(fs, result, &since)) {
        explain_refusal(fs, result, error);
        if (LOAD(fs->header->tickets.commit_error) != result && committer_is_news(fs, result))
            complain(fs->spool, error);
        capture_fail(fs, result);
        committer_beat(fs);
        journal_close(journal);
        look_for_store(fs);
        clock_sleep(RETRY_EVERY);
    }
    return result;
}

/* Commit beside the checkpointer until the end.  An exit status, or a negative errno where no thread could start. */
static int write_to_disk(struct fastspool *fs, struct checkpointer *c, uint64_t limit)
{
    int result = open_journal(c->journal, fs, limit, c->database);

    if (result < 0)
        return 1;
    journal_files_prepare(&c->journal->pool); /* on failure, the commit that needs the file reports it */
    result = checkpointer_start(c);
    if (result == 0) {
        struct committer committer;
        committer_init(&committer, fs, c);
        result = commit_until_term(fs, &committer);
        checkpointer_end(c);
        if (journal_files_lost(&c->journal->pool) && lost == LOSS_NOTHING && committer_commit(&committer) < 0)
            result = complain(fs->spool, "a part of the journal is gone: what the disk lacks is still in memory");
    }
    journal_close(c->journal);
    return result;
}

/* The next mirror may have what this one lacks: whoever waits starts it. */
static int complain_of_threads(const struct fastspool *fs, int error)
{
    char sentence[FASTSPOOL_ERROR_MAX];

    snprintf(sentence, sizeof(sentence),
             "the mirror can't start its threads: %s; let user %u have more processes (`ulimit -u`, LimitNPROC=, and "
             "pids.max or TasksMax= of the container), and a filter of system calls allow clone3",
             strerrordesc_np(-error), (unsigned)geteuid());
    return complain(fs->spool, sentence);
}

/* The pager starts first: what the database holds can be read even while the journal cannot be opened. */
static int run_threads(struct fastspool *fs, uint64_t limit)
{
    static struct journal journal;
    static struct shared_database shared;
    char path[PLACES_PATH_MAX];
    struct checkpointer c = {.fs = fs, .journal = &journal, .database = &shared};
    struct pager pager = {.fs = fs, .database = &shared, .want_checkpoint = checkpointer_want, .context = &c};

    places_in_state(fs->state, PLACES_DATABASE, path);
    shared_database_init(&shared, path);
    int result = pager_start(&pager);
    if (result == 0) {
        result = write_to_disk(fs, &c, limit);
        pager_end(&pager);
    }
    if (result < 0) {
        capture_fail(fs, result);
        result = complain_of_threads(fs, result);
    }
    shared_database_end(&shared);
    return result;
}

static int run(struct fastspool *fs, const struct process_options *options)
{
    int result = alone_begin(fs);

    if (result == -EWOULDBLOCK) {
        fprintf(stderr, "fastspool: %s: another mirror runs\n", fs->spool);
        return PROCESS_SECOND;
    }
    if (result < 0) {
        char error[FASTSPOOL_ERROR_MAX];
        error_set(error, result, "take the mirror's lock: %s", strerrordesc_np(-result));
        explain_refusal(fs, result, error);
        return complain(fs->spool, error);
    }
    STORE(fs->header->mirror.ending, 0);
    STORE(fs->header->mirror.starting, 0); /* if this mirror dies, another may be started at once */
    if (options->memory)
        segment_limit(fs->header, options->memory);
    fs->mirror = true;
    fs->is_ending = is_ending;
    STORE(fs->header->residency.pagein_reading, 0);
    catch_term();
    catch_faults(fs);
    if (LOAD(fs->header->state) == SEGMENT_RECOVERING && recover(fs) != 0)
        return 1;
    if (LOAD(fs->header->state) != SEGMENT_READY)
        return complain_of_store(fs);
    result = capture_reset(fs);
    if (result < 0)
        return complain(fs->spool, "take over from the previous mirror: failed");
    if (options->ready)
        options->ready(fs);
    return run_threads(fs, options->journal);
}

/* A sync that succeeds on no file is not the kernel's: a library's for the whole system (libeatmydata), or that of a
 * container that suppresses syncs by a filter. */
static bool sync_lies(void)
{
    return fdatasync(-1) == 0 || fsync(-1) == 0;
}

int process_run(const char *spool, const struct process_options *options)
{
    struct fastspool_config config = {.flush_interval = 100 * NS_PER_MS};
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX];

    openlog("fastspool", LOG_PID, LOG_MAIL);
    if (become_owner(spool, error) < 0)
        return complain_once(error);
    snprintf(config.state, sizeof(config.state), "%s", options->state ? options->state : "");
    if (sync_lies())
        return complain(spool,
                        "fsync is a lie in this process: it succeeds without a file. Nothing can be promised to be "
                        "on the disk. Keep libeatmydata out of /etc/ld.so.preload, and start the container without "
                        "the suppression of syncs");
    if (attach_open(spool, &config, &fs, error) < 0)
        return complain_once(error);
    int result = run(fs, options);
    fastspool_detach(fs);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * fastspool mirror: the process that writes the store to the disk.  One a spool, as the spool's owner.
 *
 * The happy path: drop to the owner, take the lock that says "the mirror lives" (for life), recover the store where it
 * is RECOVERING, then three threads.  The first commits, every flush interval or as soon as somebody waits: capture,
 * one batch to the journal, end; what comes meanwhile is the next batch.  Once a second it frees what the dead had open
 * and gives empty memory back.  The second keeps a journal file ready and makes checkpoints, when the journal has grown
 * or aged, or memory is wanted, so that nobody waits for the database.  The third brings evicted files back, and evicts
 * (pager.c).  SIGTERM: a last commit, a last checkpoint, and the end.
 *
 * Failure modes: another mirror holds the lock: exit 75, nothing done.  A disk that fails while it recovers: it tries
 * on, and who attaches gives up after ten seconds, with the reason.  A damaged database: the store is marked FAILED
 * with a sentence, which every process that attaches shows, and nothing on disk is touched.  (LMDB follows its pages
 * without checking them all: a fault while it reads is caught here and means the same; in a later checkpoint it is the
 * end of this process, and an error for who waits.)  A commit that fails is told
 * to the waiters, and tried again.  A checkpoint that fails is told to syslog and tried again; nobody waits for it
 * until the journal is full: then its error is the commits'.  The process may be killed at any instant, and the next
 * one goes on from what it finds in the segment and below the journal's durable mark.
 */
#include "base/clock.h"
#include "base/futex.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/compaction.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/pager.h"
#include "spool/attach.h"
#include "store/blocks.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/orphans.h"
#include "store/segment.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SECOND  75               /* EX_TEMPFAIL: another mirror runs */
#define LOCK_TRIES   50               /* a waiter's look at the lock holds it for an instant: */
#define LOCK_EVERY   (10 * NS_PER_MS) /* between two tries */
#define TIDY_EVERY   NS_PER_S
#define RETRY_EVERY  (200 * NS_PER_MS)   /* after a commit that failed */
#define BURST_MEMORY (UINT64_C(8) << 20) /* empty memory that is kept for the next burst */

/* Group commit, see gather(). */
#define FEW          8u
#define GATHER       16u               /* times the duration of a commit */
#define PATIENCE_MAX (100 * NS_PER_MS) /* a disk that stood still for once doesn't make everybody wait */
#define MOST_FADES   64u               /* commits */

static const char usage[] =
    "usage: fastspool mirror [--state DIR] [--memory BYTES] [--journal BYTES] SPOOL\n"
    "Writes the store of SPOOL to the disk; the library starts it by itself.  One runs a spool.\n"
    "  --memory BYTES   what the store may hold from now on (as it was made)\n"
    "  --journal BYTES  journal that waits before a checkpoint is made (67108864)\n"
    "Exit status: 0 after SIGTERM, 75 another one runs, 1 an error.\n";

static volatile sig_atomic_t terminated;

static void on_term(int signal_number)
{
    (void)signal_number;
    terminated = 1;
}

/* Say what went wrong: in syslog, and on standard error where somebody started it by hand. */
static int complain(const char *spool, const char *error)
{
    syslog(LOG_MAIL | LOG_ERR, "%s: %s", spool, error);
    return tool_error("%s: %s", spool, error);
}

/* ---- start ---- */

/* Become the spool's owner, for good. */
static int become_owner(const char *spool)
{
    struct stat st;

    if (stat(spool, &st) < 0)
        return -errno;
    if (geteuid() == 0 && (setgroups(1, &st.st_gid) < 0 || setresgid(st.st_gid, st.st_gid, st.st_gid) < 0 ||
                           setresuid(st.st_uid, st.st_uid, st.st_uid) < 0))
        return -errno;
    return 0;
}

/* The lock is the mirror's life: never closed. */
static int take_lock(const struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];

    places_in_state(fs->state, PLACES_MIRROR_LOCK, path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EROFS) /* a disk that failed: the commits will say so */
        fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == LOCK_TRIES)
            return -errno;
        clock_sleep(LOCK_EVERY);
    }
    return 0;
}

static void catch_term(void)
{
    struct sigaction action = {.sa_handler = on_term};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- recovery ---- */

static struct fastspool *served;

static void publish_state(struct fastspool *fs, uint32_t state, const char *failure)
{
    if (failure)
        snprintf(fs->header->failure, sizeof(fs->header->failure), "%.255s", failure);
    STORE(fs->header->state, state);
    futex_wake(&fs->header->state);
}

/* LMDB reads through a map, and follows its pages without checking them all. */
static void on_fault(int signal_number)
{
    static const char failure[] = "the database is damaged: reading it ended in a fault";

    (void)signal_number;
    if (LOAD(served->header->state) == SEGMENT_RECOVERING) {
        memcpy(served->header->failure, failure, sizeof(failure));
        publish_state(served, SEGMENT_FAILED, NULL);
    } else {
        /* So that nobody waits for a mirror that falls over the same page each time. */
        uint32_t reading = LOAD(served->header->residency.pagein_reading);
        STORE(served->header->residency.pagein_fatal, reading ? reading : PAGER_ALL);
        capture_fail(served, -EIO);
    }
    _exit(1);
}

static void catch_faults(struct fastspool *fs)
{
    served = fs;
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    signal(SIGABRT, on_fault);
}

/* Not damage: a disk that fails or is full may be well in a moment.  Meanwhile who attaches is told why it waits. */
static void tell_failure(struct fastspool *fs, int code, const char *failure)
{
    if (LOAD(fs->header->recovery.error) == code)
        return;
    snprintf(fs->header->failure, sizeof(fs->header->failure), "%.255s", failure);
    STORE(fs->header->recovery.error, code);
    complain(fs->spool, failure);
}

static int recover(struct fastspool *fs)
{
    struct recovered recovered;
    char error[FASTSPOOL_ERROR_MAX];
    uint64_t start = clock_monotonic();

    int result = recovery_run(fs, &recovered, error);
    while (result < 0 && result != -EBADMSG && !LOAD(fs->header->recovery.too_small) && !terminated) {
        tell_failure(fs, result, error);
        clock_sleep(NS_PER_S);
        result = recovery_run(fs, &recovered, error);
    }
    if (result < 0 && !terminated)
        publish_state(fs, SEGMENT_FAILED, error);
    if (result < 0)
        return complain(fs->spool, error);
    STORE(fs->header->recovery.error, 0);
    publish_state(fs, SEGMENT_READY, NULL);
    if (recovered.missing)
        syslog(LOG_MAIL | LOG_ERR, "%s: the journal is damaged: in %llu places batches are missing between two others",
               fs->spool, (unsigned long long)recovered.missing);
    syslog(LOG_MAIL | LOG_INFO,
           "%s: recovered %llu messages in %llu files, %llu batches of the journal, %llu bytes, in %.2f s", fs->spool,
           (unsigned long long)recovered.messages, (unsigned long long)recovered.files,
           (unsigned long long)recovered.batches, (unsigned long long)recovered.bytes,
           (double)(clock_monotonic() - start) / 1e9);
    return 0;
}

/* ---- the second thread: files ahead, checkpoints ---- */

struct checkpointer {
    struct fastspool *fs;
    struct journal *journal;
    struct shared_database *database;
    uint32_t ready; /* the journal is open, and the thread runs; atomic */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;   /* something may be to do */
    pthread_cond_t done;   /* a checkpoint ended */
    bool ending;           /* make the last one */
    int error;             /* of the last checkpoint: 0 or a negative errno */
    unsigned begun, ended; /* checkpoints */
};

static int try_checkpoint(struct checkpointer *c, bool turn_over, char error[FASTSPOOL_ERROR_MAX])
{
    struct database *database;
    int result = shared_database_enter(c->database, &database, error);

    if (result < 0)
        return result;
    if (turn_over)
        result = database_turn_over(database, error);
    if (result == 0)
        result = checkpoint_run(database, c->journal, error);
    shared_database_leave(c->database, result < 0);
    return result;
}

static void checkpoint(struct checkpointer *c)
{
    char error[FASTSPOOL_ERROR_MAX];

    pthread_mutex_lock(&c->mutex);
    c->begun++;
    pthread_mutex_unlock(&c->mutex);
    int result = try_checkpoint(c, false, error);
    if (result == -ENOSPC || result == -EIO) /* LMDB calls a write that a full disk cut short EIO */
        result = try_checkpoint(c, true, error);
    if (result == -EBADMSG)
        result = -EIO; /* for an fsync, damage is that */
    pthread_mutex_lock(&c->mutex);
    if (result < 0 && c->error != result)
        syslog(LOG_MAIL | LOG_ERR, "%s: checkpoint: %s", c->fs->spool, error);
    if (result == 0 && c->error)
        syslog(LOG_MAIL | LOG_NOTICE, "%s: checkpoints succeed again", c->fs->spool);
    c->error = result;
    STORE(c->fs->header->disk.checkpoint_error, result);
    c->ended = c->begun;
    pthread_cond_broadcast(&c->done);
    pthread_mutex_unlock(&c->mutex);
}

static void *run_checkpointer(void *argument)
{
    struct checkpointer *c = argument;
    bool ending = false;

    while (!ending) {
        struct timespec until;
        journal_prepare(c->journal); /* where it fails, the commit that needs the file says so */
        pthread_mutex_lock(&c->mutex);
        pthread_cond_broadcast(&c->done); /* a file may have come without a checkpoint, and then none is due */
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        int timeout = journal_due(c->journal) && c->error == 0 ? ETIMEDOUT : 0;
        do /* after an error a second passes, whoever wants a checkpoint */
            timeout = timeout || c->ending ? ETIMEDOUT : pthread_cond_timedwait(&c->wake, &c->mutex, &until);
        while (timeout == 0 && c->error && !c->ending);
        ending = c->ending;
        pthread_mutex_unlock(&c->mutex);
        if (ending || journal_due(c->journal))
            checkpoint(c);
    }
    return NULL;
}

static int start_checkpointer(struct checkpointer *c)
{
    sigset_t ending, old;

    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->wake, NULL);
    pthread_cond_init(&c->done, NULL);
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    pthread_sigmask(SIG_SETMASK, &ending, &old); /* they are for the first thread; faults are everybody's */
    int error = pthread_create(&c->thread, NULL, run_checkpointer, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

static void wake_checkpointer(struct checkpointer *c, bool ending)
{
    pthread_mutex_lock(&c->mutex);
    c->ending = ending;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mutex);
}

/* The journal is full: wait for the checkpoint that makes room.  Its error is why nothing can be committed. */
static int wait_for_room(struct checkpointer *c)
{
    pthread_mutex_lock(&c->mutex);
    while (journal_full(c->journal) && c->error == 0)
        pthread_cond_wait(&c->done, &c->mutex);
    int result = journal_full(c->journal) ? c->error : 0;
    pthread_mutex_unlock(&c->mutex);
    return result;
}

/* No room for another file: the checkpoint that gives some back, where one can be expected to. */
static int wait_for_files(struct checkpointer *c)
{
    pthread_mutex_lock(&c->mutex);
    unsigned next = c->begun + 1;
    pthread_cond_signal(&c->wake);
    while (c->error == 0 && c->ended < next && (c->begun != c->ended || journal_due(c->journal)))
        pthread_cond_wait(&c->done, &c->mutex);
    int result = c->error;
    pthread_mutex_unlock(&c->mutex);
    return result;
}

/* ---- the first thread: commits ---- */

/* One commit.  0: it is on the disk, or nothing was dirty. */
static int commit(struct fastspool *fs, struct checkpointer *c)
{
    struct capture capture;
    char error[FASTSPOOL_ERROR_MAX] = "the journal is full, and no checkpoint can be made";
    int room = wait_for_room(c);
    int result = capture_take(fs, &capture);

    if (result < 0)
        capture_fail(fs, result);
    if (result < 0 || capture.count == 0)
        return result;
    uint64_t start = clock_precise();
    result = room < 0 ? room : journal_append(c->journal, &capture, error);
    if (result == -ENOSPC && wait_for_files(c) == 0)
        result = journal_append(c->journal, &capture, error);
    if (result < 0 && LOAD(fs->header->tickets.commit_error) != result)
        syslog(LOG_MAIL | LOG_ERR, "%s: commit: %s", fs->spool, error);
    if (result == 0 && LOAD(fs->header->tickets.commit_error))
        syslog(LOG_MAIL | LOG_NOTICE, "%s: commits succeed again", fs->spool);
    int ended = capture_end(fs, &capture, result, clock_precise() - start);
    if (journal_wants(c->journal))
        wake_checkpointer(c, false);
    return result < 0 ? result : ended;
}

/* Sleep for @duration, or until somebody waits for a commit, or SIGTERM. */
static void doze(struct fastspool *fs, uint32_t wanted, uint64_t duration)
{
    futex_wait(&fs->header->mirror.wanted, wanted, duration);
}

/* Who waits for commits: header.mirror.wanted counts them as they come. */
struct rhythm {
    uint32_t captured; /* the count when the last capture was taken */
    uint32_t known;    /* who waited for it, or came while it was written */
    uint32_t most;     /* the most there were lately: one less after every MOST_FADES commits */
    uint32_t commits;
    uint64_t duration; /* of a commit: a moving mean over 32 of them, ns */
};

static void keep_rhythm(struct rhythm *rhythm, uint32_t before, uint32_t after, uint64_t duration)
{
    rhythm->known = after - rhythm->captured;
    rhythm->captured = before;
    if (++rhythm->commits % MOST_FADES == 0 && rhythm->most > 0)
        rhythm->most--;
    if (rhythm->known > rhythm->most)
        rhythm->most = rhythm->known;
    rhythm->duration += duration / 32 - rhythm->duration / 32;
}

/* How many waiters make a commit worth its while: all that are about where they are few; half of them where they are
 * many, so that the others keep the processors busy while the disk writes. */
static uint32_t enough(const struct rhythm *rhythm)
{
    uint32_t few = rhythm->known < FEW ? rhythm->known : FEW;
    return few > rhythm->most / 2 ? few : rhythm->most / 2;
}

/* Group commit: go on when somebody waits and the others that are about had their chance to join, for GATHER times what
 * a commit takes.  Where nobody waits, when the flush interval is over.
 *
 * Measured on a disk of 200 write operations a second (acked, messages/s, without and with this): 8 connections 148 and
 * 666, 32 connections 394 and 1,078, the latter with half of them; waiting for all 32 gave 830. */
static void gather(struct fastspool *fs, const struct rhythm *rhythm)
{
    const uint64_t patience = rhythm->duration * GATHER < PATIENCE_MAX ? rhythm->duration * GATHER : PATIENCE_MAX;
    uint64_t start = 0;

    if (LOAD(fs->header->mirror.wanted) == rhythm->captured)
        doze(fs, rhythm->captured, fs->header->flush_interval);
    while (!terminated) {
        uint32_t wanted = LOAD(fs->header->mirror.wanted), waiting = wanted - rhythm->captured;
        uint64_t now = clock_precise();
        start = start ? start : now;
        if (waiting == 0 || waiting >= enough(rhythm) || now - start >= patience)
            return;
        doze(fs, wanted, patience - (now - start));
    }
}

static int tidy(struct fastspool *fs)
{
    int result = descriptions_reap(fs);

    if (result == 0)
        result = orphans_free(fs);
    if (result == 0)
        result = names_split_ahead(fs);
    if (result == 0)
        result = compaction_run(fs);
    return result == 0 ? blocks_give_back(fs, BURST_MEMORY) : result;
}

static int serve(struct fastspool *fs, struct checkpointer *c)
{
    struct rhythm rhythm = {.captured = LOAD(fs->header->mirror.wanted)};
    uint64_t tidied = 0;
    int result = 0;

    while (!terminated) {
        uint32_t before = LOAD(fs->header->mirror.wanted);
        uint64_t start = clock_precise();
        result = commit(fs, c);
        keep_rhythm(&rhythm, before, LOAD(fs->header->mirror.wanted), clock_precise() - start);
        if (LOAD(fs->header->state) == SEGMENT_FAILED)
            return complain(fs->spool, fs->header->failure);
        if (clock_monotonic() - tidied >= TIDY_EVERY) {
            tidied = clock_monotonic();
            tidy(fs);
        }
        if (result < 0)
            clock_sleep(RETRY_EVERY);
        else
            gather(fs, &rhythm);
    }
    result = commit(fs, c);
    return result < 0 ? complain(fs->spool, "the last commit failed: what was not on the disk is still in memory") : 0;
}

/* ---- all of it ---- */

/* A disk that fails now may be well later. */
static int open_journal(struct journal *journal, struct fastspool *fs, uint64_t limit)
{
    char error[FASTSPOOL_ERROR_MAX];
    int result;

    while ((result = journal_open(journal, fs, limit, error)) < 0 && !terminated) {
        if (LOAD(fs->header->tickets.commit_error) != result)
            complain(fs->spool, error);
        capture_fail(fs, result);
        journal_close(journal);
        clock_sleep(RETRY_EVERY);
    }
    return result;
}

/* The pager finds files that could be evicted but for their checkpoint. */
static void want_checkpoint(void *context)
{
    struct checkpointer *c = context;

    if (!LOAD(c->ready))
        return;
    journal_want_checkpoint(c->journal);
    wake_checkpointer(c, false);
}

/* Commit, beside the checkpointer, until SIGTERM. */
static int write_to_disk(struct fastspool *fs, struct checkpointer *c, uint64_t limit)
{
    int result = open_journal(c->journal, fs, limit);

    if (result < 0)
        return 1;
    journal_prepare(c->journal); /* where it fails, the commit that needs the file says so */
    result = start_checkpointer(c);
    if (result == 0) {
        STORE(c->ready, 1);
        result = serve(fs, c);
        STORE(c->ready, 0);
        wake_checkpointer(c, true);
        pthread_join(c->thread, NULL);
    }
    journal_close(c->journal);
    return result;
}

/* The pager comes first: what is in the database can be read, also while the journal can't be opened. */
static int serve_all(struct fastspool *fs, uint64_t limit)
{
    static struct journal journal;
    static struct shared_database shared;
    char path[PLACES_PATH_MAX];
    struct checkpointer c = {.fs = fs, .journal = &journal, .database = &shared};
    struct pager pager = {.fs = fs, .database = &shared, .want_checkpoint = want_checkpoint, .context = &c};

    places_in_state(fs->state, PLACES_DATABASE, path);
    shared_database_init(&shared, path);
    int result = pager_start(&pager);
    if (result == 0) {
        result = write_to_disk(fs, &c, limit);
        pager_end(&pager);
    }
    if (result < 0) {
        capture_fail(fs, result);
        result = complain(fs->spool, "start the mirror's threads: failed");
    }
    shared_database_end(&shared);
    return result;
}

static int run(struct fastspool *fs, uint64_t limit, uint64_t memory)
{
    int result = take_lock(fs);

    if (result == -EWOULDBLOCK) {
        tool_error("%s: another mirror runs", fs->spool);
        return EXIT_SECOND;
    }
    if (result < 0)
        return complain(fs->spool, "take the mirror's lock: failed");
    STORE(fs->header->mirror.pid, getpid());
    STORE(fs->header->mirror.starting, 0); /* should this one die, another may be started at once */
    if (memory)
        segment_limit(fs->header, memory);
    fs->mirror = true;
    STORE(fs->header->residency.pagein_reading, 0);
    catch_term();
    catch_faults(fs);
    if (LOAD(fs->header->state) == SEGMENT_RECOVERING && recover(fs) != 0)
        return 1;
    if (LOAD(fs->header->state) != SEGMENT_READY)
        return complain(fs->spool, fs->header->failure);
    result = capture_reset(fs);
    result = result < 0 ? complain(fs->spool, "take over from the mirror before: failed") : serve_all(fs, limit);
    STORE(fs->header->mirror.pid, 0);
    return result;
}

int tool_mirror(int argc, char **argv)
{
    static const struct option options[] = {{"state", required_argument, NULL, 's'},
                                            {"memory", required_argument, NULL, 'm'},
                                            {"journal", required_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct fastspool_config config = {.flush_interval = 100 * NS_PER_MS};
    uint64_t limit = JOURNAL_BYTES, memory = 0;
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX];

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's' && strlen(optarg) < sizeof(config.state)) {
            strcpy(config.state, optarg);
        } else if (option == 'm') {
            memory = strtoull(optarg, NULL, 10);
        } else if (option == 'j' && (limit = strtoull(optarg, NULL, 10)) > 0) {
            continue;
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (optind != argc - 1) {
        fputs(usage, stderr);
        return 2;
    }
    const char *spool = argv[optind];
    openlog("fastspool", LOG_PID, LOG_MAIL);
    int result = become_owner(spool);
    if (result < 0)
        return tool_error("become the owner of %s: %s", spool, strerrordesc_np(-result));
    if (attach_open(spool, &config, &fs, error) < 0)
        return complain(spool, error);
    result = run(fs, limit, memory);
    fastspool_detach(fs);
    return result;
}

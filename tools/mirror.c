/* SPDX-License-Identifier: MIT
 *
 * fastspool mirror: the process that writes the store to the disk.  One a spool, as the spool's owner.
 *
 * The happy path: drop to the owner, take the lock that says "the mirror lives" (for life), recover the store where it
 * is RECOVERING, then, every flush interval or as soon as somebody waits: capture, write, end.  Once a second it frees
 * what the dead had open and gives empty memory back.  SIGTERM: flush, and end.
 *
 * Failure modes: another mirror holds the lock: exit 75, nothing done.  A damaged database: the store is marked FAILED
 * with a sentence, which every process that attaches shows, and nothing on disk is touched.  (LMDB follows its pages
 * without checking them all: a fault while it reads is caught here and means the same.)  A commit that fails is told
 * to the waiters, and tried again; it may be killed at any instant, and the next one goes on.
 */
#include "tool.h"

#include "mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SECOND    75                    /* EX_TEMPFAIL: another mirror runs */
#define TIDY_EVERY     UINT64_C(1000000000)  /* ns */
#define RETRY_EVERY    UINT64_C(1000000000)  /* ns after a commit that failed */
#define RESERVE        (UINT64_C(8) << 20)   /* empty memory that is kept for the next burst */

static const char usage[] =
    "usage: fastspool mirror [--state DIR] SPOOL\n"
    "Writes the store of SPOOL to the disk; the library starts it by itself.  One runs a spool.\n"
    "Exit status: 0 after SIGTERM, 75 another one runs, 1 an error.\n";

static volatile sig_atomic_t terminated;

static void on_term(int signal_number)
{
    (void)signal_number;
    terminated = 1;
}

/* Errors go to syslog, and to standard error where somebody started it by hand. */
static int give_up(const char *spool, const char *error)
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
    char path[FASTSPOOL_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/mirror.lock", fs->state);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
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

static struct fastspool *recovering;

static void publish_state(struct fastspool *fs, uint32_t state, const char *failure)
{
    if (failure)
        snprintf(fs->header->failure, sizeof(fs->header->failure), "%s", failure);
    STORE(fs->header->state, state);
    syscall(SYS_futex, &fs->header->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void on_fault(int signal_number)
{
    static const char failure[] = "the database is damaged: reading it ended in a fault";

    memcpy(recovering->header->failure, failure, sizeof(failure));
    publish_state(recovering, SEGMENT_FAILED, NULL);
    (void)signal_number;
    _exit(1);
}

static void catch_faults(void (*handler)(int))
{
    signal(SIGSEGV, handler);
    signal(SIGBUS, handler);
    signal(SIGABRT, handler);
}

static int recover(struct fastspool *fs, const char *database)
{
    struct recovered recovered;
    char error[FASTSPOOL_ERROR_MAX] = "";
    uint64_t start = segment_monotonic();

    recovering = fs;
    catch_faults(on_fault);
    int result = recovery_run(fs, database, &recovered, error);
    catch_faults(SIG_DFL);
    if (result < 0) {
        publish_state(fs, SEGMENT_FAILED, error);
        return give_up(fs->spool, error);
    }
    publish_state(fs, SEGMENT_READY, NULL);
    syslog(LOG_MAIL | LOG_INFO, "%s: recovered %llu files, %llu bytes, in %.2f s", fs->spool,
           (unsigned long long)recovered.files, (unsigned long long)recovered.bytes,
           (double)(segment_monotonic() - start) / 1e9);
    return 0;
}

/* ---- the loop ---- */

/* One commit.  0: it is on the disk, or nothing was dirty. */
static int commit(struct fastspool *fs, struct mirror *mirror)
{
    struct capture capture;
    struct timespec start, end;
    char error[FASTSPOOL_ERROR_MAX];
    int result = commit_capture(fs, &capture);

    if (result < 0 || capture.count == 0)
        return result;
    clock_gettime(CLOCK_MONOTONIC, &start);
    result = mirror_apply(mirror, fs, &capture, error);
    clock_gettime(CLOCK_MONOTONIC, &end);
    int64_t duration = (end.tv_sec - start.tv_sec) * INT64_C(1000000000) + (end.tv_nsec - start.tv_nsec);
    if (result < 0 && LOAD(fs->header->commit_error) != -result)
        syslog(LOG_MAIL | LOG_ERR, "%s: commit: %s", fs->spool, error);
    if (result == 0 && LOAD(fs->header->commit_error))
        syslog(LOG_MAIL | LOG_NOTICE, "%s: commits succeed again", fs->spool);
    int ended = commit_end(fs, &capture, -result, (uint64_t)duration);
    return result < 0 ? result : ended;
}

/* Sleep for @duration, or until somebody waits for a commit, or SIGTERM. */
static void doze(struct fastspool *fs, uint32_t wanted, uint64_t duration)
{
    const struct timespec timeout = {(time_t)(duration / UINT64_C(1000000000)),
                                     (long)(duration % UINT64_C(1000000000))};

    syscall(SYS_futex, &fs->header->mirror_wanted, FUTEX_WAIT, wanted, &timeout, NULL, 0);
}

static int tidy(struct fastspool *fs)
{
    int result = descriptions_reap(fs);

    if (result == 0)
        result = inodes_free_orphans(fs);
    return result == 0 ? blocks_give_back(fs, RESERVE) : result;
}

static int serve(struct fastspool *fs, struct mirror *mirror)
{
    uint64_t tidied = 0;
    int result = 0;

    while (!terminated) {
        uint32_t wanted = LOAD(fs->header->mirror_wanted);
        result = commit(fs, mirror);
        if (LOAD(fs->header->state) == SEGMENT_FAILED)
            return give_up(fs->spool, fs->header->failure);
        if (segment_monotonic() - tidied >= TIDY_EVERY) {
            tidied = segment_monotonic();
            tidy(fs);
        }
        if (result < 0)
            usleep(RETRY_EVERY / 1000);
        else if (!terminated)
            doze(fs, wanted, fs->header->flush_interval);
    }
    result = commit(fs, mirror);
    return result < 0 ? give_up(fs->spool, "the last commit failed: what was not on the disk is still in memory") : 0;
}

static int run(struct fastspool *fs)
{
    char database[FASTSPOOL_PATH_MAX + 16], error[FASTSPOOL_ERROR_MAX];
    struct mirror mirror;
    int result = take_lock(fs);

    if (result == -EWOULDBLOCK) {
        tool_error("%s: another mirror runs", fs->spool);
        return EXIT_SECOND;
    }
    if (result < 0)
        return give_up(fs->spool, "take the mirror's lock: failed");
    STORE(fs->header->mirror_pid, getpid());
    catch_term();
    snprintf(database, sizeof(database), "%s/mirror", fs->state);
    if (LOAD(fs->header->state) == SEGMENT_RECOVERING && recover(fs, database) != 0)
        return 1;
    if (LOAD(fs->header->state) != SEGMENT_READY)
        return give_up(fs->spool, fs->header->failure);
    result = commit_reset(fs);
    if (result == 0)
        result = mirror_open(&mirror, database, true, error);
    if (result < 0) {
        STORE(fs->header->commit_error, -result);
        return give_up(fs->spool, error);
    }
    result = serve(fs, &mirror);
    mirror_close(&mirror);
    STORE(fs->header->mirror_pid, 0);
    return result;
}

int tool_mirror(int argc, char **argv)
{
    static const struct option options[] = {
        {"state", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct fastspool_config config = {.flush_interval = 100000000};
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX];

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's' && strlen(optarg) < sizeof(config.state)) {
            strcpy(config.state, optarg);
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
        return give_up(spool, error);
    result = run(fs);
    fastspool_detach(fs);
    return result;
}

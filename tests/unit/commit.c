/* SPDX-License-Identifier: MIT
 *
 * Commit, journal and checkpoint: what a capture holds, what is dirty afterwards, and which fsync waits.  A recovery
 * restores the store as it was at the last commit, whatever happens after it or to the mirror.
 */
#include "../asleep.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/guard.h"
#include "base/places.h"
#include "durable.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/checkpointer.h"
#include "mirror/committer.h"
#include "mirror/database.h"
#include "mirror/ends.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/recovery.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/span.h"
#include "store/store.h"
#include "store/tickets.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

TestSuite(commit, .init = durable_setup, .fini = durable_teardown);

/* A recovery fails with EBADMSG and a message that has @why in it. */
static void refused(const char *why)
{
    struct fastspool *second = second_store();
    struct recovered recovered;

    cr_assert_eq(recovery_run(second, &recovered, error), -EBADMSG);
    cr_assert_not_null(strstr(error, why), "the message is: %s", error);
    remove_second(second);
}

/* A recovery restores sizes around slices and blocks, holes, hard links, names of 255 bytes, times and owners. */
Test(commit, everything_comes_back)
{
    static const size_t sizes[] = {0, 1, 4071, 4072, 4073, 4095, 4096, 4097, 8143, 8144, 8145, 16384, 65537};
    static char bytes[70000];
    char path[300];

    memset(bytes, 'b', sizeof(bytes));
    cr_assert_eq(fastspool_mkdir(fs, "input", 02750), 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        snprintf(path, sizeof(path), "input/%zu", sizes[i]);
        put(path, 0, bytes, sizes[i], 0);
    }
    put("input/hole", 0, "end", 3, 100000);
    cr_assert_eq(fastspool_truncate(fs, "input/1", 50000), 0);
    cr_assert_eq(fastspool_link(fs, "input/hole", "second"), 0);
    strcpy(path, "input/");
    memset(path + 6, 'l', 255);
    path[261] = '\0';
    put(path, 0, "x", 1, 0);
    const struct timespec times[2] = {{123456789, 987654321}, {1000000000, 1}};
    cr_assert_eq(fastspool_utimens(fs, "input/4096", times), 0);
    if (geteuid() == 0)
        cr_assert_eq(fastspool_chown(fs, "input/4097", 1234, 5678), 0);
    commit(0);
    recovers(dump_all(fs, then_dump));
}

static void belongs_to(struct fastspool *store, const char *path, uid_t uid, gid_t gid)
{
    struct stat st;

    cr_assert_eq(fastspool_stat(store, path, &st), 0);
    cr_assert(st.st_uid == uid && st.st_gid == gid, "%s is %u:%u's", path, st.st_uid, st.st_gid);
}

/* The spool was given to another user, as where it is restored on another machine.  His are all files of the owner
 * before, on the disk, too, and nobody else's.  Once: what he gives away later stays so. */
Test(commit, another_owner)
{
    struct recovered recovered;

    if (geteuid() != 0)
        return;
    static const char *const paths[] = {"", "input", "input/own", "input/root", "input/group", "input/user"};
    static const unsigned before[][2] = {{1001, 1002}, {1001, 1002}, {1001, 1002}, {0, 0}, {50, 1002}, {1001, 50}};
    static const unsigned after[][2] = {{2001, 2002}, {2001, 2002}, {2001, 2002}, {0, 0}, {50, 2002}, {2001, 50}};
    fastspool_mkdir(fs, "input", 0750);
    for (int i = 0; i < 6; i++) {
        if (i > 1)
            put(paths[i], 0, "content", 7, 0);
        cr_assert_eq(fastspool_chown(fs, paths[i], before[i][0], before[i][1]), 0);
    }
    commit(0);
    checkpoint();
    put("input/late", 0, "content", 7, 0);
    cr_assert_eq(fastspool_chown(fs, "input/late", 1001, 1002), 0);
    commit(0); /* in the journal alone */
    cr_assert_eq(fchown(fs->spool_fd, 2001, 2002), 0);
    for (int again = 0; again < 2; again++) {
        struct fastspool *second = second_store();
        cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
        STORE(second->header->state, SEGMENT_READY);
        for (int i = 0; i < 6; i++)
            belongs_to(second, paths[i], after[i][0], after[i][1]);
        belongs_to(second, "input/late", 2001, 2002);
        cr_assert_eq(second->header->tickets.dirty_files, 0);
        remove_second(second);
    }
}

/* A recovery that begins anew counts anew, for the bar that is shown to whoever waits. */
Test(commit, recovery_counts_anew)
{
    struct fastspool *second = second_store();
    struct recovered recovered;

    put("f", 0, "content", 7, 0);
    commit(0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
        cr_assert_eq(second->header->recovery.total, 6); /* two inodes, looked at three times */
        cr_assert_eq(second->header->recovery.done, 6);
    }
    cr_assert_eq(segment_reset(second), 0);
    cr_assert_eq(second->header->recovery.done, 0);
    remove_second(second);
}

/* A journal file with a head of another version, or a damaged one, may hold mail: a recovery says so and fails, and a
 * mirror neither removes the file nor uses it again. */
Test(commit, foreign_journal_file)
{
    static const struct {
        off_t at;
        const char *words;
    } damages[] = {{0, "its magic number differs"}, {16, "the checksum of the head differs"}};

    put("f", 0, "content", 7, 0);
    commit(0);
    for (size_t i = 0; i < sizeof(damages) / sizeof(*damages); i++) {
        char path[PLACES_PATH_MAX];
        struct journal other;
        struct stat st;
        unsigned char byte;

        snprintf(path, sizeof(path), "%s/journal/%04u", fs->state, journal.pool.file[journal.pool.count - 1].name);
        int file = open(path, O_RDWR);
        cr_assert_eq(pread(file, &byte, 1, damages[i].at), 1);
        byte ^= 1;
        cr_assert_eq(pwrite(file, &byte, 1, damages[i].at), 1);
        struct fastspool *second = second_store();
        struct recovered recovered;
        cr_assert_eq(recovery_run(second, &recovered, error), -EBADMSG, "%s", damages[i].words);
        cr_assert_not_null(strstr(error, damages[i].words), "it says %s", error);
        remove_second(second);
        cr_assert_eq(journal_open(&other, fs, JOURNAL_LIMIT, error), 0, "%s", error);
        cr_assert_eq(other.pool.spares, 0, "the file would be used again");
        journal_close(&other);
        cr_assert_eq(stat(path, &st), 0, "the file was removed");
        byte ^= 1;
        cr_assert_eq(pwrite(file, &byte, 1, damages[i].at), 1);
        close(file);
    }
    recovers(dump_all(fs, then_dump));
}

static struct fastspool *guarded;

static void allow(int protection)
{
    struct span_part parts[SPAN_PARTS];
    size_t from = (DESCRIPTIONS_AT + BLOCK_SIZE) & ~(size_t)(BLOCK_SIZE - 1);

    span_parts(guarded, parts);
    parts[0] = (struct span_part){from, parts[0].size - from};
    for (unsigned i = 0; i < SPAN_PARTS - 1; i++) { /* all but the data */
        if (mprotect(&WRITABLE(guarded->base[parts[i].at]), parts[i].size, protection) < 0)
            abort();
    }
}

static void sections_write(void)
{
    allow(PROT_READ | PROT_WRITE);
}

static void nobody_writes(void)
{
    allow(PROT_READ);
}

/* A recovery changes descriptions, buckets, inodes and names only in sections.  Outside they are read-only here, and a
 * write kills the test. */
Test(commit, recovery_keeps_to_sections)
{
    struct recovered recovered;

    fastspool_mkdir(fs, "input", 0750);
    put("input/f", 0, "content", 7, 0);
    put("input/gone", 0, "content", 7, 0);
    commit(0);
    checkpoint();
    fastspool_unlink(fs, "input/gone");
    commit(0);
    guarded = second_store();
    section_guard = (struct section_guard){sections_write, nobody_writes};
    nobody_writes();
    cr_assert_eq(recovery_run(guarded, &recovered, error), 0, "%s", error);
    section_guard = (struct section_guard){NULL, NULL};
    sections_write();
    cr_assert_eq(recovered.files, 1);
    remove_second(guarded);
}

/* A file that is created and unlinked between two commits is in no capture. */
Test(commit, short_lives)
{
    commit(0);
    put("f", 0, "x", 1, 0);
    cr_assert_eq(fastspool_unlink(fs, "f"), 0);
    struct capture capture;
    cr_assert_eq(capture_take(fs, &capture), 0);
    cr_assert_leq(capture.count, 1, "only the directory, whose times changed");
    if (capture.count) {
        cr_assert_eq(capture.file[0].inode, fs->header->tree.root);
        capture_end(fs, &capture, 0, 0);
    }
}

/* A capture is one instant: it holds nothing that is written, truncated, renamed or unlinked between its start and the
 * append to the journal. */
Test(commit, one_instant)
{
    struct capture capture;
    static char bytes[50000];

    put("a", 0, "first", 5, 0);
    put("b", 0, bytes, sizeof(bytes), 0);
    put("gone", 0, "gone", 4, 0);
    dump_all(fs, then_dump);
    cr_assert_eq(capture_take(fs, &capture), 0);
    put("a", 0, "SECOND!", 7, 0);
    cr_assert_eq(fastspool_truncate(fs, "b", 10), 0);
    put("b", 0, "tail", 4, 30000);
    cr_assert_eq(fastspool_unlink(fs, "gone"), 0);
    cr_assert_eq(fastspool_rename(fs, "a", "c", 0), 0);
    for (int i = 0; i < 50; i++) { /* these want the blocks that were just freed */
        char path[16];
        snprintf(path, sizeof(path), "new%d", i);
        put(path, 0, "other people's mail", 19, 0);
    }
    cr_assert_eq(journal_append(&journal, &capture, error), 0);
    cr_assert_eq(capture_end(fs, &capture, 0, 0), 0);
    recovers(then_dump);
    commit(0);
    recovers(dump_all(fs, then_dump));
}

/* The mirror died during a commit, and a new mirror begins. */
static void new_mirror(struct capture *capture)
{
    free(capture->file);
    free(capture->names);
    free(capture->pieces);
    journal_close(&journal);
    cr_assert_eq(capture_reset(fs), 0);
    cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
}

/* Random changes, with checkpoints and with commits that succeed, fail, or end with the mirror's death before or after
 * the batch is durable.  Every 20th round commits, and a recovery must then restore the store, with nothing dirty. */
Test(commit, model, .timeout = 120)
{
    static char bytes[30000];
    unsigned seed = 11;

    memset(bytes, 'm', sizeof(bytes));
    for (int round = 0; round < 400; round++) {
        struct capture capture;
        for (int change = rand_r(&seed) % 20; change > 0; change--) {
            char path[16], other[16];
            snprintf(path, sizeof(path), "f%d", rand_r(&seed) % 12);
            snprintf(other, sizeof(other), "f%d", rand_r(&seed) % 12);
            bytes[rand_r(&seed) % sizeof(bytes)]++;
            switch (rand_r(&seed) % 5) {
            case 0:
                fastspool_unlink(fs, path);
                break;
            case 1:
                fastspool_rename(fs, path, other, 0);
                break;
            case 2:
                fastspool_truncate(fs, path, rand_r(&seed) % 40000);
                break;
            default:
                put(path, rand_r(&seed) % 4 ? 0 : O_TRUNC, bytes, (size_t)rand_r(&seed) % sizeof(bytes),
                    rand_r(&seed) % 20000);
            }
        }
        cr_assert_eq(capture_take(fs, &capture), 0);
        if (capture.count == 0)
            continue;
        int fate = rand_r(&seed) % 5;
        uint64_t durable = fs->header->journal.durable;
        if (fate > 0)
            cr_assert_eq(journal_append(&journal, &capture, error), 0, "%s", error);
        if (rand_r(&seed) % 2)
            put("while", 0, bytes, 5000, rand_r(&seed) % 5000);
        if (rand_r(&seed) % 2)
            fastspool_unlink(fs, "f3");
        if (fate >= 3) {
            if (fate == 4) /* before the batch was marked as durable */
                STORE(fs->header->journal.durable, durable);
            new_mirror(&capture);
        } else {
            cr_assert_eq(capture_end(fs, &capture, fate == 0 ? -EIO : 0, 0), 0);
        }
        if (fate == 0)
            cr_assert_eq(fs->header->tickets.commit_error, -EIO);
        if (rand_r(&seed) % 8 == 0)
            checkpoint();
        if (round % 20 == 0) {
            commit(0);
            recovers(dump_all(fs, then_dump));
            cr_assert_eq(fs->header->tickets.dirty_files, 0, "round %d", round);
            cr_assert_eq(fs->header->tickets.dirty_bytes, 0, "round %d: %llu bytes", round,
                         (unsigned long long)fs->header->tickets.dirty_bytes);
        }
    }
}

/* After a failed commit every fsync and flush returns its error, until a commit succeeds.  An fsync whose own change is
 * durable returns 0. */
Test(commit, errors)
{
    static const enum fastspool_durability modes[] = {FASTSPOOL_ACKED, FASTSPOOL_LAZY, FASTSPOOL_STRICT};
    char path[16];

    put("old", 0, "x", 1, 0);
    commit(0);
    int old = fastspool_open(fs, "old", O_RDONLY, 0);
    for (size_t mode = 0; mode < sizeof(modes) / sizeof(*modes); mode++) {
        fs->durability = modes[mode];
        snprintf(path, sizeof(path), "f%zu", mode);
        put(path, 0, "y", 1, 0);
        commit(-ENOSPC);
        int d = fastspool_open(fs, path, O_RDONLY, 0), root = fastspool_open(fs, "", O_RDONLY | O_DIRECTORY, 0);
        cr_assert_eq(fastspool_fsync(fs, d), -ENOSPC);
        cr_assert_eq(fastspool_fsync(fs, root), -ENOSPC);
        cr_assert_eq(fastspool_fsync(fs, old), 0);
        cr_assert_eq(fastspool_flush(fs, 0), -ENOSPC);
        commit(0);
        cr_assert_eq(fastspool_fsync(fs, d), 0);
        cr_assert_eq(fastspool_fsync(fs, root), 0);
        cr_assert_eq(fastspool_flush(fs, 0), 0);
        fastspool_close(fs, d);
        fastspool_close(fs, root);
    }
}

/* Wait until a child has ended, or sleeps in futex(2), as who waits for a commit.  True: it sleeps. */
static bool sleeps(pid_t pid)
{
    siginfo_t ended = {0};

    while (!asleep_in(pid, SYS_futex)) {
        if (waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT) < 0 || ended.si_pid == pid)
            return false;
        usleep(1000);
    }
    return true;
}

/* Write file f, and sync @path in a child, with @sync_file_first after f.  True: the fsync waits for a commit. */
static bool waits(const char *path, bool sync_file_first)
{
    int status;

    put("f", 0, "z", 1, 0);
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        int file = fastspool_open(fs, "f", O_RDONLY, 0), d = fastspool_open(fs, path, O_RDONLY, 0);
        if (sync_file_first)
            fastspool_fsync(fs, file);
        _exit(fastspool_fsync(fs, d) != 0);
    }
    bool waiting = sleeps(pid);
    commit(0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    return waiting;
}

/* lazy: no fsync waits.  acked: a directory's fsync waits for what its process has synced.  strict: every fsync waits
 * for its own file's change. */
Test(commit, durabilities, .timeout = 60)
{
    cr_assert_eq(fastspool_mkdir(fs, "d", 0750), 0);
    commit(0);
    fs->durability = FASTSPOOL_LAZY;
    cr_assert_not(waits("f", false));
    cr_assert_not(waits("", true));
    fs->durability = FASTSPOOL_ACKED;
    cr_assert_not(waits("f", true));
    cr_assert(waits("d", true), "a directory's fsync returned before the file that its process had synced was durable");
    cr_assert_not(waits("d", false), "a directory's fsync waited for a file that its process had not synced");
    fs->durability = FASTSPOOL_STRICT;
    cr_assert(waits("f", false));
    cr_assert_not(waits("d", false), "an fsync waited for another file's change");
}

static int bounded_fsync(void)
{
    int d = fastspool_open(fs, "", O_RDONLY, 0), result = fastspool_fsync(fs, d);
    fastspool_close(fs, d);
    return result;
}

/* With more than TICKETS_FILES_MAX dirty files even a lazy fsync waits for a commit. */
Test(commit, bounded, .timeout = 60)
{
    char path[32];
    int status;

    checking_every(1000);
    for (unsigned i = 0; i <= TICKETS_FILES_MAX; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);
        cr_assert_geq(d, 0);
        fastspool_close(fs, d);
    }
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        _exit(bounded_fsync() != 0);
    }
    cr_assert(sleeps(pid), "an fsync beyond the bound returned without a commit");
    commit(0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert_eq(bounded_fsync(), 0);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
    char command[2000];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    cr_assert_eq(system(command), 0, "%s", command);
}

static bool goes_on(const struct fastspool *of)
{
    (void)of;
    return false;
}

/* How often the mirror's thread slept until its group was complete. */
static void *gather(void *argument)
{
    static long slept;
    struct rusage before, after;

    getrusage(RUSAGE_THREAD, &before);
    committer_gather(argument, goes_on);
    getrusage(RUSAGE_THREAD, &after);
    slept = after.ru_nvcsw - before.ru_nvcsw;
    return &slept;
}

static void *sleep_until_woken(void *value)
{
    futex_wait(&fs->header->mirror.wanted, *(uint32_t *)value, 60 * NS_PER_S);
    return NULL;
}

/* A waiter wakes the mirror when its group is complete, and not before.  Those behind it don't. */
Test(commit, who_joins_a_group_wakes_nobody)
{
    const struct header *h = fs->header;
    uint32_t before = LOAD(h->mirror.wanted);
    pthread_t mirror;

    put("f", 0, "content", 7, 0);
    STORE(h->tickets.commit_error, -EIO); /* so that a waiter goes at once */
    STORE(h->mirror.enough, before + 8);
    cr_assert_eq(pthread_create(&mirror, NULL, sleep_until_woken, &before), 0);
    while (futex_sleepers(&h->mirror.wanted) == 0)
        usleep(1000);
    for (int i = 1; i < 8; i++) {
        cr_assert_eq(fastspool_flush(fs, 0), -EIO);
        cr_assert_eq(futex_sleepers(&h->mirror.wanted), 1, "waiter %d of 8 woke the mirror", i);
    }
    uint64_t start = clock_monotonic();
    cr_assert_eq(fastspool_flush(fs, 0), -EIO);
    pthread_join(mirror, NULL);
    cr_assert_lt(clock_monotonic() - start, 30 * NS_PER_S);

    uint32_t now = LOAD(h->mirror.wanted);
    cr_assert_eq(pthread_create(&mirror, NULL, sleep_until_woken, &now), 0);
    while (futex_sleepers(&h->mirror.wanted) == 0)
        usleep(1000);
    cr_assert_eq(fastspool_flush(fs, 0), -EIO);
    cr_assert_eq(futex_sleepers(&h->mirror.wanted), 1, "one more woke a mirror that had been woken");
    futex_wake(&h->mirror.wanted);
    pthread_join(mirror, NULL);
}

/* Change @files files.  How many sections does their capture take?  @counted: the counters tell one file and block less
 * than that; 0: the truth. */
static uint32_t sections_of_capture(unsigned files, uint64_t counted)
{
    const struct header *h = fs->header;
    struct capture capture;
    char path[16];

    for (unsigned i = 0; i < files; i++) {
        snprintf(path, sizeof(path), "f%u", i);
        put(path, 0, "content", 7, 0);
    }
    uint64_t dirty = LOAD(h->tickets.dirty_files), bytes = LOAD(h->tickets.dirty_bytes);
    STORE(h->tickets.dirty_files, counted ? counted - 1 : dirty);
    STORE(h->tickets.dirty_bytes, counted ? (counted - 1) * BLOCK_SIZE : bytes);
    uint32_t before = LOAD(h->section.sequence);
    cr_assert_eq(capture_take(fs, &capture), 0);
    uint32_t sections = (LOAD(h->section.sequence) - before) / 2;
    cr_assert_eq(capture.count, dirty);
    STORE(h->tickets.dirty_files, dirty);
    STORE(h->tickets.dirty_bytes, bytes);
    cr_assert_eq(capture_end(fs, &capture, 0, 0), 0);
    return sections;
}

/* A capture knows from the counters how much room it needs.  Where they tell nonsense, it counts. */
Test(commit, one_section)
{
    checking_every(0); /* the counters lie */
    cr_assert_eq(sections_of_capture(1, 0), 1);
    cr_assert_eq(sections_of_capture(1000, 0), 1);
    cr_assert_gt(sections_of_capture(1000, 1), 1);
    cr_assert_eq(sections_of_capture(1000, UINT64_MAX), 1);
}

static void *flush(void *unused)
{
    (void)unused;
    cr_assert_eq(fastspool_flush(fs, 0), 0);
    return NULL;
}

/* The end of a commit wakes who waits for it, and not who came while it ran. */
Test(commit, who_waits_for_the_next_sleeps_on, .timeout = 60)
{
    const uint32_t *event = &fs->header->tickets.commit_event;
    int woken = 0, rounds = 20, next_woken = 0;

    for (int i = 0; i < 2 * rounds; i++) {
        struct capture capture;
        pthread_t waiter;
        bool next = i % 2;
        put("f", 0, "1", 1, 0);
        cr_assert_eq(capture_take(fs, &capture), 0);
        if (next)
            put("f", 0, "2", 1, 0);
        cr_assert_eq(pthread_create(&waiter, NULL, flush, NULL), 0);
        while (futex_sleepers(event) == 0)
            usleep(100);
        cr_assert_eq(capture_end(fs, &capture, 0, 0), 0);
        *(next ? &next_woken : &woken) += futex_sleepers(event) == 0;
        commit(0);
        pthread_join(waiter, NULL);
    }
    cr_assert_eq(woken, rounds);
    cr_assert_leq(next_woken, rounds / 4, "woken %d times of %d", next_woken, rounds); /* each 100 ms they look */
}

/* The mirror sleeps until the first waiter comes, and then until its group is complete. */
Test(commit, a_group_is_slept_through)
{
    const uint32_t *wanted = &fs->header->mirror.wanted;
    struct committer committer;
    pthread_t mirror;
    void *slept;

    STORE(fs->header->flush_interval, 10 * NS_PER_S);
    put("f", 0, "content", 7, 0);
    STORE(fs->header->tickets.commit_error, -EIO); /* so that a waiter goes at once */
    committer_init(&committer, fs, NULL);
    committer.committed = clock_monotonic();
    committer.rhythm.known = 8;
    committer.rhythm.duration = NS_PER_S;
    cr_assert_eq(pthread_create(&mirror, NULL, gather, &committer), 0);
    for (int i = 0; i < 8; i++) {
        for (int tries = 0; futex_sleepers(wanted) == 0 && tries < 1000; tries++)
            usleep(100); /* beyond that, it has given up to wait */
        cr_assert_eq(fastspool_flush(fs, 0), -EIO);
    }
    pthread_join(mirror, &slept);
    cr_assert_leq(*(long *)slept, 3, "it slept %ld times", *(long *)slept);
}

static void *sync_within_bounds(void *unused)
{
    (void)unused;
    cr_assert_eq(tickets_sync(fs, LOAD(fs->header->tickets.change), false), 0);
    return NULL;
}

/* Who waits for longer than from one look at the mirror to the next is one waiter: the mirror would wait for others who
 * don't exist. */
Test(commit, a_wait_is_counted_once)
{
    void *(*const waits[])(void *) = {flush, sync_within_bounds};
    const struct header *h = fs->header;

    fs->durability = FASTSPOOL_LAZY;
    put("f", 0, "1", 1, 0);
    for (int i = 0; i < 2; i++) {
        uint32_t before = LOAD(h->mirror.wanted);
        uint64_t bytes = LOAD(h->tickets.dirty_bytes);
        pthread_t waiter;
        STORE(h->tickets.dirty_bytes, i == 0 ? bytes : 2 * TICKETS_BYTES_MAX);
        cr_assert_eq(pthread_create(&waiter, NULL, waits[i], NULL), 0);
        while (futex_sleepers(&h->tickets.commit_event) == 0)
            usleep(1000);
        usleep(4 * AWAIT_LOOK / NS_PER_US);
        cr_expect_eq(LOAD(h->mirror.wanted) - before, 1, "%u times, wait %d", LOAD(h->mirror.wanted) - before, i);
        STORE(h->tickets.dirty_bytes, bytes);
        commit(0);
        pthread_join(waiter, NULL);
        put("f", 0, "2", 1, 0);
    }
}

/* A client that waits for three commits, one after the other, and goes first wherever it can. */
static void *come_again(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++)
        if (fastspool_chmod(fs, "f", i) < 0 || fastspool_flush(fs, 0) < 0)
            return &fs; /* it has failed */
    return NULL;
}

/* A waiter whom a commit has woken, and who waits again before the mirror goes on, did not come while it was written:
 * one client is one. */
Test(commit, who_comes_again_is_counted_once)
{
    struct checkpointer checkpointer = {.fs = fs, .journal = &journal};
    struct committer committer;
    struct sched_param first = {.sched_priority = 1};
    pthread_attr_t goes_first;
    pthread_t client;
    cpu_set_t one;
    void *failed;

    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    pthread_attr_init(&goes_first);
    pthread_attr_setinheritsched(&goes_first, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&goes_first, SCHED_FIFO);
    pthread_attr_setschedparam(&goes_first, &first);
    put("f", 0, "content", 7, 0);
    committer_init(&committer, fs, &checkpointer);
    cr_assert_eq(pthread_create(&client, &goes_first, come_again, NULL), 0);
    for (int i = 0; i < 3; i++) {
        while (futex_sleepers(&fs->header->tickets.commit_event) == 0)
            usleep(1000);
        cr_assert_eq(committer_commit(&committer), 0);
        cr_expect_eq(committer.rhythm.known, 1, "%u clients after commit %d", committer.rhythm.known, i + 1);
    }
    pthread_join(client, &failed);
    cr_assert_null(failed);
}

/* A recovery refuses a database that is cut off, with a message, and does not change it.  It also refuses a missing
 * database when the journal alone is not enough. */
Test(commit, damaged_database)
{
    static char bytes[200000];

    put("f", 0, bytes, sizeof(bytes), 0);
    commit(0);
    checkpoint();
    shell("cd %s/mirror && cp data.mdb kept && truncate -s 20480 data.mdb && cp data.mdb cut", fs->state);
    refused("database");
    shell("cd %s/mirror && cmp -s data.mdb cut && mv kept data.mdb", fs->state);
    recovers(dump_all(fs, then_dump));
    /* A new mirror's checkpoint removes its predecessor's journal: from then on the journal needs the database. */
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
    put("g", 0, bytes, 10, 0);
    commit(0);
    checkpoint();
    put("h", 0, bytes, 10, 0);
    commit(0);
    shell("mv %s/mirror %s/away", fs->state, fs->state);
    refused("journal");
    shell("rm -r %s/mirror && mv %s/away %s/mirror", fs->state, fs->state, fs->state);
    recovers(dump_all(fs, then_dump));
}

/* Opening a database on a disk without room for it gives ENOSPC or EIO, and does not kill the process.  With room it
 * succeeds. */
Test(commit, no_room_for_a_database)
{
    char place[FASTSPOOL_PATH_MAX + 16], path[FASTSPOOL_PATH_MAX + 32];
    struct database database;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    shell("mount --make-rprivate /");
    snprintf(place, sizeof(place), "%s/disk", fixture_directory);
    shell("mkdir %s && mount -t tmpfs -o size=128k tmpfs %s && mkdir %s/mirror.new", place, place, place);
    for (int blocks = 0; blocks < 12; blocks++) { /* free ones; a database takes eight */
        shell("cat /dev/zero >%s/ballast 2>/dev/null; truncate -s -%d %s/ballast", place, blocks * 4096, place);
        snprintf(path, sizeof(path), "%s/mirror", place);
        int result = database_open(&database, path, error);
        cr_assert(result == 0 || result == -ENOSPC || result == -EIO, "%d blocks: %s", blocks, error);
        if (result == 0)
            database_close(&database);
        shell("rm -rf %s/ballast", place);
    }
    cr_assert_eq(database_open(&database, path, error), 0, "%s", error);
    database_close(&database);
    shell("umount %s", place);
}

static void tell_fault(int signal_number, siginfo_t *info, void *context)
{
    (void)signal_number;
    (void)context;
    _exit(database_lacks_room(info->si_addr) == -ENOSPC ? 'r' : 'd');
}

/* The end of a child that opens the database here, runs @command, and uses it: 'r' or 'd' by a SIGBUS, as it is of
 * no room or of damage; 'u': it could use it; otherwise the error of the opening. */
static int end_of_use(const char *command)
{
    const struct sigaction action = {.sa_sigaction = tell_fault, .sa_flags = SA_SIGINFO};
    struct database database;
    MDB_txn *transaction;
    MDB_stat tables;
    int status;
    pid_t child = fork();

    if (child == 0) { /* without assertions: criterion expects none from a child */
        sigaction(SIGBUS, &action, NULL);
        int result = database_open(&database, "mirror", error);
        if (result == 0 && system(command) == 0 &&
            mdb_txn_begin(database.environment, NULL, MDB_RDONLY, &transaction) == 0 &&
            mdb_stat(transaction, database.meta, &tables) == 0)
            _exit('u');
        _exit(-result);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status), "%d", status);
    return WEXITSTATUS(status);
}

/* A file system that writes each block to a new place needs room for a store to LMDB's lock file, too.  Where it has
 * none an opening says so; and the SIGBUS of a database that is open is no damage, as it is where its file is cut. */
Test(commit, no_room_for_a_store)
{
    static const char fill[] = "for i in 1 2; do { cat /dev/zero >ballast$i; } 2>/dev/null; sync -f .; done";
    char place[FASTSPOOL_PATH_MAX + 16];

    if (geteuid() != 0 || system("command -v mkfs.btrfs >/dev/null && grep -q btrfs /proc/filesystems") != 0)
        cr_skip_test("needs root, and btrfs");
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    shell("mount --make-rprivate /");
    snprintf(place, sizeof(place), "%s/disk", fixture_directory);
    shell("truncate -s 128M %s.image && mkfs.btrfs -q -m single -d single %s.image", place, place);
    shell("mkdir %s && mount -o loop %s.image %s", place, place, place);
    cr_assert_eq(chdir(place), 0);
    cr_expect_eq(end_of_use("true"), 'u');
    cr_expect_eq(end_of_use(fill), 'r');
    cr_expect_eq(end_of_use("true"), ENOSPC);
    shell("rm ballast*");
    cr_expect_eq(end_of_use("true"), 'u');
    cr_expect_eq(end_of_use("truncate -s 0 mirror/data.mdb"), 'd');
    cr_assert_eq(chdir("/"), 0);
    shell("umount %s", place);
}

static off_t database_bytes(void)
{
    char file[FASTSPOOL_PATH_MAX + 32];
    struct stat st;

    snprintf(file, sizeof(file), "%s/mirror/data.mdb", fs->state);
    cr_assert_eq(stat(file, &st), 0);
    return st.st_size;
}

/* 300 files of 20,000 bytes come and go. */
static void live_shortly(void)
{
    static char bytes[20000];

    for (int i = 0; i < 300; i++) {
        put("message", 0, bytes, sizeof(bytes), 0);
        commit(0);
        cr_assert_eq(fastspool_unlink(fs, "message"), 0);
        commit(0);
    }
}

static void go_on(void)
{
}

static void next_mirror(void)
{
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
}

/* A checkpoint can't read the journal. */
static void fail_checkpoint(void)
{
    int directory = journal.pool.directory;
    struct database database;
    char path[FASTSPOOL_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    cr_assert_eq(database_open(&database, path, error), 0, "%s", error);
    journal.pool.directory = -1;
    cr_assert_eq(checkpoint_run(&database, &journal, error), -EBADF);
    journal.pool.directory = directory;
    database_close(&database);
}

/* There are as many ends as a mirror notes, and then one more. */
static void end_too_many(void)
{
    journal.pool.ends.count = ENDS_MAX;
    put("one more", 0, "x", 1, 0);
    commit(0);
    cr_assert_eq(fastspool_unlink(fs, "one more"), 0);
    commit(0);
    cr_assert_leq(journal.pool.ends.count, 1);
}

/* Files that are created and unlinked between two checkpoints do not reach the database, which grows by 16 KiB at most.
 * So it is whether this mirror knows what ended or has to look for it, and in a recovery. */
Test(commit, short_lives_and_the_database)
{
    void (*const then[])(void) = {go_on, next_mirror, fail_checkpoint, end_too_many};
    off_t before;

    commit(0);
    checkpoint();
    for (size_t i = 0; i < sizeof(then) / sizeof(*then); i++) {
        before = database_bytes();
        live_shortly();
        then[i]();
        checkpoint();
        cr_assert_leq(database_bytes(), before + 4 * 4096, "way %zu: it grew from %lld to %lld bytes", i,
                      (long long)before, (long long)database_bytes());
    }
    before = database_bytes();
    live_shortly();
    recovers(dump_all(fs, then_dump));
    cr_assert_leq(database_bytes(), before + 4 * 4096, "it grew from %lld to %lld bytes", (long long)before,
                  (long long)database_bytes());
}

/* While this is on, bytes that are read are counted. */
static struct {
    bool on;
    uint64_t bytes;
} reading;

ssize_t pread(int fd, void *bytes, size_t size, off_t offset)
{
    ssize_t got = syscall(SYS_pread64, fd, bytes, size, offset);

    if (reading.on && got > 0)
        reading.bytes += (uint64_t)got;
    return got;
}

/* A checkpoint reads the journal once, where this mirror has written it. */
Test(commit, read_once)
{
    static char bytes[20000];
    char path[16];

    commit(0);
    checkpoint();
    for (int i = 0; i < 20; i++) {
        snprintf(path, sizeof(path), "f%d", i);
        put(path, 0, bytes, sizeof(bytes), 0);
        commit(0);
    }
    reading.on = true;
    checkpoint();
    reading.on = false;
    cr_assert_geq(reading.bytes, 20 * sizeof(bytes));
    cr_assert_lt(reading.bytes, 30 * sizeof(bytes));
}

/* What ends while a checkpoint runs is in that checkpoint as it was. */
Test(commit, ends_behind_the_point)
{
    struct stat st;

    put("message", 0, "x", 1, 0);
    commit(0);
    cr_assert_eq(fastspool_stat(fs, "message", &st), 0);
    struct journal_point point = journal_files_point(&journal.pool);
    cr_assert_eq(fastspool_unlink(fs, "message"), 0);
    commit(0);
    cr_assert_eq(ends_last(&point.ends, (uint32_t)st.st_ino), 0);
    ends_sort(&journal.pool.ends);
    cr_assert_gt(ends_last(&journal.pool.ends, (uint32_t)st.st_ino), point.number);
    journal_files_miss(&journal.pool, &point);
}

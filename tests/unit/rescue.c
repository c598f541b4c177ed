/* SPDX-License-Identifier: MIT
 *
 * Rescue: files of the journal, or all of it, are removed under a store that goes on.  After it a recovery gives the
 * store as it is.
 */
#include "mirror/rescue.h"
#include "base/futex.h"
#include "base/places.h"
#include "evicting.h"
#include "mirror/checkpointer.h"
#include "mirror/committer.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

TestSuite(rescue, .init = durable_setup, .fini = durable_teardown);

static struct shared_database shared;
static char database_path[FASTSPOOL_PATH_MAX + 16];

static int rescue(void)
{
    snprintf(database_path, sizeof(database_path), "%s/mirror", fs->state);
    shared_database_init(&shared, database_path);
    int result = rescue_run(fs, &journal, &shared, error);
    shared_database_end(&shared);
    return result;
}

/* In the state directory. */
static void run(const char *what)
{
    char command[2 * FASTSPOOL_PATH_MAX];

    snprintf(command, sizeof(command), "cd %s && %s", fs->state, what);
    cr_assert_eq(system(command), 0, "%s", command);
}

/* A store that has been through all: a file evicted, one changed since, one renamed, two that the database alone
 * has still, and one that came after the last checkpoint, in place of the one that went. */
static void live(void)
{
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
    fill("input/evicted", 1, 50000);
    fill("input/moved", 2, 9000);
    fill("input/changed", 3, 70000);
    fill("input/gone", 4, 12345);
    fill("input/gone, too", 4, 12345);
    persist();
    evict(0);
    cr_assert(evicted("input/evicted"));
    cr_assert_eq(fastspool_unlink(fs, "input/gone"), 0);
    cr_assert_eq(fastspool_unlink(fs, "input/gone, too"), 0);
    commit(0);
    fill("input/new", 5, 4000);
    cr_assert_eq(fastspool_rename(fs, "input/moved", "moved", 0), 0);
    cr_assert_eq(fastspool_chmod(fs, "input/evicted", 0600), 0);
    commit(0);
    journal_files_trust(&journal.pool);
}

/* What a recovery gives is what is there, and stays so as the store goes on. */
static void whole(void)
{
    paging_all(fs);
    recovers(dump_all(fs, then_dump));
    fill("input/later", 6, 3000);
    commit(0);
    recovers(dump_all(fs, then_dump));
    checkpoint();
    recovers(dump_all(fs, then_dump));
}

static bool lost(bool database)
{
    journal_files_look(&journal.pool, database);
    return journal_files_lost(&journal.pool);
}

/* What a mirror's first thread does, with a batch on its way. */
static int commit_batch(void)
{
    struct checkpointer checkpointer = {.fs = fs, .journal = &journal, .database = &shared};
    struct committer committer;

    snprintf(database_path, sizeof(database_path), "%s/mirror", fs->state);
    shared_database_init(&shared, database_path);
    committer_init(&committer, fs, &checkpointer);
    int result = committer_commit(&committer);
    shared_database_end(&shared);
    return result;
}

/* Files of the journal are removed, while the mirror has them open: the look tells, and all of it is written anew. */
Test(rescue, files)
{
    live();
    cr_assert_not(lost(false));
    cr_assert_eq(rescue(), 0, "nothing is gone, and nothing is to be done");
    run("rm journal/*");
    cr_assert(lost(false));
    cr_assert_eq(rescue(), 0, "%s", error);
    cr_assert_not(lost(false));
    cr_assert_eq(fs->header->tickets.dirty_files, 0);
    whole();
}

/* A batch can't be read back: the checkpoint that finds it fails, and all of it is written anew. */
Test(rescue, batch)
{
    struct database *database;

    live();
    run("for file in journal/*; do dd if=/dev/zero of=$file bs=4096 seek=1 count=1 conv=notrunc status=none; done");
    snprintf(database_path, sizeof(database_path), "%s/mirror", fs->state);
    shared_database_init(&shared, database_path);
    cr_assert_eq(shared_database_enter(&shared, &database, error), 0);
    cr_assert_eq(checkpoint_run(database, &journal, error), -EIO);
    shared_database_leave(&shared, true);
    shared_database_end(&shared);
    cr_assert(lost(false));
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* A spare file that is removed is not missed. */
Test(rescue, spare)
{
    char command[64];

    live();
    cr_assert_eq(journal_files_prepare(&journal.pool), 0);
    cr_assert_eq(journal.pool.spares, 1);
    snprintf(command, sizeof(command), "rm journal/%04u", journal.pool.spare[0]);
    run(command);
    cr_assert_not(lost(false));
    cr_assert_eq(journal.pool.spares, 0);
}

/* The directory is gone: its disk may be unmounted, so nothing is written until it is back, or somebody says that it is
 * lost. */
Test(rescue, directory)
{
    live();
    run("mv journal away");
    cr_assert(lost(false));
    cr_assert_eq(rescue(), -ESTALE);
    cr_assert_not_null(strstr(error, "fastspool flush --anew"), "%s", error);
    run("mkdir -m 700 journal"); /* another one */
    cr_assert_eq(rescue(), -ESTALE);
    run("rmdir journal && mv away journal");
    cr_assert_eq(rescue(), 0, "it is back: %s", error);
    run("rm -r journal && touch " PLACES_ANEW);
    cr_assert(lost(false));
    cr_assert_eq(rescue(), 0, "%s", error);
    run("test ! -e " PLACES_ANEW);
    whole();
}

/* It is away while nothing changes, and is back: the error ends with the loss, and not with the next change. */
Test(rescue, back)
{
    live();
    run("mv journal away");
    cr_assert(lost(false));
    cr_assert_eq(commit_batch(), -ESTALE);
    cr_assert_eq(fs->header->tickets.commit_error, -ESTALE);
    run("mv away journal");
    cr_assert_eq(commit_batch(), 0);
    cr_assert_eq(fs->header->tickets.commit_error, 0);
    whole();
}

/* An error of the disk, as where it is full, ends with a write: that nothing is to be written says nothing of it. */
Test(rescue, another_error_stays)
{
    live();
    STORE(fs->header->tickets.commit_error, -ENOSPC);
    cr_assert_eq(commit_batch(), 0);
    cr_assert_eq(fs->header->tickets.commit_error, -ENOSPC);
    cr_assert(fastspool_close(fs, fastspool_open(fs, "new", O_WRONLY | O_CREAT, 0600)) == 0);
    cr_assert_eq(commit_batch(), 0);
    cr_assert_eq(fs->header->tickets.commit_error, 0);
}

/* The directory was removed: nobody can put it back, so that it is written anew, unless there is another one. */
Test(rescue, directory_removed)
{
    live();
    run("rm -r journal && mkdir -m 700 journal");
    cr_assert(lost(false));
    cr_assert_eq(rescue(), -ESTALE, "it is written to another one");
    run("rmdir journal");
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* The next mirror knows the directory again, by its number and its birth, whatever has become of the files in it. */
Test(rescue, known)
{
    static const struct {
        const char *meanwhile;
        bool sure;
    } cases[] = {
        {"true", true},
        {"rm journal/*", true},
        {"mv journal away && mkdir -m 700 journal", false},
        {"mv journal away && cp -a away journal", false}, /* whose files tell whether it is to be trusted */
        {"rm -r journal", false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        live();
        journal_close(&journal);
        run(cases[i].meanwhile);
        cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
        cr_assert_eq(journal_files_sure(&journal.pool), cases[i].sure, "%s", cases[i].meanwhile);
        durable_teardown();
        durable_setup();
    }
}

/* The database is gone, too, and with it what has left memory: nothing is written, whatever somebody says. */
Test(rescue, database)
{
    live();
    run("mv mirror away && touch " PLACES_ANEW);
    cr_assert(lost(true));
    journal_files_lose(&journal.pool);
    cr_assert_eq(rescue(), -ESTALE);
    cr_assert_not_null(strstr(error, "does not have what left memory"), "%s", error);
    run("rm -r mirror && mv away mirror");
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* The same while all is in memory: that is enough. */
Test(rescue, memory)
{
    live();
    paging_all(fs);
    run("rm -r mirror/data.mdb journal && touch " PLACES_ANEW);
    cr_assert(lost(true));
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* The transaction fails, or death comes before it: all stays dirty, and the disk is as it was. */
Test(rescue, full)
{
    live();
    paging_all(fs);
    dump_all(fs, then_dump);
    run("mkdir before && cp -a journal mirror before && rm journal/*");
    cr_assert(lost(false));
    struct rlimit most, small = {1 << 16, 1 << 16};
    getrlimit(RLIMIT_FSIZE, &most);
    small.rlim_max = most.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    uint64_t durable = fs->header->journal.durable;
    cr_assert_lt(rescue(), 0);
    setrlimit(RLIMIT_FSIZE, &most);
    cr_assert_eq(fs->header->journal.durable, durable);
    cr_assert_gt(fs->header->tickets.dirty_files, 0);
    run("cmp before/mirror/data.mdb mirror/data.mdb");
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* The lock of the state is gone, too: the database may be that of a store that was made beside this one. */
Test(rescue, lock)
{
    char path[FASTSPOOL_PATH_MAX + 16];

    live();
    snprintf(path, sizeof(path), "%s/" PLACES_LOCK, fs->state);
    fs->presence_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    run("rm journal/* && mv " PLACES_LOCK " away");
    cr_assert(lost(false));
    cr_assert_eq(rescue(), -EIO);
    cr_assert_not_null(strstr(error, "was removed or replaced"), "%s", error);
    run("mv away " PLACES_LOCK);
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* All is in the database, and the journal can't be opened anew for lack of descriptors: it counts as lost, and where it
 * is can still be told. */
Test(rescue, descriptors)
{
    struct rlimit most, none = {0};

    live();
    run("rm journal/*");
    cr_assert(lost(false));
    getrlimit(RLIMIT_NOFILE, &most);
    none.rlim_max = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &none);
    int result = journal_renew(&journal, error);
    setrlimit(RLIMIT_NOFILE, &most);
    cr_assert_eq(result, -EMFILE);
    cr_assert(lost(false));
    run("mv journal away && mkdir -m 700 journal"); /* its disk is not mounted */
    cr_assert_eq(rescue(), -ESTALE, "it is written to another one");
    run("rmdir journal && mv away journal");
    cr_assert_eq(rescue(), 0, "%s", error);
    whole();
}

/* ---- somebody's word, and death ---- */

/* What was said of a loss that was none is forgotten: it is no word about the next one. */
Test(rescue, word)
{
    live();
    run("mv journal away && touch " PLACES_ANEW);
    cr_assert(lost(false));
    run("mv away journal");
    cr_assert_eq(rescue(), 0, "it is back: %s", error);
    run("test ! -e " PLACES_ANEW);
    run("touch " PLACES_ANEW); /* by whoever was late, or has died behind it */
    snprintf(database_path, sizeof(database_path), "%s/mirror", fs->state);
    shared_database_init(&shared, database_path);
    rescue_look(&journal, &shared);
    shared_database_end(&shared);
    run("test ! -e " PLACES_ANEW);
    run("mv journal away");
    cr_assert(lost(false));
    cr_assert_eq(rescue(), -ESTALE);
    run("mv away journal");
    whole();
}

static void *flush(void *result)
{
    *(int *)result = fastspool_flush(fs, 0);
    return NULL;
}

/* A file of the journal is removed below the batch on its way to it: its waiter sleeps on until all is written anew.
 * Where that can't be, he hears so. */
Test(rescue, waiter)
{
    for (int away = 0; away < 2; away++) {
        int flushed = 1;
        pthread_t waiter;
        live();
        fill("input/waits", 7, 5000);
        run(away ? "mv journal away" : "rm journal/*");
        if (away)
            run("rm away/*");
        cr_assert_eq(pthread_create(&waiter, NULL, flush, &flushed), 0);
        while (futex_sleepers(&fs->header->tickets.commit_event) == 0)
            usleep(1000);
        cr_assert_eq(commit_batch(), away ? -ESTALE : 0);
        pthread_join(waiter, NULL);
        cr_assert_eq(flushed, away ? -ESTALE : 0);
        if (away)
            run("mv away journal");
        cr_assert_eq(commit_batch(), 0);
        whole();
        durable_teardown();
        durable_setup();
    }
}

/* A file that the batch's own one follows is removed, in the tick of the clock in which a name was changed before: the
 * batch is found again, since it is written anew with all the rest. */
Test(rescue, file_before)
{
    live();
    fill("input/more", 8, JOURNAL_FILE_MIN);
    commit(0);
    cr_assert_gt(journal.pool.count, 1);
    cr_assert_not(lost(false));
    run("rm journal/0001"); /* the database has what the first one held */
    fill("input/more", 9, 100);
    cr_assert_eq(commit_batch(), 0);
    whole();
}

/* A spare file is removed: the batch that was to begin it begins another one. */
Test(rescue, spare_in_turn)
{
    live();
    cr_assert_eq(journal_files_prepare(&journal.pool), 0);
    while (journal.pool.spares > 0) {
        run("rm $(ls -d journal/* | tail -n 1)");
        fill("input/more", 8, JOURNAL_FILE_MIN);
        commit(0);
    }
    cr_assert_not(lost(false));
    whole();
}

/* Act in a child that is killed at its @n-th stop: before a system call, or behind it.  False: it was over before. */
static bool killed_at(int (*act)(void), unsigned n)
{
    int status;

    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(act() != 0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    for (unsigned stop = 0; stop < n && WIFSTOPPED(status); stop++) {
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        cr_assert_eq(waitpid(pid, &status, 0), pid);
    }
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    cr_assert_geq(descriptions_reap(fs), 0);
    cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "stop %u: the rescue failed", n);
    return WIFSIGNALED(status);
}

/* The number of the database's batch. */
static uint64_t held(void)
{
    struct database *database;
    struct disk_meta meta;
    MDB_txn *transaction;

    snprintf(database_path, sizeof(database_path), "%s/mirror", fs->state);
    shared_database_init(&shared, database_path);
    cr_assert_eq(shared_database_enter(&shared, &database, error), 0, "%s", error);
    cr_assert_eq(database_begin(database, &transaction, &meta, error), 0, "%s", error);
    mdb_txn_abort(transaction);
    shared_database_leave(&shared, false);
    shared_database_end(&shared);
    return meta.batch;
}

static void holds(const char *path, unsigned seed, size_t size)
{
    static char read[sizeof(bytes)];
    int d = fastspool_open(fs, path, O_RDONLY, 0);

    fill("expected", seed, size); /* in `bytes` */
    cr_assert_eq(fastspool_pread(fs, d, read, sizeof(read), 0), (ssize_t)size, "%s", path);
    cr_assert_eq(memcmp(read, bytes, size), 0, "%s", path);
    fastspool_close(fs, d);
}

/* The mirror is killed before and behind each system call of @act.  The next one finds all of it in the database, or
 * writes it. */
static void dies(int (*act)(void))
{
    bool dead = true, wrote = false, found = false;
    unsigned n;

    for (n = 1; dead; n += dead ? 1 : 0) {
        durable_teardown();
        durable_setup();
        checking_every(0);
        live();
        if (act == commit_batch)
            fill("input/waits", 7, 5000);
        run("rm journal/*");
        dead = killed_at(act, n);
        journal_close(&journal);
        cr_assert_eq(capture_reset(fs), 0);
        cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
        if (held() < fs->header->journal.durable) {
            journal_files_lose(&journal.pool);
            cr_assert_eq(rescue(), 0, "stop %u: %s", n, error);
            wrote = true;
        } else {
            cr_assert_eq(held(), fs->header->journal.durable, "stop %u", n);
            commit(0);
            found = true;
        }
        cr_assert_eq(fs->header->tickets.dirty_files, 0, "stop %u", n);
        whole();
        holds("input/evicted", 1, 50000);
        holds("input/changed", 3, 70000);
        holds("input/new", 5, 4000);
        if (act == commit_batch)
            holds("input/waits", 7, 5000);
    }
    cr_assert(wrote && found && n > 60, "%u stops", n);
}

Test(rescue, death, .timeout = 900)
{
    dies(rescue);
}

Test(rescue, death_with_a_batch, .timeout = 900)
{
    dies(commit_batch);
}

/* SPDX-License-Identifier: MIT
 *
 * The checkpointer: a disk that has no room, checkpoints that fail, and a state whose lock was removed.
 */
#include "mirror/checkpointer.h"
#include "base/clock.h"
#include "base/places.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/committer.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "spool/presence.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/statvfs.h>

#define LIMIT (8 * JOURNAL_FILE_MIN)

static struct journal journal;
static struct shared_database shared;
static struct checkpointer c = {.journal = &journal, .database = &shared};
static char error[FASTSPOOL_ERROR_MAX], path[FASTSPOOL_PATH_MAX + 16];

/* ---- a disk of the test's making ---- */

static int syncs_left = -1; /* so many fsyncs succeed, and the next one fails; negative: none does */
static bool refuse_data;    /* the next fdatasync finds a quota reached */

static bool full;     /* there is no room at all */
static bool slow;     /* whoever but the test's own thread asks, or writes, is kept for a moment */
static bool quota;    /* fstatvfs does not know of @space */
static int64_t space; /* bytes that are left, and go with each file that is made; negative: enough */
static pthread_t own;

static void keep(void)
{
    if (LOAD(slow) && !pthread_equal(pthread_self(), own))
        usleep(300000);
}

int fstatvfs(int fd, struct statvfs *disk)
{
    (void)fd;
    keep();
    int64_t left = LOAD(space);
    *disk = (struct statvfs){.f_bsize = 1, .f_frsize = 1};
    disk->f_bavail = disk->f_bfree = LOAD(full) ? 0 : left < 0 || quota ? UINT32_MAX : (fsblkcnt_t)left;
    return 0;
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    bool refused = quota && LOAD(space) < size;
    int result = refused ? EDQUOT : fallocate(fd, 0, offset, size) < 0 ? errno : 0;

    if (result == 0 && LOAD(space) >= 0)
        __atomic_fetch_sub(&space, size, __ATOMIC_ACQ_REL);
    keep();
    return result;
}

int fsync(int fd)
{
    (void)fd;
    if (syncs_left < 0 || syncs_left-- > 0)
        return 0;
    errno = EIO;
    return -1;
}

__attribute__((visibility("default"))) int fdatasync(int fd) /* also LMDB's */
{
    (void)fd;
    if (!__atomic_exchange_n(&refuse_data, false, __ATOMIC_ACQ_REL))
        return 0;
    errno = EDQUOT;
    return -1;
}

static void setup(void)
{
    fixture_setup();
    full = slow = quota = false;
    space = -1;
    own = pthread_self();
    c.fs = fs;
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0, "%s", error);
    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    shared_database_init(&shared, path);
}

static void teardown(void)
{
    shared_database_end(&shared);
    journal_close(&journal);
    fixture_teardown();
}

TestSuite(checkpointer, .init = setup, .fini = teardown);

static int append(size_t size)
{
    static char bytes[JOURNAL_FILE_MIN];
    struct capture capture;
    int d = fastspool_open(fs, "file", O_RDWR | O_CREAT | O_TRUNC, 0640);

    cr_assert_eq(fastspool_write(fs, d, bytes, size), (ssize_t)size);
    fastspool_close(fs, d);
    cr_assert_eq(capture_take(fs, &capture), 0);
    int result = journal_append(&journal, &capture, error);
    cr_assert_eq(capture_end(fs, &capture, result, 0), 0);
    return result;
}

/* A commit finds no room for its file and waits for the checkpoint that frees some; meanwhile there is room again, and
 * the checkpointer, which is just preparing a file, sees no reason for a checkpoint any more.  The commit goes on. */
Test(checkpointer, room_comes_back, .timeout = 120)
{
    cr_assert_eq(append(40000), 0, "%s", error);
    full = true;
    cr_assert_eq(append(40000), -ENOSPC);
    cr_assert(journal_files_due(&journal.pool));
    slow = true;
    cr_assert_eq(checkpointer_start(&c), 0);
    usleep(50000); /* it asks, and hears after a while: */
    STORE(full, false);
    uint64_t start = clock_monotonic();
    cr_assert_eq(checkpointer_wait_for_files(&c), 0);
    cr_assert_lt(clock_monotonic() - start, UINT64_C(5000000000), "the commit hung");
    cr_assert_eq(append(40000), 0, "%s", error);
    STORE(slow, false);
    checkpointer_end(&c);
}

/* The last room is just being made into a file by the checkpointer: the commit takes that one. */
static void take_last_room(int64_t enough_for_one)
{
    space = enough_for_one + JOURNAL_FILE_MIN / 2;
    slow = true;
    cr_assert_eq(checkpointer_start(&c), 0);
    while (LOAD(space) >= enough_for_one) /* it asks, and takes the blocks */
        usleep(10000);
    cr_assert_eq(append(40000), 0, "%s", error);
    STORE(slow, false);
    checkpointer_end(&c);
}

Test(checkpointer, last_room, .timeout = 120)
{
    take_last_room(JOURNAL_FILE_MIN + JOURNAL_FILE_MIN / 4 * 5 + (1 << 20));
}

Test(checkpointer, last_of_a_quota, .timeout = 120)
{
    quota = true;
    take_last_room(JOURNAL_FILE_MIN);
}

/* A quota is reached: the commit waits for a checkpoint, which gives a file back. */
Test(checkpointer, quota_for_files, .timeout = 120)
{
    struct committer committer;
    int result;

    quota = true;
    space = 2 * JOURNAL_FILE_MIN + JOURNAL_FILE_MIN / 2;
    while ((result = append(40000)) == 0)
        ;
    cr_assert(result == -EDQUOT && journal_files_due(&journal.pool), "%s", error);
    slow = true;
    cr_assert_eq(checkpointer_start(&c), 0);
    committer_init(&committer, fs, &c);
    cr_assert_eq(committer_commit(&committer), 0, "it did not wait");
    STORE(slow, false);
    checkpointer_end(&c);
}

/* The first checkpoint that has begun has ended: with this error. */
static int first_end(void)
{
    unsigned ended = 0;
    int result = 0;

    for (; ended == 0; usleep(10000)) {
        pthread_mutex_lock(&c.mutex);
        ended = c.ended;
        result = c.error;
        pthread_mutex_unlock(&c.mutex);
    }
    return result;
}

/* So is a checkpoint's, which is tried again at once, as on a full disk. */
Test(checkpointer, quota_for_the_database, .timeout = 120)
{
    struct database database;

    cr_assert_eq(append(40000), 0, "%s", error);
    cr_assert_eq(database_open(&database, path, error), 0, "%s", error);
    database_close(&database);
    cr_assert_eq(journal_files_prepare(&journal.pool), 0); /* so the first to sync is the checkpoint */
    journal_files_want_checkpoint(&journal.pool);
    refuse_data = true;
    cr_assert_eq(checkpointer_start(&c), 0);
    cr_assert_eq(first_end(), 0);
    cr_assert_not(LOAD(refuse_data));
    checkpointer_end(&c);
}

/* The lock of the state was removed: a store that was made beside this one may have the database, which stays as it is.
 */
Test(checkpointer, lock_removed, .timeout = 120)
{
    char data[sizeof(path) + 16];

    cr_assert_eq(append(40000), 0, "%s", error);
    fs->presence_fd = presence_open(journal.pool.above, true);
    cr_assert(fs->presence_fd >= 0 && unlinkat(journal.pool.above, PLACES_LOCK, 0) == 0);
    journal_files_want_checkpoint(&journal.pool);
    cr_assert_eq(checkpointer_start(&c), 0);
    int result = first_end();
    checkpointer_end(&c); /* by another try */
    snprintf(data, sizeof(data), "%s/data.mdb", path);
    cr_assert(result == -ESTALE && access(data, F_OK) < 0, "%d", result);
    close(fs->presence_fd);
}

/* A checkpoint that fails is tried again each second, whoever wants one meanwhile and how often; then one succeeds. */
Test(checkpointer, fails_slowly, .timeout = 120)
{
    cr_assert_eq(append(40000), 0, "%s", error);
    close(open(path, O_WRONLY | O_CREAT, 0600)); /* in the database's place */
    journal_files_want_checkpoint(&journal.pool);
    uint64_t start = clock_monotonic(), seconds;
    cr_assert_eq(checkpointer_start(&c), 0);
    for (int i = 0; i < 250; i++) {
        usleep(10000);
        checkpointer_wake(&c);
    }
    pthread_mutex_lock(&c.mutex);
    seconds = (clock_monotonic() - start) / NS_PER_S; /* 2, or more where the machine is busy */
    cr_assert_neq(c.error, 0);
    cr_assert(c.begun >= 2 && c.begun <= seconds + 2, "%u checkpoints in %d s", c.begun, (int)seconds);
    pthread_mutex_unlock(&c.mutex);
    cr_assert_eq(unlink(path), 0);
    while (LOAD(fs->header->disk.checkpoint_error)) /* until the test's patience is over */
        usleep(10000);
    checkpointer_end(&c);
}

/* What a mirror could not do, and told of, the next one tries at once, due or not. */
Test(checkpointer, error_before, .timeout = 120)
{
    cr_assert_eq(append(40000), 0, "%s", error);
    STORE(fs->header->disk.checkpoint_error, -ENOENT);
    cr_assert_not(journal_files_due(&journal.pool));
    cr_assert_eq(checkpointer_start(&c), 0);
    while (LOAD(fs->header->disk.checkpoint_error)) /* until the test's patience is over */
        usleep(10000);
    checkpointer_end(&c);
}

static bool is_held;

static uint64_t next_beat(uint64_t before)
{
    while (LOAD(fs->header->mirror.beat) == before) /* until the test's patience is over */
        usleep(10000);
    return LOAD(fs->header->mirror.beat);
}

static void *hold_for_two_beats(void *argument)
{
    checkpointer_hold(&c);
    STORE(is_held, true);
    next_beat(next_beat(0));
    checkpointer_release(&c, false);
    return argument;
}

/* A mirror that ends waits for its last checkpoint, however long that takes, and gives signs of life. */
Test(checkpointer, lives_to_its_end, .timeout = 120)
{
    pthread_t other;

    STORE(fs->header->mirror.beat, 0);
    cr_assert_eq(checkpointer_start(&c), 0);
    cr_assert_eq(pthread_create(&other, NULL, hold_for_two_beats, NULL), 0);
    while (!LOAD(is_held))
        usleep(10000);
    checkpointer_end(&c);
    cr_assert_eq(pthread_join(other, NULL), 0);
}

/* A database whose name could not be synced doesn't have it: that the next sync succeeds says nothing of this name. */
Test(checkpointer, name_of_the_database)
{
    struct database database;
    struct stat st;

    for (int good = 0;; good++) {
        syncs_left = good;
        int result = database_open(&database, path, error);
        bool met = syncs_left < 0;
        syncs_left = -1;
        if (!met) {
            cr_assert_eq(result, 0, "%s", error);
            break;
        }
        cr_assert_eq(result, -EIO);
        cr_assert_lt(stat(path, &st), 0, "its fsync number %d failed, and it is there", good + 1);
    }
    database_close(&database);
}

/* Nor has a spare file of the journal, whose maker died before it could sync it. */
Test(checkpointer, names_of_spares)
{
    cr_assert_eq(journal_files_prepare(&journal.pool), 0);
    for (int good = 0, failed = 1; failed; good++) {
        journal_close(&journal);
        syncs_left = good;
        failed = journal_open(&journal, fs, LIMIT, error) < 0;
        syncs_left = -1;
        cr_assert(good < 2 || journal.pool.spares == 0, "after %d syncs", good);
    }
}

/* Nor have the directories. */
Test(checkpointer, names_of_directories)
{
    struct stat st;

    snprintf(fs->state, sizeof(fs->state), "%s/other", fixture_directory);
    for (int good = 0; good < 2; good++) {
        journal_close(&journal);
        syncs_left = good;
        cr_assert_eq(journal_open(&journal, fs, LIMIT, error), -EIO);
        syncs_left = -1;
        snprintf(path, sizeof(path), good ? "%s/journal" : "%s", fs->state);
        cr_assert_lt(stat(path, &st), 0, "%s was not synced, and is there", path);
    }
}

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

static bool full;     /* there is no room at all */
static bool slow;     /* whoever but the test's own thread asks, or writes, is kept for a moment */
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
    disk->f_bavail = disk->f_bfree = LOAD(full) ? 0 : left < 0 ? UINT32_MAX : (fsblkcnt_t)left;
    return 0;
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    int result = fallocate(fd, 0, offset, size) < 0 ? errno : 0;

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

static void setup(void)
{
    fixture_setup();
    full = slow = false;
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
Test(checkpointer, last_room, .timeout = 120)
{
    const int64_t enough_for_one = JOURNAL_FILE_MIN + JOURNAL_FILE_MIN / 4 * 5 + (1 << 20);

    space = enough_for_one + JOURNAL_FILE_MIN / 2;
    slow = true;
    cr_assert_eq(checkpointer_start(&c), 0);
    while (LOAD(space) >= enough_for_one) /* it asks, and takes the blocks */
        usleep(10000);
    cr_assert_eq(append(40000), 0, "%s", error);
    STORE(slow, false);
    checkpointer_end(&c);
}

/* The lock of the state was removed: a store that was made beside this one may have the database, which stays as it is.
 */
Test(checkpointer, lock_removed, .timeout = 120)
{
    char data[sizeof(path) + 16];
    int result = 0;

    cr_assert_eq(append(40000), 0, "%s", error);
    fs->presence_fd = presence_open(journal.pool.above, true);
    cr_assert(fs->presence_fd >= 0 && unlinkat(journal.pool.above, PLACES_LOCK, 0) == 0);
    journal_files_want_checkpoint(&journal.pool);
    cr_assert_eq(checkpointer_start(&c), 0);
    for (unsigned ended = 0; ended == 0; usleep(10000)) {
        pthread_mutex_lock(&c.mutex);
        ended = c.ended;
        result = c.error;
        pthread_mutex_unlock(&c.mutex);
    }
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

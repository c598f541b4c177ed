/* SPDX-License-Identifier: MIT
 *
 * Shrinking: the disk gets back what database and journal have kept for reuse.  LMDB's file never becomes smaller, and
 * the journal keeps its files, full of zeros.
 *
 * The happy path: after a mirror's last checkpoint the journal has nothing that the database lacks.
 *   - LMDB copies the pages in use to mirror.new, which is synced.
 *   - The two directories change their names.  When that is synced, the old one is removed.
 *   - The files of the journal go, the oldest first.  The next mirror makes one.
 *
 * The directory changes as a whole, not the file: a reader of the old file, such as a verification, goes on with the
 * lock file that belongs to it.
 *
 * Failure modes:
 *   - The journal has batches that the database lacks: its mirror was killed.  Nothing is done.
 *   - No room for the copy, a file system that can't exchange names: nothing has changed.
 *   - Death at any point, or a sync that fails: `mirror` is the old database or the new one, with the same content.
 *     mirror.new is removed by the next call.
 */
#include "mirror/shrink.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"
#include "mirror/database.h"
#include "mirror/journal_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct shrink {
    char database[PLACES_PATH_MAX], new[PLACES_PATH_MAX], journal[PLACES_PATH_MAX];
    const char *state;
    struct journal_listed files[JOURNAL_FILES_MAX];
    size_t count;
    int directory; /* of the journal; -1: there is none */
};

static const char *const parts[] = {"data.mdb", "lock.mdb"};

static uint64_t on_disk(int directory, const char *name)
{
    struct stat st;

    return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* Of database and journal. */
static uint64_t measure(const struct shrink *shrink)
{
    char path[PLACES_PATH_MAX + 16], name[PLACES_NAME_MAX];

    snprintf(path, sizeof(path), "%s/%s", shrink->database, parts[0]);
    uint64_t bytes = on_disk(AT_FDCWD, path);
    for (size_t i = 0; i < shrink->count; i++) {
        places_journal_file(shrink->files[i].name, name);
        bytes += on_disk(shrink->directory, name);
    }
    return bytes;
}

/* ---- the journal ---- */

static int list_journal(struct shrink *shrink, char *error)
{
    shrink->directory = open(shrink->journal, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = shrink->directory >= 0 ? journal_scan_files(shrink->directory, shrink->files, &shrink->count)
                 : errno == ENOENT      ? 0
                                        : -errno;

    return result < 0 ? error_set(error, result, "cannot read %s: %s", shrink->journal, strerrordesc_np(-result)) : 0;
}

/* Does the journal hold nothing that the database lacks? */
static int check_journal(const struct shrink *shrink, uint64_t held, char *error)
{
    const struct journal_scan scan = {.above = held, .upto = UINT64_MAX};
    struct journal_found found = {0};
    int result = shrink->directory < 0 ? 0 : journal_scan(shrink->directory, &scan, &found);

    if (result < 0)
        return error_set(error, result, "cannot read %s: %s", shrink->journal, strerrordesc_np(-result));
    return found.batches == 0
               ? 0
               : error_set(
                     error, -EBUSY,
                     "the journal of %s has what the database lacks, as its mirror was killed: use the spool once "
                     "(`fastspool run -- true`), then `fastspool stop`, and try again",
                     shrink->state);
}

/* A file of another version, or with a damaged head, stays: the recovery asks an operator about it. */
static int remove_journal(const struct shrink *shrink, char *error)
{
    char name[PLACES_NAME_MAX];

    for (size_t i = 0; i < shrink->count; i++) {
        places_journal_file(shrink->files[i].name, name);
        if (!journal_scan_is_foreign(&shrink->files[i]) && unlinkat(shrink->directory, name, 0) < 0)
            return error_set(error, -errno, "cannot remove %s/%s: %s", shrink->journal, name, strerrordesc_np(errno));
    }
    return 0;
}

/* ---- the database ---- */

/* On the disk it may be the database, until the exchange is synced: also of a call that was killed. */
static int remove_new(const struct shrink *shrink)
{
    char path[PLACES_PATH_MAX + 16];
    int result = fd_sync_directory(shrink->state);

    if (result < 0)
        return result;
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        snprintf(path, sizeof(path), "%s/%s", shrink->new, parts[i]);
        if (unlink(path) < 0 && errno != ENOENT)
            return -errno;
    }
    return rmdir(shrink->new) < 0 && errno != ENOENT ? -errno : 0;
}

/* The batch that the database holds. */
static int read_held(struct database *database, uint64_t *held, char *error)
{
    struct disk_meta meta;
    MDB_txn *transaction;
    int result = database_begin(database, &transaction, &meta, error);

    if (result == 0)
        mdb_txn_abort(transaction);
    *held = result == 0 ? meta.batch : 0;
    return result;
}

/* LMDB syncs no copy, and gives it the mode that the caller's umask leaves. */
static int finish_new(const struct shrink *shrink)
{
    char path[PLACES_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/%s", shrink->new, parts[0]);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 || fchmod(fd, 0600) < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return result < 0 ? result : fd_sync_directory(shrink->new);
}

static int copy(struct database *database, const struct shrink *shrink, char *error)
{
    int result = remove_new(shrink);

    if (result == 0 && mkdir(shrink->new, 0700) < 0)
        result = -errno;
    int code = result < 0 ? -result : mdb_env_copy2(database->environment, shrink->new, MDB_CP_COMPACT);
    if (code == 0)
        code = -finish_new(shrink);
    return code == 0 ? 0
                     : error_set(error, code > 0 ? -code : -EIO, "cannot copy the database to %s: %s", shrink->new,
                                 mdb_strerror(code));
}

static int exchange(const struct shrink *shrink, char *error)
{
    if (renameat2(AT_FDCWD, shrink->new, AT_FDCWD, shrink->database, RENAME_EXCHANGE) < 0)
        return error_set(error, -errno, "cannot exchange %s and %s: %s", shrink->new, shrink->database,
                         strerrordesc_np(errno));
    return 0;
}

/* ---- all of it ---- */

static int run(struct shrink *shrink, struct shrunk *shrunk, char *error)
{
    struct database database;
    uint64_t held;
    int result = list_journal(shrink, error);

    if (result == 0)
        result = database_open(&database, shrink->database, error);
    if (result < 0)
        return result;
    shrunk->before = measure(shrink);
    result = read_held(&database, &held, error);
    if (result == 0)
        result = check_journal(shrink, held, error);
    if (result == 0)
        result = copy(&database, shrink, error);
    database_close(&database);
    if (result == 0)
        result = exchange(shrink, error);
    int removed = remove_new(shrink); /* the old database, or what of a new one is there */
    if (result == 0 && removed < 0)
        result = error_set(error, removed, "cannot remove %s: %s", shrink->new, strerrordesc_np(-removed));
    if (result == 0)
        result = remove_journal(shrink, error);
    shrunk->after = measure(shrink);
    return result;
}

int shrink_run(const char *state, struct shrunk *shrunk, char error[FASTSPOOL_ERROR_MAX])
{
    struct shrink *shrink = calloc(1, sizeof(*shrink));

    if (!shrink)
        return error_set(error, -ENOMEM, "no memory to shrink %s", state);
    shrink->state = state;
    shrink->directory = -1;
    places_in_state(state, PLACES_DATABASE, shrink->database);
    places_in_state(state, PLACES_DATABASE ".new", shrink->new);
    places_in_state(state, PLACES_JOURNAL, shrink->journal);
    int result = run(shrink, shrunk, error);
    if (shrink->directory >= 0)
        close(shrink->directory);
    free(shrink);
    return result;
}

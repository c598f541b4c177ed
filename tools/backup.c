/* SPDX-License-Identifier: MIT
 *
 * fastspool backup: a copy of a running spool's state on the disk, from which a recovery gives every message that was
 * acknowledged before the call.
 *
 * The happy path:
 *   - Flush, so that all of it is in the journal or in the database.
 *   - Copy the journal, then the database.  A checkpoint in between moves batches from the one to the other: the later
 *     copy of the database has them.
 *   - Verify the copy.
 *
 * Failure modes: the mirror has written while the journal was copied, so that a batch is missing between two others:
 * the verification finds it, and all is copied again, some times.  The copy is made under another name, and gets its
 * own when it is whole: a death leaves no half of a backup under the name that was given.
 */
#include "base/findings.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/verify.h"
#include "store/store.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#define TRIES  8
#define SUFFIX ".new"

static const char usage[] =
    "usage: fastspool backup [--spool DIR] DIRECTORY\n"
    "Writes a copy of the spool's state on the disk to DIRECTORY, which must not exist.  Exim may run.  A spool whose\n"
    "state directory is such a copy has every message that was acknowledged before the call.\n"
    "Exit status: 0 the copy is whole, 1 an error, 64 wrong arguments.\n";

/* By read and write: copy_file_range refuses (EXDEV) to copy to another file system, where a backup belongs. */
static int copy_bytes(int from, int to)
{
    static char bytes[1 << 16];
    ssize_t size;

    while ((size = read(from, bytes, sizeof(bytes))) > 0) {
        for (ssize_t at = 0, put; at < size; at += put) {
            if ((put = write(to, bytes + at, (size_t)(size - at))) < 0)
                return -errno;
        }
    }
    return size < 0 ? -errno : 0;
}

static int copy_file(int from_directory, int to_directory, const char *name)
{
    int from = openat(from_directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int to = from < 0 ? -1 : openat(to_directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = to < 0 ? -errno : copy_bytes(from, to);

    if (result == 0 && fsync(to) < 0)
        result = -errno;
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return result;
}

static int copy_journal(const char *state, const char *copy)
{
    char from[PLACES_PATH_MAX], to[PLACES_PATH_MAX];
    const struct dirent *entry;
    uint32_t number;
    int result = 0;

    places_in_state(state, PLACES_JOURNAL, from);
    places_in_state(copy, PLACES_JOURNAL, to);
    DIR *directory = opendir(from);
    int made = directory && (mkdir(to, 0700) == 0 || errno == EEXIST) ? open(to, O_RDONLY | O_DIRECTORY) : -1;
    if (made < 0)
        result = -errno;
    while (result == 0 && (entry = readdir(directory))) {
        if (places_parse_journal_file(entry->d_name, &number) == 0)
            result = copy_file(dirfd(directory), made, entry->d_name);
        result = result == -ENOENT ? 0 : result; /* a spare file, which a checkpoint has removed */
    }
    if (made >= 0)
        close(made);
    if (directory)
        closedir(directory);
    return result;
}

/* LMDB registers the look, so that the mirror keeps the pages that are being copied. */
static int copy_database(const char *state, const char *copy, const char **why)
{
    char from[PLACES_PATH_MAX], to[PLACES_PATH_MAX], file[PLACES_PATH_MAX + 16];
    MDB_env *environment;

    places_in_state(state, PLACES_DATABASE, from);
    places_in_state(copy, PLACES_DATABASE, to);
    snprintf(file, sizeof(file), "%s/data.mdb", to);
    if (mkdir(to, 0700) < 0 && errno != EEXIST)
        return -errno;
    unlink(file);
    int code = mdb_env_create(&environment);
    if (code == 0)
        code = mdb_env_open(environment, from, MDB_RDONLY | MDB_NOTLS, 0);
    if (code == 0)
        code = mdb_env_copy2(environment, to, MDB_CP_COMPACT);
    mdb_env_close(environment);
    *why = mdb_strerror(code);
    return code ? -EIO : 0;
}

/* What is wrong with the copy: the number of findings, the first one in @sentence. */
static int verify_copy(const char *copy, char sentence[FINDING_MAX])
{
    struct findings *findings = findings_new(1);
    struct verified verified;
    int result = findings ? verify_disk(copy, NULL, NULL, &verified, findings) : -ENOMEM;

    if (result == 0 && findings->count)
        snprintf(sentence, FINDING_MAX, "%s", findings->sentence[0]);
    if (result == 0)
        result = (int)findings->count;
    if (findings)
        findings_free(findings);
    return result;
}

static int backup(struct fastspool *fs, const char *path)
{
    char copy[FASTSPOOL_PATH_MAX], sentence[FINDING_MAX] = "";
    const char *why = NULL;
    struct stat st;
    int result = 1;

    if (snprintf(copy, sizeof(copy), "%s" SUFFIX, path) >= (int)sizeof(copy))
        return tool_error("the path %s is too long", path);
    if (lstat(path, &st) == 0)
        return tool_error("%s exists: give a directory that does not", path);
    if (mkdir(copy, 0700) < 0 && errno != EEXIST)
        return tool_error("cannot make %s: %s", copy, strerrordesc_np(errno));
    for (int tries = 0; result > 0 && tries < TRIES; tries++) {
        if ((result = fastspool_flush(fs, 0)) < 0)
            return tool_error("cannot write all of %s to the disk: %s", fs->spool, strerrordesc_np(-result));
        if ((result = copy_journal(fs->state, copy)) < 0)
            return tool_error("cannot copy the journal of %s to %s: %s", fs->spool, copy, strerrordesc_np(-result));
        if ((result = copy_database(fs->state, copy, &why)) < 0)
            return tool_error("cannot copy the database of %s to %s: %s", fs->spool, copy, why);
        result = verify_copy(copy, sentence);
    }
    if (result != 0)
        return tool_error("the copy %s is not whole: %s; try again when the spool is less busy", copy, sentence);
    /* NFS has no flags of rename; there only a directory that is empty could be replaced. */
    if (renameat2(AT_FDCWD, copy, AT_FDCWD, path, RENAME_NOREPLACE) < 0 && (errno != EINVAL || rename(copy, path) < 0))
        return tool_error("cannot rename %s to %s: %s", copy, path, strerrordesc_np(errno));
    printf("the state of %s is copied to %s\n", fs->spool, path);
    return 0;
}

int tool_backup(int argc, char **argv)
{
    const char *spool = tool_options(argc, argv, NULL, usage);

    if (optind != argc - 1) {
        fputs(usage, stderr);
        return EX_USAGE;
    }
    struct fastspool *fs = tool_attach(spool);
    if (!fs)
        return 1;
    int result = backup(fs, argv[optind]);
    fastspool_detach(fs);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * fastspool backup: a copy of a running spool's state on the disk, from which a recovery gives every message that was
 * acknowledged before the call.
 *
 * The happy path:
 *   - Make the directory of the copy, and give it to the spool's owner.
 *   - Flush, so that all of it is in the journal or in the database.
 *   - A child copies the journal, then the database.  A checkpoint in between moves batches from the one to the other:
 *     the later copy of the database has them.  Then it verifies the copy.
 *   - Take the copy from the owner, and from all others who could look into it, give it its name, and sync that.
 *
 * Failure modes:
 *   - The mirror has written while the journal was copied, so that a batch is missing between two others: the
 *     verification finds it, and all is copied again, some times.
 *   - A death: the copy is made under another name, and gets its own when it is whole, so no half of a backup is left
 *     under the name that was given.  The next call waits for the child, removes what is there, and begins anew.
 *   - Another call writes to the same directory: one of them is refused.
 *   - The mail user writes what is read, database and LMDB's mutexes too: the child has his rights and no others.
 *   - Somebody else has made a directory where the copy shall be made: refused.  He could read it.
 *   - The mail user, who may stop the child, has linked other files into the copy, or put something else in its place:
 *     there is no backup.
 *   - A file system where root can't give a directory away (NFS with root_squash): refused.
 *   - The list of the journal's files breaks off: there is no backup.
 *   - Mail lies on the plain disk, which Exim changes by its own rules: it is counted, and no part of the copy.
 *   - An export is under way: refused, as its messages are in both places and in none.  What a killed one has left is
 *     copied as it is, and told.
 */
#include "base/findings.h"
#include "base/places.h"
#include "base/rights.h"
#include "fastspool.h"
#include "interrupt.h"
#include "lock.h"
#include "mirror/verify.h"
#include "plain/census.h"
#include "plain/export.h"
#include "progress.h"
#include "spool/viewed.h"
#include "standstill.h"
#include "status.h"
#include "store/store.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES    8
#define SUFFIX   ".new"
#define FINDINGS 1u
#define PARTLY   2 /* an exit status */

/* Of the child, as its exit status. */
enum outcome { WHOLE = 100, TORN, FAILED };

static const char usage[] =
    "usage: fastspool backup [--spool DIR] DIRECTORY\n"
    "Writes a copy of the spool's state on the disk to DIRECTORY, which must not exist.  Exim may run.  A spool whose\n"
    "state directory is such a copy has every message that was acknowledged before the call.\n"
    "Exit status: 0 the copy is whole, 1 an error, 2 the copy is whole, and mail on the plain disk is no part of it,\n"
    "64 wrong arguments.\n";

/* ---- in the child, in the directory of the copy ---- */

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
    int from = openat(from_directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
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

static int copy_journal(const char *state)
{
    char from[PLACES_PATH_MAX];
    const struct dirent *entry;
    uint32_t number;
    int result = 0;

    places_in_state(state, PLACES_JOURNAL, from);
    DIR *directory = opendir(from);
    int made = directory && (mkdir(PLACES_JOURNAL, 0700) == 0 || errno == EEXIST)
                   ? open(PLACES_JOURNAL, O_RDONLY | O_DIRECTORY)
                   : -1;
    if (made < 0)
        result = -errno;
    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        if (places_parse_journal_file(entry->d_name, &number) == 0)
            result = copy_file(dirfd(directory), made, entry->d_name);
        result = result == -ENOENT ? 0 : result; /* a spare file, which a checkpoint has removed */
    }
    if (result == 0)
        result = -errno; /* the list broke off */
    if (made >= 0)
        close(made);
    if (directory)
        closedir(directory);
    return result;
}

/* LMDB registers the look, so that the mirror keeps the pages that are being copied.  A code of LMDB's. */
static int copy_database(const char *state)
{
    char from[PLACES_PATH_MAX];
    MDB_env *environment;

    places_in_state(state, PLACES_DATABASE, from);
    if (mkdir(PLACES_DATABASE, 0700) < 0 && errno != EEXIST)
        return errno;
    unlink(PLACES_DATABASE "/data.mdb");
    int code = mdb_env_create(&environment);
    if (code == 0)
        code = mdb_env_open(environment, from, MDB_RDONLY | MDB_NOTLS, 0);
    if (code == 0)
        code = mdb_env_copy2(environment, PLACES_DATABASE, MDB_CP_COMPACT);
    mdb_env_close(environment);
    return code;
}

/* What else was written: no half of a copy may get its name, also by a power cut. */
static int sync_rest(void)
{
    static const char *const paths[] = {PLACES_DATABASE "/data.mdb", PLACES_DATABASE, PLACES_JOURNAL, "."};
    int result = 0;

    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths) && result == 0; i++) {
        int fd = open(paths[i], O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL)) /* a file system that syncs no directories */
            result = -errno;
        if (fd >= 0)
            close(fd);
    }
    return result;
}

static enum outcome copy(const char *state, struct findings *findings)
{
    struct verified verified;
    int result, code;

    if ((result = copy_journal(state)) < 0)
        findings_add(findings, "the journal can't be copied: %s", strerrordesc_np(-result));
    else if ((code = copy_database(state)) != 0)
        findings_add(findings, "the database can't be copied: %s", mdb_strerror(code));
    else if ((result = sync_rest()) < 0)
        findings_add(findings, "the copy can't be written to the disk: %s", strerrordesc_np(-result));
    else if ((result = verify_disk(".", NULL, NULL, &verified, findings)) < 0)
        findings_add(findings, "the copy can't be verified: %s", strerrordesc_np(-result));
    else
        return findings->count ? TORN : WHOLE;
    return FAILED;
}

/* ---- in the parent ---- */

struct backup {
    struct fastspool *fs;
    char path[FASTSPOOL_PATH_MAX]; /* under which the copy is made */
    int directory;                 /* it, open */
    bool locked;                   /* and no other call's */
    struct findings *findings;     /* the child's, who may have written anything there */
    struct findings *told;         /* this process's own */
};

/* The child's outcome; a child that LMDB has led astray dies. */
static enum outcome copy_in_child(const struct backup *b)
{
    int status = 0;
    struct rights rights = rights_of_owner(b->fs->owner, b->fs->group);
    pid_t parent = getpid(), child = fork();

    if (child == 0) {
        findings_free(b->told, FINDINGS); /* shared, too: the child must have no way to it */
        umask(077);
        int result = fchdir(b->directory) < 0 ? -errno : rights_confine(parent, b->directory); /* it keeps the lock */
        if (result < 0)
            findings_add(b->findings, "the copy can't be made as the spool's owner: %s", strerrordesc_np(-result));
        _exit(result < 0 ? FAILED : copy(b->fs->state, b->findings));
    }
    int error = errno;
    rights_back(rights);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    findings_join(b->told, b->findings, FINDINGS);
    if (child < 0)
        findings_add(b->told, "no process can be made: %s", strerrordesc_np(error));
    else if (WIFSIGNALED(status))
        findings_add(b->told, "the process that reads the database has died: %s", strsignal(WTERMSIG(status)));
    return child > 0 && WIFEXITED(status) ? (enum outcome)WEXITSTATUS(status) : FAILED;
}

/* ---- the files of the copy ---- */

/* What is done with each file of a copy, and with each directory before and after that. */
struct work {
    int (*enter)(int fd);
    int (*file)(int directory, const char *name);
    int (*leave)(int above, const char *name);
};

/* Is @name one that a copy has: of the two directories, or in them? */
static bool is_of_copy(const char *name, bool directory)
{
    uint32_t number;

    if (directory)
        return strcmp(name, PLACES_JOURNAL) == 0 || strcmp(name, PLACES_DATABASE) == 0;
    return places_parse_journal_file(name, &number) == 0 || strcmp(name, "data.mdb") == 0 ||
           strcmp(name, "lock.mdb") == 0;
}

static int walk(int fd, bool top, const struct work *work);

static int walk_below(int above, const char *name, const struct work *work)
{
    int fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOTDIR || errno == ELOOP ? -EEXIST : -errno;
    int result = walk(fd, false, work);
    return result < 0 ? result : work->leave(above, name);
}

/* Go through the directory @fd, which is closed; @top: through the directories in it, too.  -EEXIST: there is what no
 * copy has. */
static int walk(int fd, bool top, const struct work *work)
{
    const struct dirent *entry;
    DIR *directory = fdopendir(fd);
    int result = directory ? work->enter(fd) : -errno;

    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (!is_of_copy(name, top))
            result = -EEXIST;
        else
            result = top ? walk_below(fd, name, work) : work->file(fd, name);
    }
    if (result == 0)
        result = -errno; /* the list broke off */
    if (directory)
        closedir(directory);
    else
        close(fd);
    return result;
}

static int walk_copy(const struct backup *b, const struct work *work)
{
    int fd = openat(b->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : walk(fd, true, work);
}

static int enter_any(int fd)
{
    (void)fd;
    return 0;
}

static int remove_file(int directory, const char *name)
{
    return unlinkat(directory, name, 0) < 0 ? -errno : 0;
}

static int remove_directory(int above, const char *name)
{
    return unlinkat(above, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* A call that was killed while it took its copy from the owner has left what he can't write any more. */
static const struct work removal = {enter_any, remove_file, remove_directory};

static bool is_alone(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1;
}

static int take_directory(int fd)
{
    return fchown(fd, 0, 0) < 0 || fchmod(fd, 0700) < 0 ? -errno : 0;
}

static int take_open(int fd)
{
    if (!is_alone(fd))
        return -EMLINK;
    if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0600) < 0)
        return -errno;
    return is_alone(fd) ? 0 : -EMLINK; /* from here on he can't link it */
}

/* The mail user may have linked another file into the copy, which would become root's, or the copy's out of it. */
static int take_file(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int result = fd < 0 ? -errno : take_open(fd);

    if (fd >= 0)
        close(fd);
    return result == -ELOOP ? -EMLINK : result;
}

static int leave_any(int above, const char *name)
{
    (void)above;
    (void)name;
    return 0;
}

/* Root's again, and nobody else's to look into. */
static const struct work taking = {take_directory, take_file, leave_any};

/* ---- the directory of the copy ---- */

/* In a directory that all may write to, as /tmp, the spool's owner could rename it while it was his. */
static bool is_in_its_place(const struct backup *b)
{
    struct stat made, named;
    return fstat(b->directory, &made) == 0 && lstat(b->path, &named) == 0 && made.st_dev == named.st_dev &&
           made.st_ino == named.st_ino;
}

/* Held for life, by the child, too: two calls would write into one copy.  A file system without locks of directories,
 * as NFS, does without. */
static int lock_directory(const struct backup *b)
{
    if (lock_take(b->directory, NULL, NULL) == -EWOULDBLOCK)
        return tool_error("another `fastspool backup` writes to %s: give another directory, or wait for it", b->path);
    return is_in_its_place(b)
               ? 0
               : tool_error("another `fastspool backup` has used %s meanwhile: give another directory", b->path);
}

/* Root's call gives it to the spool's owner. */
static int clear(const struct backup *b)
{
    int result = walk_copy(b, &removal);

    if (result == -EEXIST)
        return tool_error("%s is there, and holds what can't be the rest of an interrupted call: remove it", b->path);
    if (result < 0)
        return tool_error("cannot remove what an interrupted call has left in %s: %s", b->path,
                          strerrordesc_np(-result));
    if (geteuid() == 0 && fchown(b->directory, b->fs->owner, b->fs->group) < 0)
        return tool_error("cannot give %s to the spool's owner: %s", b->path, strerrordesc_np(errno));
    return 0;
}

/* Make the directory, or take that of a call which was killed: it is this user's or the spool owner's, and nobody
 * else's to look into. */
static int make_directory(struct backup *b)
{
    char user[ERROR_USER];
    struct stat st;
    bool made = mkdir(b->path, 0700) == 0;

    if (!made && errno != EEXIST)
        return tool_error("cannot make %s: %s", b->path, strerrordesc_np(errno));
    b->directory = open(b->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (b->directory < 0 || fstat(b->directory, &st) < 0)
        return tool_error("cannot open %s: %s", b->path, strerrordesc_np(errno));
    if ((st.st_uid != geteuid() && st.st_uid != b->fs->owner) || (st.st_mode & 077))
        return tool_error("%s, under which the copy is made, is %s's or open to others: remove it", b->path,
                          error_user(st.st_uid, user));
    b->locked = lock_directory(b) == 0;
    return b->locked ? clear(b) : 1;
}

static int take_back(const struct backup *b)
{
    int result = walk_copy(b, &taking);

    if (result == -EMLINK || result == -EEXIST)
        return tool_error(
            "%s holds what this call has not copied, or is linked elsewhere: the spool's owner has put it "
            "there; remove it, and see what runs as that user",
            b->path);
    return result < 0 ? tool_error("cannot take %s from the spool's owner: %s", b->path, strerrordesc_np(-result)) : 0;
}

static int copy_until_whole(const struct backup *b)
{
    enum outcome outcome = TORN;
    int result;

    for (int tries = 0; outcome == TORN && tries < TRIES; tries++) {
        b->findings->count = b->told->count = 0;
        if ((result = fastspool_flush(b->fs, 0)) < 0)
            return tool_error("cannot write all of %s to the disk: %s", b->fs->spool, strerrordesc_np(-result));
        outcome = copy_in_child(b);
    }
    const char *why = b->told->count ? b->told->sentence[0] : "it has died";
    if (outcome == TORN)
        tool_error("the copy %s is not whole: %s; try again when the spool is less busy", b->path, why);
    else if (outcome != WHOLE)
        tool_error("cannot copy the state of %s to %s: %s", b->fs->spool, b->path, why);
    return outcome != WHOLE;
}

/* ---- mail that is not in the state ---- */

/* What comes to the plain disk later is later than the call; what goes from the one to the other place meanwhile counts
 * once too often rather than not at all. */
static struct census count_outside(struct fastspool *fs)
{
    struct census census;

    census_take(&census, fs, viewed(fs->spool) > 0);
    return census;
}

/* What is on its way out of the store has its files in neither place alone. */
static int refuse_export(struct fastspool *fs)
{
    return export_runs(fs)
               ? tool_error("there is no copy: an export of %s runs: try again when it has come to its end", fs->spool)
               : 0;
}

static int say_half(const struct census *census)
{
    char line[STATUS_LINE];

    if (!status_half_moved(census, line))
        return 0;
    tool_error("%s; the copy has them as they are: make another one then", line);
    return PARTLY;
}

static int say_outside(const struct fastspool *fs, const struct census *before, const struct census *after)
{
    int64_t most = before->disk > after->disk ? before->disk : after->disk;
    int64_t error = before->disk < after->disk ? before->disk : after->disk;
    int result = say_half(after);

    if (most > 0) {
        tool_error("%" PRId64
                   " message%s on the plain disk of %s %s no part of the copy: move %s into the store first, by "
                   "`fastspool import` or the start of a view, or copy the directories input and msglog, too",
                   most, tool_plural((uint64_t)most), fs->spool, most == 1 ? "is" : "are", most == 1 ? "it" : "them");
        return PARTLY;
    }
    if (error < 0) {
        tool_error(
            "it can't be said whether mail lies on the plain disk of %s, which is no part of the copy: %s: run it "
            "as root",
            fs->spool, strerrordesc_np((int)-error));
        return PARTLY;
    }
    return result;
}

static int give_name(const struct backup *b, const char *path)
{
    if (!is_in_its_place(b))
        return tool_error(
            "%s is not the directory any more in which the copy was made: give one in a directory that "
            "root alone can write",
            b->path);
    /* NFS has no flags of rename; there only a directory that is empty could be replaced. */
    if (renameat2(AT_FDCWD, b->path, AT_FDCWD, path, RENAME_NOREPLACE) < 0 &&
        (errno != EINVAL || rename(b->path, path) < 0))
        return tool_error("cannot rename %s to %s: %s", b->path, path, strerrordesc_np(errno));
    return syncfs(b->directory) < 0 ? tool_error("cannot write %s to the disk: %s", path, strerrordesc_np(errno)) : 0;
}

/* The next call would begin anew in what a failed one leaves.  What no copy has stays, with its directory. */
static void remove_rest(const struct backup *b)
{
    if (b->locked && is_in_its_place(b) && walk_copy(b, &removal) == 0)
        rmdir(b->path);
}

static int back_up(struct backup *b, const char *path)
{
    struct stat st;

    if (snprintf(b->path, sizeof(b->path), "%s" SUFFIX, path) >= (int)sizeof(b->path))
        return tool_error("the path %s is too long", path);
    if (lstat(path, &st) == 0)
        return tool_error("%s exists: give a directory that does not", path);
    static char interrupted[2 * FASTSPOOL_PATH_MAX + 128];
    snprintf(interrupted, sizeof(interrupted),
             "there is no copy %s: run `fastspool backup` again, which begins anew in what is left, %s", path, b->path);
    interrupt_says(interrupted);
    progress_begin("copying");
    const struct census before = count_outside(b->fs);
    bool failed = refuse_export(b->fs) != 0 || make_directory(b) != 0 || copy_until_whole(b) != 0;
    const struct census after = count_outside(b->fs);
    failed = failed || refuse_export(b->fs) != 0;
    progress_end();
    if (failed || (geteuid() == 0 && take_back(b) != 0) || give_name(b, path) != 0) {
        remove_rest(b);
        return 1;
    }
    printf("the state of %s is copied to %s\n", b->fs->spool, path);
    fflush(stdout);
    return say_outside(b->fs, &before, &after);
}

int tool_backup(int argc, char **argv)
{
    const char *spool = tool_options(argc, argv, NULL, usage);

    const char *path = *tool_operands(argc, argv, 1, 1, "a DIRECTORY, which must not exist", usage);
    struct backup b = {.directory = -1, .findings = findings_new(FINDINGS), .told = findings_new(FINDINGS)};
    if (!b.findings || !b.told)
        return tool_error("there is no memory");
    b.fs = tool_attach(spool);
    if (b.fs)
        standstill_begin(b.fs->spool, NULL, b.fs);
    int result = b.fs ? back_up(&b, path) : 1;
    standstill_end();
    if (b.directory >= 0)
        close(b.directory);
    if (b.fs)
        fastspool_detach(b.fs);
    findings_free(b.findings, FINDINGS);
    findings_free(b.told, FINDINGS);
    return result;
}

/* SPDX-License-Identifier: MIT
 *
 * Export, the reverse of the import.  A message is moved once, whenever a process is killed or the power fails.  So at
 * no instant both store and disk have it under a name that Exim finds; census.c counts what neither has:
 *
 *   1. copy     Exim's lock on the store's -D file; all files are copied to the disk, under names that Exim doesn't
 *               know, and synced
 *   2. decide   in the store the files go to .export/tree, the -H file first, and that is flushed.  The disk has the
 *               message from here on
 *   3. show     the copies get their names, -H files last, and that is synced
 *   4. remove   the store's files, the -H file last
 *
 * A batch of messages goes through this at a time, because a flush is a commit.  An export begins with what a killed
 * one has left: what is in .export/tree is shown and removed.  Every other copy is of a message that the store still
 * has: it is removed.  The file .export/to names the spool that the tree belongs to, and its lock says that an export
 * runs.  The number in .export/number is part of the names of the copies.  It tells them from those of another store
 * that exports to the same spool, and must keep them: a copy that is missing counts as shown.  Both files are flushed
 * before the first copy is made, as after a power cut nobody else would know whose it is.  And a file with the number
 * marks the directory that the copies go to: where that is not mounted, all copies would be missing.
 *
 * A process may have opened a -D file, sleep before it locks it, and find the message's -H file on the disk: two
 * processes would deliver one message.  So step 3 waits until nobody else has the file of .export/tree open.
 *
 * What belongs to no message needs no lock.  Files of a message without a -D file wait for the end, because an Exim
 * that has delivered it may just be removing them.
 *
 * Failure modes: a message that is locked, or that somebody keeps open, stays in the store, and so does a file that
 * changes while it is copied.  So does one that the disk has with another content; with the same content the store's
 * alone is removed.  The disk is full, or a commit fails: the batch goes back to the store, and the export ends.  The
 * directory has no mark: what is in the tree stays there, and the export ends.
 */
#include "plain/export.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "plain/disk.h"
#include "plain/export_inside.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SETTLED NS_PER_S

/* The store asks it for no permission. */
static const struct fastspool_client server;

int export_fail(struct export *ex, int code, const char *what, const char *path)
{
    char shown[FASTSPOOL_PATH_MAX];

    return error_set(ex->result->error, code, "cannot %s %s: %s", what,
                     escape_bytes(shown, sizeof(shown), path, strlen(path)), strerrordesc_np(-code));
}

void export_tell(const struct export *ex, const char *path, const char *why)
{
    if (ex->result->tell)
        ex->result->tell(path, why);
}

int export_leave_locked(const struct export *ex, const char *path)
{
    ex->result->locked++;
    export_tell(ex, path, "a process works on it");
    return 0;
}

/* ---- the store's files ---- */

int export_lock(struct export *ex, const char *data)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    uint64_t opened = 0, named = 1;
    struct stat st;
    int description = fastspool_open(ex->fs, data, O_RDWR, 0);

    if (description < 0)
        return description;
    int result = fastspool_lock(ex->fs, description, F_SETLK, &whole);
    if (result == -EACCES)
        result = -EAGAIN;
    if (result == 0)
        result = fastspool_lookup(ex->fs, data, &named, &st);
    if (result == 0)
        result = fastspool_flookup(ex->fs, description, &opened, &st);
    if (result == 0 && (opened != named || disk_is_being_made(&st)))
        result = -EAGAIN;
    if (result < 0)
        fastspool_close(ex->fs, description);
    return result < 0 ? result : description;
}

/* The group that @path belongs to.  @data: the path of its -D file; "": it belongs to no message. */
static int export_group(struct export *ex, const char *path, const char *data, bool locked)
{
    struct group *group = &ex->group[ex->groups];

    *group = (struct group){.description = -1, .message = *data};
    if (locked)
        group->description = export_lock(ex, data);
    else if (!*data)
        group->description = fastspool_open(ex->fs, path, O_RDONLY, 0);
    if (group->description == -EAGAIN)
        return export_leave_locked(ex, data);
    if (group->description < 0 && (locked || !*data))
        return group->description == -ENOENT ? 0 : export_fail(ex, group->description, "open", path);
    ex->groups++;
    int result = export_copy_group(ex, group, data, path);
    if (result == DONE && group->files > 0)
        return ex->groups == BATCH || ex->bytes >= BATCH_BYTES ? export_commit(ex, false) : 0;
    ex->groups--;
    if (result == CHANGED)
        export_leave_locked(ex, *data ? data : path);
    ex->result->conflicts += result == CONFLICT;
    ex->result->left += result == LEFT;
    if (result == CONFLICT)
        export_tell(ex, path, "the disk has another file of that name");
    if (result == LEFT)
        export_tell(ex, path, "only root can make it on the disk, or its name is too long");
    int back = export_give_back(ex, group);
    return result < 0 ? export_fail(ex, result, "copy", path) : back;
}

bool export_goes_with(const char *path, const char *data)
{
    char member[PATH_MAX];

    for (unsigned n = 0; exim_member(data, n, member); n++) {
        if (strcmp(member, path) == 0)
            return true;
    }
    return false;
}

static int visit_file(struct export *ex, const char *path)
{
    char data[PATH_MAX];
    bool message = exim_family(path, data) && export_goes_with(data, data);
    bool whole = message && export_has(ex, data);

    if (!message)
        data[0] = '\0';
    if (whole && strcmp(path, data) != 0) /* it goes with the -D file, or stays with a locked one */
        return 0;
    bool waits = message && !whole;
    ex->waiting = ex->waiting || waits;
    return waits == ex->late && export_has(ex, path) ? export_group(ex, path, data, whole) : 0;
}

/* ---- begin and end ---- */

/* Read or write the number of the copies.  1: it is new.  One that has decided goes on with the names that it has.  One
 * that has not, and whose mark this disk does not have, has begun on another, which may come back to this path. */
static int number_copies(struct export *ex)
{
    int file = fastspool_open(ex->fs, NUMBER, O_RDWR | O_CREAT, 0600);
    ssize_t size = file < 0 ? file : fastspool_pread(ex->fs, file, &ex->number, sizeof(ex->number), 0);

    places_copied(size == sizeof(ex->number) ? ex->number : 0, ex->copied);
    bool known = size == sizeof(ex->number) && disk_has_mark(ex->disk, ex->copied);
    bool fresh = size >= 0 && !known && !export_has(ex, TREE);
    if (fresh && getrandom(&ex->number, sizeof(ex->number), 0) == sizeof(ex->number))
        size = fastspool_pwrite(ex->fs, file, &ex->number, sizeof(ex->number), 0);
    if (fresh && size >= 0 && size != sizeof(ex->number))
        size = -EIO;
    if (file >= 0)
        fastspool_close(ex->fs, file);
    places_copied(ex->number, ex->copied);
    return size < 0 ? export_fail(ex, (int)size, "number", NUMBER) : fresh;
}

/* Write into the file @target where the copies go, after another export went to @before, and number them, durably. */
static int note(struct export *ex, int target, const char *before)
{
    bool same = strcmp(before, ex->to) == 0;
    int result = same ? 0 : fastspool_ftruncate(ex->fs, target, 0);

    if (result == 0 && !same)
        result = (int)fastspool_pwrite(ex->fs, target, ex->to, strlen(ex->to), 0);
    if (result < 0)
        return export_fail(ex, result, "write", TARGET);
    result = number_copies(ex);
    return result < 0 || (result == 0 && same) ? result : export_flush(ex);
}

static int another_runs(struct export *ex)
{
    return error_set(ex->result->error, -EBUSY, "another export of %s runs", inside_spool(ex->fs));
}

/* An export that was killed has it until the fsync that it is in returns. */
static int lock_target(struct export *ex, int target, uint64_t until)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result;

    while ((result = fastspool_lock(ex->fs, target, F_SETLK, &whole)) == -EAGAIN || result == -EACCES) {
        if (clock_monotonic() >= until)
            return another_runs(ex);
        clock_sleep(10 * NS_PER_MS);
    }
    return result < 0 ? export_fail(ex, result, "lock", TARGET) : 0;
}

/* An export that came to its end has removed it since it was opened. */
static bool is_removed(struct export *ex, int target)
{
    uint64_t opened = 0, named = 0;
    struct stat st;

    return fastspool_flookup(ex->fs, target, &opened, &st) < 0 || fastspool_lookup(ex->fs, TARGET, &named, &st) < 0 ||
           opened != named;
}

/* Open and lock the file that says where the tree belongs.  Its description. */
static int open_target(struct export *ex)
{
    uint64_t until = clock_monotonic() + PATIENCE;

    for (;;) {
        int result = export_parents_in_store(ex, TARGET);
        int target = result < 0 ? result : fastspool_open(ex->fs, TARGET, O_RDWR | O_CREAT, 0600);
        bool late = clock_monotonic() >= until;
        if (target == -ENOENT && !late) /* the directory, too */
            continue;
        if (target < 0)
            return export_fail(ex, target, "make", TARGET);
        result = lock_target(ex, target, until);
        if (result == 0 && !is_removed(ex, target))
            return target;
        if (result == 0 && late) /* each time */
            result = another_runs(ex);
        fastspool_close(ex->fs, target);
        if (result < 0)
            return result;
    }
}

/* Mark the directory that the copies go to, before there is a tree; then look whether it has the mark. */
static int mark(struct export *ex)
{
    char shown[ESCAPE_ROOM(FASTSPOOL_PATH_MAX)];
    const char *to = strcmp(ex->to, OWN) == 0 ? inside_spool(ex->fs) : ex->to;

    if (!export_has(ex, TREE)) {
        int result = disk_make_mark(ex->disk, ex->copied);
        return result < 0 ? export_fail(ex, result, "mark", to) : 0;
    }
    if (!ex->number || disk_has_mark(ex->disk, ex->copied))
        return 0;
    return error_set(ex->result->error, -EXDEV,
                     "%s is not the directory to which an export was interrupted, which has a file %shere: mount its "
                     "file system",
                     escape_bytes(shown, sizeof(shown), to, strlen(to)), ex->copied);
}

/* An export that failed has given back what was in the tree, and one that was killed then has left directories. */
static int visit_nothing(struct export *ex, const char *path)
{
    (void)ex;
    (void)path;
    return 0;
}

static int prune(struct export *ex)
{
    return export_each_file(ex, TREE, "", visit_nothing);
}

/* Begin with what was noted before.  The description of the target; -EXDEV: the tree is another spool's. */
static int begin(struct export *ex)
{
    char before[FASTSPOOL_PATH_MAX] = "", shown[ESCAPE_ROOM(FASTSPOOL_PATH_MAX)],
         word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];
    int target = open_target(ex), result = 0;

    if (target < 0)
        return target;
    if (fastspool_pread(ex->fs, target, before, sizeof(before) - 1, 0) < 0)
        result = export_fail(ex, -EIO, "read", TARGET);
    bool own = strcmp(before, OWN) == 0;
    if (result == 0)
        result = prune(ex);
    if (result == 0 && *before && strcmp(before, ex->to) != 0 && export_has(ex, TREE))
        result =
            error_set(ex->result->error, -EXDEV,
                      "an export to %s was interrupted%s: finish it first, with `fastspool export%s%s`",
                      own ? "the spool's own directory" : escape_bytes(shown, sizeof(shown), before, strlen(before)),
                      own ? "" : ", as a file says that the mail user can write", own ? "" : " ",
                      own              ? ""
                      : *before == '/' ? escape_word(word, sizeof(word), before)
                                       : "DIRECTORY");
    if (result == 0)
        result = note(ex, target, before);
    if (result >= 0)
        result = mark(ex);
    if (result < 0)
        fastspool_close(ex->fs, target);
    return result < 0 ? result : target;
}

/* All of the tree is moved, or there was none: nothing is left of the export.  A power cut must not bring the tree back
 * without its mark. */
static int end(struct export *ex)
{
    int result = export_flush(ex);

    if (result < 0)
        return result;
    disk_remove_mark(ex->disk, ex->copied);
    fastspool_unlink(ex->fs, NUMBER); /* there is no number without a target */
    fastspool_unlink(ex->fs, TARGET);
    return 0;
}

/* How much of an export: all of it; what a killed one has decided; that, and the end. */
enum extent { WHOLE, DECIDED, DECIDED_AND_END };

static int run(struct export *ex, enum extent extent)
{
    struct fastspool_status status;
    bool whole = extent == WHOLE;

    if (fastspool_status(ex->fs, &status) == 0)
        ex->result->total = status.files;
    if (ex->result->progress)
        ex->result->progress(ex->result);
    int target = begin(ex);
    int result = target < 0 ? target : export_go_on(ex);
    if (result == 0 && whole && export_has(ex, PLACES_IMPORT))
        result = error_set(ex->result->error, -EUCLEAN,
                           "an import was interrupted: run `fastspool import` first, which goes on with it");
    uint64_t since = clock_precise();
    for (int late = 0; late < 2 && result == 0 && whole && (!late || ex->waiting); late++) {
        uint64_t gone = clock_precise() - since;
        if (late && gone < SETTLED)
            clock_sleep(SETTLED - gone);
        ex->late = late;
        result = export_each_file(ex, "", "", visit_file);
        int last = export_commit(ex, false);
        result = last < 0 ? last : result;
    }
    if (result == 0 || result == -ECANCELED) {
        int last = export_go_on(ex);
        result = last < 0 ? last : result;
    }
    if ((result == 0 || result == -ECANCELED) && extent != DECIDED && !export_has(ex, TREE)) {
        int last = end(ex);
        result = last < 0 ? last : result;
    }
    if (target >= 0 && result < 0) {
        char why[FASTSPOOL_ERROR_MAX];
        memcpy(why, ex->result->error, sizeof(why));
        prune(ex); /* nothing is in there, unless it goes on as a killed one's */
        memcpy(ex->result->error, why, sizeof(why));
    }
    if (target >= 0)
        fastspool_close(ex->fs, target);
    fastspool_rmdir(ex->fs, PLACES_EXPORT);
    return result < 0 ? result : export_flush(ex);
}

/* @copied: what the names of its copies began with; "": they had no number. */
static int export(struct fastspool *fs, int directory, const char *to, struct export_result *result, enum extent extent,
                  char copied[PLACES_COPIED_MAX])
{
    struct export *ex = calloc(1, sizeof(*ex));
    struct stat st = {0};

    result->error[0] = copied[0] = '\0';
    if (!ex || fstat(directory, &st) < 0) {
        free(ex);
        return error_set(result->error, -ENOMEM, "no memory for an export");
    }
    ex->fs = fs;
    ex->disk = directory;
    ex->device = st.st_dev;
    ex->to = to ? to : OWN;
    ex->result = result;
    fastspool_act_for(&server);
    ex->end = fastspool_list_end(fs);
    int code = run(ex, extent);
    fastspool_act_for(NULL);
    if (ex->number)
        strcpy(copied, ex->copied);
    free(ex);
    return code;
}

int export_run(struct fastspool *fs, int directory, const char *to, struct export_result *result)
{
    char copied[PLACES_COPIED_MAX];

    return export(fs, directory, to, result, WHOLE, copied);
}

/* Where an export goes that has begun, and not come to its end; "": none has, or it can't be said. */
static void read_target(struct fastspool *fs, char to[FASTSPOOL_PATH_MAX])
{
    fastspool_act_for(&server);
    int target = fastspool_open(fs, TARGET, O_RDONLY, 0);
    fastspool_act_for(NULL);
    ssize_t size = target < 0 ? 0 : fastspool_pread(fs, target, to, FASTSPOOL_PATH_MAX - 1, 0);
    if (target >= 0)
        fastspool_close(fs, target);
    to[size > 0 ? size : 0] = '\0';
}

int export_finish(struct fastspool *fs, int directory, struct export_result *result, char copied[PLACES_COPIED_MAX])
{
    char to[FASTSPOOL_PATH_MAX];
    struct stat st;

    read_target(fs, to);
    copied[0] = '\0';
    if (*to ? strcmp(to, OWN) != 0 : fastspool_stat(fs, TREE, &st) < 0)
        return 0; /* another spool's stays in the tree */
    int code = export(fs, directory, NULL, result, DECIDED, copied);
    if (code < 0)
        copied[0] = '\0';
    return code;
}

int export_end(struct fastspool *fs, int directory, struct export_result *result)
{
    char to[FASTSPOOL_PATH_MAX], copied[PLACES_COPIED_MAX];

    read_target(fs, to);
    return strcmp(to, OWN) == 0 ? export(fs, directory, NULL, result, DECIDED_AND_END, copied) : 0;
}

bool export_runs(struct fastspool *fs)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    fastspool_act_for(&server);
    int target = fastspool_open(fs, TARGET, O_RDWR, 0);
    fastspool_act_for(NULL);
    bool runs = target >= 0 && fastspool_lock(fs, target, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (target >= 0)
        fastspool_close(fs, target);
    return runs;
}

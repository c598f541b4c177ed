/* SPDX-License-Identifier: MIT
 *
 * Import.  A message is moved once, whenever a process is killed or the power fails.  So at no instant both disk
 * and store have it under a name that Exim finds; census.c counts what neither has:
 *
 *   1. stage     Exim's lock on the disk's -D file; all files are copied to .import/new in the store, and flushed
 *   2. take      on the disk the -H file gets a name that Exim doesn't know, and then the -D file
 *   3. decide    .import/new becomes .import/taken, and that is flushed.  The store has the message from here on
 *   4. publish   the files get their names in the store, -H files last
 *   5. remove    the disk's files, the -H file last
 *
 * First an export is finished that was killed (export.c): what was on its way to this disk goes on, and is imported.
 *
 * A process may have opened a -D file, sleep before it locks it, and find the message's -H file in the store: two
 * processes would deliver one message.  So step 3 waits until nobody else has the renamed -D file open.
 *
 * A batch of messages goes through this at a time, because a flush is a commit.  A pass begins with what a killed one
 * has left: .import/taken is published; from .import/new the disk's -H files get their names back, and it is removed.
 * An -H file with the other name that neither tree knows belongs to a message that was published: its files are
 * removed.
 *
 * What belongs to no message needs no lock and no other name.  It is copied, and removed where the store has the same
 * content.  Files of a message without a -D file wait for the end of the pass, because an Exim that has delivered it
 * may just be removing them.  Of a file with two names two are made.
 *
 * Failure modes: a file that changes while it is read stays, with its message, as one that is locked, and so does a
 * message whose -D file somebody keeps open.  A file that the
 * store has with another content stays, with its message.  The store is full, or a commit fails: the batch goes back to
 * the disk, and the pass ends.
 */
#include "plain/import.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "plain/disk.h"
#include "plain/export.h"
#include "plain/import_inside.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define BATCH_BYTES (UINT64_C(8) << 20)
#define PATIENCE    (3 * NS_PER_S) /* with a process that has a file open */
#define SETTLED     NS_PER_S       /* no Exim takes so long between its unlinks of one message */

const struct fastspool_client import_server;

int import_fail(struct import *im, int code, const char *what, const char *path)
{
    char shown[FASTSPOOL_PATH_MAX];

    return error_set(im->result->error, code, "%s %s: %s", what, escape_bytes(shown, sizeof(shown), path, strlen(path)),
                     strerrordesc_np(-code));
}

/* FNV-1a. */
static uint64_t hash(const char *path)
{
    uint64_t result = UINT64_C(0xcbf29ce484222325);

    for (; *path; path++)
        result = (result ^ (unsigned char)*path) * UINT64_C(0x100000001b3);
    return result;
}

/* What has to stay: a line, but not in each pass again. */
void import_tell(struct import *im, const char *path, const char *why)
{
    char shown[FASTSPOOL_PATH_MAX];
    uint64_t told = hash(path);

    if (im->result->tell)
        im->result->tell(path, why);
    if (im->result->tell || im->lines == IMPORT_LINES)
        return;
    im->told[im->lines++] = told;
    for (uint32_t i = 0; i < im->result->lines; i++) {
        if (im->result->told[i] == told)
            return;
    }
    syslog(LOG_MAIL | LOG_WARNING, "%s: view: %s stays on the disk: %s", inside_spool(im->fs),
           escape_bytes(shown, sizeof(shown), path, strlen(path)), why);
}

int import_because(struct import *im, const char *path, int outcome)
{
    snprintf(im->culprit, sizeof(im->culprit), "%s", path);
    return outcome;
}

/* Room for one more entry of @size bytes in *@array. */
int import_grow(void *array, size_t count, size_t *room, size_t size)
{
    void *old, *larger;

    if (count < *room)
        return 0;
    memcpy(&old, array, sizeof(old));
    if (!(larger = realloc(old, (*room * 2 + 64) * size)))
        return -ENOMEM;
    memcpy(array, &larger, sizeof(larger));
    *room = *room * 2 + 64;
    return 0;
}

int import_leave(struct import *im, const char *path, const char *why)
{
    im->result->left++;
    import_tell(im, path, why);
    return 0;
}

/* ---- a batch ---- */

/* The files of the groups from @first on are no longer part of the batch. */
static void forget(struct import *im, size_t first)
{
    size_t moved = first < im->groups ? im->group[first].first : im->moved_count;

    for (size_t i = first; i < im->groups; i++) {
        if (im->group[i].lock >= 0)
            close(im->group[i].lock);
    }
    for (size_t i = moved; i < im->moved_count; i++)
        free(im->moved[i].path);
    im->moved_count = moved;
    im->groups = first;
}

static int note_locked(struct import *im, const char *key)
{
    im->result->locked++;
    snprintf(im->result->in_work, sizeof(im->result->in_work), "%s", key);
    if (im->result->tell) /* in syslog it would be the next pass's news */
        im->result->tell(key, "a process works on it");
    return 0;
}

/* Step 2 of a group.  The files of one that was published before have their other names already. */
static int take_group(struct import *im, const struct group *group)
{
    char header[PATH_MAX];

    if (!group->taken || !group->shown)
        return 0;
    exim_member(group->key, 0, header);
    int result = disk_take(im->disk, header);
    if (result == 0 && group->lock >= 0)
        result = disk_take(im->disk, group->key);
    return result < 0 ? import_fail(im, result, "rename", header) : 0;
}

/* A group that was taken goes back to the disk, which has it again before the store's copies go. */
static int leave_group(struct import *im, size_t i)
{
    struct group *group = &im->group[i];
    size_t end = i + 1 < im->groups ? im->group[i + 1].first : im->moved_count;
    char header[PATH_MAX];

    exim_member(group->key, 0, header);
    int result = staged_give_name_back(im, header, DT_REG);
    for (size_t k = group->first; k < end && result == 0; k++)
        result = im->moved[k].staged ? staged_remove(im, im->moved[k].path, DT_REG) : 0;
    group->stays = true;
    return result < 0 ? result : note_locked(im, group->key);
}

/* Messages whose -D file another process has open stay on the disk. */
static int leave_open(struct import *im)
{
    uint64_t until = clock_monotonic() + PATIENCE;
    int result = 0;

    for (size_t i = 0; i < im->groups && result == 0; i++) {
        const struct group *group = &im->group[i];
        if (!group->taken || !group->shown || group->lock < 0)
            continue;
        while (!disk_is_alone(group->lock) && result == 0 && !group->stays) {
            if (clock_monotonic() >= until)
                result = leave_group(im, i);
            else
                clock_sleep(10 * NS_PER_MS);
        }
    }
    return result;
}

/* What is decided is moved.  What the store had before, as a killed pass leaves it, is only removed. */
static void count_moved(struct import *im)
{
    for (size_t i = 0; i < im->groups; i++) {
        const struct group *group = &im->group[i];
        size_t end = i + 1 < im->groups ? im->group[i + 1].first : im->moved_count;
        uint64_t files = 0;
        for (size_t k = group->first; k < end && !group->stays; k++)
            files += im->moved[k].staged;
        im->result->files += files;
        im->result->messages += group->message && files > 0;
    }
}

/* Steps 1 to 4. */
static int take_batch(struct import *im)
{
    int result = staged_flush(im);

    for (size_t i = 0; result == 0 && i < im->groups; i++)
        result = take_group(im, &im->group[i]);
    for (size_t i = 0; result == 0 && i < im->groups; i++) { /* each directory once: the groups are sorted */
        const char *path = im->group[i].key, *next = i + 1 < im->groups ? im->group[i + 1].key : "";
        size_t length = (size_t)(strrchr(path, '/') - path) + 1;
        if (strncmp(path, next, length) != 0 || strchr(next + length, '/'))
            result = disk_sync_around(im->disk, path);
        if (result < 0)
            import_fail(im, result, "sync", path);
    }
    if (result == 0)
        result = leave_open(im);
    if (result == 0 && (result = fastspool_rename(im->fs, STAGED_NEW, STAGED_TAKEN, 0)) < 0)
        import_fail(im, result, "rename", STAGED_NEW);
    if (result == 0)
        count_moved(im);
    if (result < 0) {
        char why[FASTSPOOL_ERROR_MAX];
        memcpy(why, im->result->error, sizeof(why));
        if (staged_give_back(im) == 0)
            memcpy(im->result->error, why, sizeof(why));
        return result;
    }
    if ((result = staged_flush(im)) < 0)
        return result;
    im->staged = false;
    return staged_publish(im);
}

static int remove_group(struct import *im, size_t i)
{
    const struct group *group = &im->group[i];
    size_t end = i + 1 < im->groups ? im->group[i + 1].first : im->moved_count;
    char header[PATH_MAX];
    int result = 0;

    if (group->stays)
        return 0;
    for (size_t k = group->first; k < end && result == 0; k++) {
        const struct moved *file = &im->moved[k];
        if ((result = disk_unlink(im->disk, file->path)) < 0 && result != -ENOENT)
            return import_fail(im, result, "remove", file->path);
        result = 0;
    }
    exim_member(group->key, 0, header);
    if (group->taken && (result = disk_remove_taken(im->disk, group->key)) < 0 && result != -ENOENT)
        return import_fail(im, result, "remove", group->key);
    if (group->taken && (result = disk_remove_taken(im->disk, header)) < 0 && result != -ENOENT)
        return import_fail(im, result, "remove", header);
    return 0;
}

static int commit(struct import *im)
{
    bool staged = false;
    int result = 0;

    for (size_t i = 0; i < im->moved_count; i++)
        staged = staged || im->moved[i].staged;
    if (staged)
        result = take_batch(im);
    for (size_t i = 0; i < im->groups && result == 0; i++)
        result = remove_group(im, i);
    forget(im, 0);
    im->bytes = 0;
    if (result == 0 && im->result->progress)
        im->result->progress(im->result);
    return result;
}

/* ---- groups ---- */

static bool is_taken(const char *path)
{
    return strncmp(strrchr(path, '/') + 1, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0;
}

/* Note that the disk's file @path, if it is there, is to be removed with the last group. */
static int note_file(struct import *im, const struct group *group, const char *path)
{
    struct moved file = {.path = NULL};
    struct stat st;
    int fd = disk_open(im->disk, path, O_PATH, &st);

    if (fd < 0)
        return DONE;
    close(fd);
    for (size_t i = group->first; i < im->moved_count; i++) {
        if (strcmp(im->moved[i].path, path) == 0)
            return DONE;
    }
    if (exim_shows(strrchr(path, '/') + 1))
        return import_because(im, path, CONFLICT);
    if (import_grow(&im->moved, im->moved_count, &im->moved_room, sizeof(file)) < 0 || !(file.path = strdup(path)))
        return import_because(im, path, -ENOMEM);
    im->moved[im->moved_count++] = file;
    return DONE;
}

/* A message that a killed pass has published: its files are to be removed.  A new -H file of that name is not its own.
 */
static int note_published(struct import *im, struct group *group, const struct found *found, size_t count)
{
    char path[PATH_MAX];
    int result = DONE;

    group->taken = true;
    for (unsigned n = 0; result == DONE && exim_member(group->key, n, path); n++)
        result = note_file(im, group, path);
    for (size_t i = 0; result == DONE && i < count; i++) {
        if (!is_taken(im->text + found[i].path))
            result = note_file(im, group, im->text + found[i].path);
    }
    return result;
}

/* The last group of the batch is not to be moved. */
static void drop_group(struct import *im)
{
    for (size_t i = im->group[im->groups - 1].first; i < im->moved_count; i++) {
        if (im->moved[i].staged)
            staged_remove(im, im->moved[i].path, DT_REG);
    }
    forget(im, im->groups - 1);
}

static int import_group(struct import *im, const struct found *found, size_t count, bool message, bool published)
{
    const char *key = im->text + found->key;
    struct group group = {.key = key, .lock = -1, .message = message};
    int result = DONE;

    if (message && (group.lock = disk_lock(im->disk, key)) == -EAGAIN)
        return note_locked(im, key);
    if (group.lock < 0 && group.lock != -ENOENT && message)
        return import_leave(im, key, strerrordesc_np(-group.lock));
    group.first = im->moved_count;
    im->group[im->groups++] = group;
    struct group *last = &im->group[im->groups - 1];
    result = published ? note_published(im, last, found, count) : copy_group(im, last, found, count);
    for (size_t i = last->first; i < im->moved_count; i++)
        im->bytes += im->moved[i].size;
    if (result != DONE)
        drop_group(im);
    else if (im->groups == BATCH || im->bytes >= BATCH_BYTES)
        return commit(im);
    if (result < 0)
        return import_fail(im, result, "copy", im->culprit);
    if (result == CHANGED)
        note_locked(im, key);
    im->result->conflicts += result == CONFLICT || result == ALIVE;
    if (result == CONFLICT)
        import_tell(im, im->culprit, "the store has another file of that name");
    if (result == ALIVE)
        import_tell(im, im->culprit, "the store has its message without this file");
    return result == UNREADABLE ? import_leave(im, im->culprit, "can't be read") : 0;
}

/* A message is locked, and the others must not go without it; or the pass was asked to end. */
static bool stopped(struct import *im)
{
    im->ended = im->ended || (im->result->ended && im->result->ended());
    return im->ended || (im->whole && im->result->locked > 0);
}

/* All groups.  First those that can be locked, or need no lock, and then, if @late, messages without a -D file. */
static int import_groups(struct import *im, bool late, bool *more)
{
    char header[PATH_MAX];
    int result = 0;

    for (size_t i = 0, end; i < im->found_count && result == 0 && !stopped(im); i = end) {
        const char *key = im->text + im->found[i].key;
        bool message = exim_member(key, 0, header), data = false, published = false;
        for (end = i; end < im->found_count && strcmp(im->text + im->found[end].key, key) == 0; end++) {
            const char *path = im->text + im->found[end].path;
            data = data || strcmp(path, key) == 0;
            published = published || is_taken(path);
        }
        im->result->done = late ? im->result->done : end;
        bool waits = message && !data && !published;
        *more = *more || waits;
        if (waits == late)
            result = import_group(im, &im->found[i], end - i, message, published);
    }
    int last = commit(im);
    return result < 0 ? result : last;
}

static void count_locked(struct import *im)
{
    char header[PATH_MAX];

    for (size_t i = 0; i < im->found_count; i++) {
        const char *key = im->text + im->found[i].key;
        if (im->found[i].path == im->found[i].key && exim_member(key, 0, header) && disk_is_locked(im->disk, key))
            note_locked(im, key);
    }
}

/* An export to this disk was killed: its messages go on to it first, and the scan removes its other copies.  Then it
 * has come to its @end. */
static int finish_export(struct import *im, bool end)
{
    struct export_result exported = {.tell = im->result->tell};
    int result = end ? export_end(im->fs, im->disk, &exported) : export_finish(im->fs, im->disk, &exported, im->copied);

    if (result < 0)
        memcpy(im->result->error, exported.error, sizeof(exported.error));
    fastspool_act_for(&import_server);
    return result;
}

static int pass(struct import *im)
{
    bool more = false;
    int result = finish_export(im, false);

    if (result == 0)
        result = staged_recover(im);
    if (result == 0)
        result = scan_run(im);
    if (result == 0)
        result = finish_export(im, true);
    im->result->total = im->found_count;
    if (result == 0 && im->result->progress)
        im->result->progress(im->result);
    uint64_t scanned = clock_precise();
    if (result == 0 && im->whole)
        count_locked(im);
    if (result == 0)
        result = import_groups(im, false, &more);
    uint64_t since = clock_precise() - scanned;
    if (result == 0 && more && !stopped(im) && since < SETTLED)
        clock_sleep(SETTLED - since);
    if (result == 0 && more)
        result = import_groups(im, true, &more);
    if (result == 0) /* the directories of what was not moved */
        result = staged_each(im, STAGED_NEW, "", staged_remove);
    result = staged_unmark(im, result);
    fastspool_rmdir(im->fs, PLACES_IMPORT);
    return result == 0 && im->ended ? -ECANCELED : result;
}

int import_run(struct fastspool *fs, int spool_fd, bool whole, struct import_result *result)
{
    if (whole && *result->in_work && disk_is_locked(spool_fd, result->in_work))
        return 0; /* and the numbers are as they were: all of a large queue is not looked at each second */
    struct import *im = calloc(1, sizeof(*im));
    uint64_t told[IMPORT_LINES];

    if (!im)
        return error_set(result->error, -ENOMEM, "no memory for an import");
    im->fs = fs;
    im->disk = spool_fd;
    im->result = result;
    im->whole = whole;
    im->told = told;
    result->locked = result->conflicts = result->left = 0;
    result->done = result->total = 0;
    result->error[0] = result->in_work[0] = '\0';
    fastspool_act_for(&import_server);
    int code = pass(im);
    fastspool_act_for(NULL);
    result->lines = im->lines;
    memcpy(result->told, told, im->lines * sizeof(*told));
    free(im->moved);
    free(im->found);
    free(im->text);
    free(im);
    return code;
}

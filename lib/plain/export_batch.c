/* SPDX-License-Identifier: MIT
 *
 * A batch of an export, from its copies on:
 *
 *   - The copies are synced.  The store's files go to the tree, and that is flushed: it is decided.
 *   - The copies get their names, -H files last, and that is synced.
 *   - The store's files are removed, the -H file last.
 *
 * Failure modes:
 *   - A file has changed since it was copied, or somebody keeps it open: its group goes back to the store.
 *   - The disk or the store fails before it is decided: the whole batch goes back.
 *   - It fails later: the rest stays in the tree, as a killed export's.
 *   - A file has come into the way of a copy: the copy gets a suffix.
 */
#include "base/clock.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/export.h"
#include "plain/export_inside.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLUSH_TIMEOUT (60 * NS_PER_S)

int export_flush(struct export *ex)
{
    int result = fastspool_flush(ex->fs, FLUSH_TIMEOUT);

    return result < 0 ? export_fail(ex, result, "flush", inside_spool(ex->fs)) : 0;
}

void export_forget(struct export *ex, struct group *group)
{
    for (size_t i = 0; i < group->files; i++)
        free(group->file[i].path);
    if (group->description >= 0)
        fastspool_close(ex->fs, group->description);
    *group = (struct group){.description = -1};
}

int export_give_back(struct export *ex, struct group *group)
{
    char in_tree[PATH_MAX];

    for (size_t i = group->files; i-- > 0;) {
        struct file *file = &group->file[i];
        export_tree_path(file->path, in_tree);
        int result = file->taken ? fastspool_rename(ex->fs, in_tree, file->path, RENAME_NOREPLACE) : 0;
        if (result < 0)
            return export_fail(ex, result, "give back", file->path);
    }
    for (size_t i = 0; i < group->files; i++) {
        if (group->file[i].copied)
            disk_remove_copy(ex->disk, ex->copied, group->file[i].path);
    }
    export_forget(ex, group);
    return 0;
}

/* ---- decide ---- */

static bool in_one_directory(const char *one, const char *other)
{
    size_t length = (size_t)(strrchr(one, '/') - one) + 1;

    return strncmp(one, other, length) == 0 && !strchr(other + length, '/');
}

/* Make durable what was done to the names of the batch.  Its messages come a directory at a time. */
static int sync_names(struct export *ex)
{
    for (size_t i = 0; i < ex->groups; i++) {
        const struct group *group = &ex->group[i], *before = i ? group - 1 : NULL;
        for (size_t k = 0; k < group->files; k++) {
            const char *path = group->file[k].path;
            if ((k && in_one_directory(path, group->file[k - 1].path)) ||
                (before && k < before->files && in_one_directory(path, before->file[k].path)))
                continue;
            int result = disk_sync_around(ex->disk, path);
            if (result < 0 && result != -ENOENT) /* a killed export's message is delivered, and its directory gone */
                return export_fail(ex, result, "sync", path);
        }
    }
    return 0;
}

/* Make the copies of the batch durable. */
static int settle(struct export *ex)
{
    int result = syncfs(ex->disk) < 0 ? -errno : 0;

    return result < 0 ? export_fail(ex, result, "sync", *ex->to == '/' ? ex->to : inside_spool(ex->fs))
                      : sync_names(ex);
}

/* Step 2 of a group, up to the flush.  What was removed since its copy was made is not exported. */
static int take(struct export *ex, struct group *group, bool *changed)
{
    char in_tree[PATH_MAX];
    struct stat st;

    for (size_t i = 0; i < group->files; i++) {
        struct file *file = &group->file[i];
        export_tree_path(file->path, in_tree);
        int result = export_parents_in_store(ex, in_tree);
        if (result == 0)
            result = fastspool_rename(ex->fs, file->path, in_tree, 0);
        file->taken = result == 0;
        if (result == 0)
            result = fastspool_stat(ex->fs, in_tree, &st);
        if (result == -ENOENT ||
            (result == 0 && ((uint64_t)st.st_size != file->size || clock_nanoseconds(&st.st_mtim) != file->mtime)))
            *changed = true;
        else if (result < 0)
            return export_fail(ex, result, "take", file->path);
    }
    return 0;
}

bool export_is_alone(const struct export *ex, const struct group *group, uint64_t until)
{
    if (group->description < 0)
        return true;
    while (!inside_is_alone(ex->fs, (uint32_t)group->description)) {
        if (clock_monotonic() >= until)
            return false;
        clock_sleep(10 * NS_PER_MS);
    }
    return true;
}

static int decide(struct export *ex)
{
    uint64_t until = clock_monotonic() + PATIENCE;
    int result = settle(ex);

    for (size_t i = 0; i < ex->groups && result == 0; i++) {
        bool changed = false;
        result = take(ex, &ex->group[i], &changed);
        if (result == 0 && (changed || !export_is_alone(ex, &ex->group[i], until))) {
            if (ex->group[i].message)
                export_leave_locked(ex, ex->group[i].file[0].path);
            result = export_give_back(ex, &ex->group[i]);
        }
    }
    return result < 0 ? result : export_flush(ex);
}

/* ---- show and remove ---- */

/* Give the copies their names: those of -H files, or all others. */
static int show(struct export *ex, bool headers)
{
    char to[PATH_MAX];
    int result = 0;

    for (size_t i = 0; i < ex->groups; i++) {
        const struct group *group = &ex->group[i];
        for (size_t k = 0; k < group->files && result == 0; k++) {
            const char *path = group->file[k].path, *name = strrchr(path, '/') + 1;
            if (exim_shows(name) != headers)
                continue;
            result = disk_show_copy(ex->disk, ex->copied, path);
            if (result == -EEXIST) { /* it has come since the copy was made */
                snprintf(to, sizeof(to), "%s" PLACES_EXPORT, name);
                export_tell(ex, path, "another file has come in the way: this one has the suffix " PLACES_EXPORT);
                result = disk_show_copy_as(ex->disk, ex->copied, path, to);
            }
            if (result < 0 && result != -ENOENT)
                return export_fail(ex, result, "make", path);
            result = 0;
        }
    }
    return sync_names(ex);
}

static int remove_group(struct export *ex, struct group *group)
{
    char in_tree[PATH_MAX];

    for (size_t i = group->files; i-- > 0;) {
        export_tree_path(group->file[i].path, in_tree);
        int result = fastspool_unlink(ex->fs, in_tree);
        if (result < 0 && result != -ENOENT)
            return export_fail(ex, result, "remove", in_tree);
        ex->result->files++;
    }
    ex->result->messages += group->message && group->description >= 0;
    export_forget(ex, group);
    return 0;
}

/* Steps 3 and 4, of what is decided durably. */
static int finish(struct export *ex)
{
    int result = show(ex, false);

    if (result == 0)
        result = show(ex, true);
    for (size_t i = 0; i < ex->groups && result == 0; i++)
        result = remove_group(ex, &ex->group[i]);
    return result;
}

int export_commit(struct export *ex, bool decided)
{
    if (ex->groups == 0)
        return 0;
    int result = decided ? export_flush(ex) : decide(ex);
    if (result < 0 && !decided) {
        char why[FASTSPOOL_ERROR_MAX];
        memcpy(why, ex->result->error, sizeof(why));
        for (size_t i = 0; i < ex->groups; i++)
            export_give_back(ex, &ex->group[i]); /* what can't be goes on as a killed export's */
        memcpy(ex->result->error, why, sizeof(why));
    }
    if (result == 0)
        result = finish(ex);
    for (size_t i = 0; i < ex->groups; i++)
        export_forget(ex, &ex->group[i]);
    ex->groups = 0;
    ex->bytes = 0;
    if (result == 0 && ex->result->progress)
        ex->result->progress(ex->result);
    return result;
}

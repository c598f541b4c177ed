/* SPDX-License-Identifier: MIT
 *
 * What a killed export has left.  What is in the tree was decided, so it goes on: the rest of each message that is
 * there joins it, and then the batch is shown and removed as any other.
 *
 * Failure modes:
 *   - A process keeps a file of the tree open: the export ends, and leaves all in the tree.
 *   - This export is killed, too: the next one finds the same.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/export.h"
#include "plain/export_inside.h"
#include "spool/exim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* A file of a message in the tree: in the tree, or still in its place, with a copy on the disk. */
static int gather(struct export *ex, struct group *group, const char *path)
{
    char in_tree[PATH_MAX];
    struct file *file = &group->file[group->files];

    export_tree_path(path, in_tree);
    if (!export_has(ex, in_tree) && disk_has_copy(ex->disk, ex->copied, path)) {
        int result = export_parents_in_store(ex, in_tree);
        if (result == 0)
            result = fastspool_rename(ex->fs, path, in_tree, 0);
        if (result < 0 && result != -ENOENT)
            return export_fail(ex, result, "take", path);
    }
    if (!export_has(ex, in_tree))
        return 0;
    *file = (struct file){.path = strdup(path), .copied = true, .taken = true};
    if (!file->path)
        return -ENOMEM;
    group->files++;
    return 0;
}

static int visit_left(struct export *ex, const char *path)
{
    char data[PATH_MAX], in_tree[PATH_MAX], member[PATH_MAX], shown[FASTSPOOL_PATH_MAX];
    struct group *group = &ex->group[ex->groups];
    bool message = exim_family(path, data) && export_goes_with(path, data);
    int result = 0;

    for (size_t i = 0; i < ex->groups; i++) {
        for (size_t k = 0; k < ex->group[i].files; k++) {
            if (strcmp(ex->group[i].file[k].path, path) == 0)
                return 0;
        }
    }
    *group = (struct group){.description = -1, .message = message};
    for (unsigned n = 0; message && result == 0 && exim_member(data, n, member); n++)
        result = gather(ex, group, member);
    if (!message)
        result = gather(ex, group, path);
    if (result < 0)
        return result;
    const char *opened = message ? data : path;
    export_tree_path(opened, in_tree);
    if (export_has(ex, in_tree))
        group->description = message ? export_lock(ex, in_tree) : fastspool_open(ex->fs, in_tree, O_RDONLY, 0);
    ex->groups++;
    if (group->description < -1 || !export_is_alone(ex, group, clock_monotonic() + PATIENCE))
        result = error_set(ex->result->error, -EBUSY,
                           "a process keeps %s open, which an interrupted export had begun to move: run the export "
                           "again when that process has ended",
                           escape_bytes(shown, sizeof(shown), opened, strlen(opened)));
    return result < 0 ? result : ex->groups == BATCH ? export_commit(ex, true) : 0;
}

int export_go_on(struct export *ex)
{
    int result = export_each_file(ex, TREE, "", visit_left);

    if (result < 0) {
        while (ex->groups > 0)
            export_forget(ex, &ex->group[--ex->groups]);
        return result;
    }
    result = export_commit(ex, true);
    return result < 0 ? result : export_each_file(ex, TREE, "", visit_left); /* the directories */
}

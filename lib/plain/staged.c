/* SPDX-License-Identifier: MIT
 *
 * The trees in the store of what is imported and not in its place yet: .import/new and .import/taken, with the paths of
 * the spool below them.
 *
 * A file marks the disk as long as something is in .import/new.  Where the disk is not mounted no name could be given
 * back, and what is in .import/new would be removed: the disk's files without their names would then pass for published
 * ones.
 *
 * Failure modes:
 *   - The disk has no mark: the import fails.
 *   - A file has come into the place of one that is published: that one gets another name, and syslog a line.
 *   - The trees are deeper than any that an import makes: it fails.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/import.h"
#include "plain/import_inside.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define FLUSH_TIMEOUT (60 * NS_PER_S)
#define DEEPEST       6 /* QUEUE/input/SPLIT/NAME, and some more */

void staged_path(const char *root, const char *path, char staged[PATH_MAX])
{
    snprintf(staged, PATH_MAX, "%s/%s", root, path);
}

/* The directories above @path. */
void staged_parents(struct import *im, const char *path, mode_t mode)
{
    char parent[PATH_MAX];

    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
        struct fastspool_client owner = {geteuid(), getegid(), NULL};
        fastspool_act_for(&owner);
        fastspool_mkdir(im->fs, parent, mode);
    }
    fastspool_act_for(&import_server);
}

/* Of directories in @path. */
static int depth_of(const char *path)
{
    int depth = 0;

    for (; *path; path++)
        depth += *path == '/';
    return depth;
}

/* Visit each file of the tree @root below @path, and remove the directories that are empty then. */
int staged_each(struct import *im, const char *root, const char *path, visitor *visit)
{
    struct fastspool_entry entries[32];
    char directory[PATH_MAX], below[PATH_MAX];
    uint64_t after = 0;
    ssize_t count = 0;

    snprintf(directory, sizeof(directory), "%s%s%s", root, *path ? "/" : "", path);
    int description = fastspool_open(im->fs, directory, O_RDONLY | O_DIRECTORY, 0), result = 0;
    if (description < 0)
        return description == -ENOENT ? 0 : import_fail(im, description, "list", directory);
    if (depth_of(path) > DEEPEST)
        result = import_fail(im, -ELOOP, "list", directory);
    while (result == 0 && (count = fastspool_list(im->fs, description, after, entries, 32)) > 0) {
        after = entries[count - 1].position;
        for (ssize_t i = 0; i < count && result == 0; i++) {
            snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name);
            result = entries[i].type == DT_DIR ? staged_each(im, root, below, visit) : visit(im, below, DT_REG);
        }
    }
    fastspool_close(im->fs, description);
    fastspool_rmdir(im->fs, directory);
    return result < 0 ? result : count < 0 ? import_fail(im, (int)count, "list", directory) : 0;
}

int staged_flush(struct import *im)
{
    int result = fastspool_flush(im->fs, FLUSH_TIMEOUT);

    return result < 0 ? import_fail(im, result, "flush", PLACES_IMPORT) : 0;
}

/* ---- back to the disk ---- */

int staged_give_name_back(struct import *im, const char *header, int type)
{
    char data[PATH_MAX];

    (void)type;
    if (!exim_shows(strrchr(header, '/') + 1) || !exim_family(header, data))
        return 0;
    int result = disk_give_back(im->disk, data);
    if (result == 0 || result == -ENOENT)
        result = disk_give_back(im->disk, header);
    if (result == 0 || result == -ENOENT)
        result = disk_sync_around(im->disk, header);
    return result == -ENOENT ? 0 : result < 0 ? import_fail(im, result, "give back", header) : 0;
}

int staged_remove(struct import *im, const char *path, int type)
{
    char staged[PATH_MAX];

    (void)type;
    staged_path(STAGED_NEW, path, staged);
    int result = fastspool_unlink(im->fs, staged);
    return result < 0 ? import_fail(im, result, "remove", staged) : 0;
}

int staged_give_back(struct import *im)
{
    int result = staged_each(im, STAGED_NEW, "", staged_give_name_back);

    return result < 0 ? result : staged_each(im, STAGED_NEW, "", staged_remove);
}

/* ---- publish ---- */

static int publish(struct import *im, const char *path, int type)
{
    char staged[PATH_MAX], to[PATH_MAX], shown[FASTSPOOL_PATH_MAX];

    (void)type;
    staged_path(STAGED_TAKEN, path, staged);
    int result = fastspool_rename(im->fs, staged, path, RENAME_NOREPLACE);
    if (result == -ENOENT) { /* an empty directory of a split spool: Exim has removed it */
        staged_parents(im, path, 0750);
        result = fastspool_rename(im->fs, staged, path, RENAME_NOREPLACE);
    }
    if (result == -EEXIST) { /* has come since the staging */
        snprintf(to, sizeof(to), "%s" PLACES_IMPORT, path);
        syslog(LOG_MAIL | LOG_WARNING, "%s: view: a file has come in the way; the disk's is %s", inside_spool(im->fs),
               escape_bytes(shown, sizeof(shown), to, strlen(to)));
        result = fastspool_rename(im->fs, staged, to, 0);
    }
    return result < 0 ? import_fail(im, result, "publish", path) : 0;
}

static int publish_hidden(struct import *im, const char *path, int type)
{
    return exim_shows(strrchr(path, '/') + 1) ? 0 : publish(im, path, type);
}

int staged_publish(struct import *im)
{
    int result = staged_each(im, STAGED_TAKEN, "", publish_hidden);

    return result < 0 ? result : staged_each(im, STAGED_TAKEN, "", publish);
}

/* ---- the disk ---- */

int staged_mark(struct import *im)
{
    int result = im->marked ? 0 : disk_make_mark(im->disk, PLACES_TAKEN);

    im->marked = im->staged = result == 0;
    return result < 0 ? import_fail(im, result, "mark", inside_spool(im->fs)) : 0;
}

static int leave_file(struct import *im, const char *path, int type)
{
    (void)im, (void)path, (void)type;
    return 0;
}

/* A power cut must not bring back what was staged without the mark.  Of a pass that has failed it stays with what is
 * staged, and no longer: it would pass for the mark of what is staged from another disk later. */
int staged_unmark(struct import *im, int result)
{
    char why[FASTSPOOL_ERROR_MAX];
    struct stat st;

    memcpy(why, im->result->error, sizeof(why));
    if (result < 0)
        staged_each(im, STAGED_NEW, "", leave_file); /* the directories */
    bool stays = fastspool_stat(im->fs, STAGED_NEW, &st) == 0;
    int last = im->staged && !stays ? staged_flush(im) : 0;
    if (last == 0 && im->marked && !stays)
        disk_remove_mark(im->disk, PLACES_TAKEN);
    if (result < 0)
        memcpy(im->result->error, why, sizeof(why));
    return result < 0 ? result : last;
}

/* What a killed pass has left. */
int staged_recover(struct import *im)
{
    struct stat st;
    int result = 0;

    im->marked = im->staged = disk_has_mark(im->disk, PLACES_TAKEN);
    if (fastspool_stat(im->fs, STAGED_TAKEN, &st) == 0 && (result = staged_flush(im)) == 0)
        result = staged_publish(im);
    if (result == 0 && !im->marked && fastspool_stat(im->fs, STAGED_NEW, &st) == 0)
        return error_set(im->result->error, -EXDEV,
                         "%s is not the directory from which an import was interrupted, which has a file " PLACES_TAKEN
                         "here: mount its file system",
                         inside_spool(im->fs));
    return result < 0 ? result : staged_give_back(im);
}

/* SPDX-License-Identifier: MIT
 *
 * The directories that an export goes through: those of the store, which the disk gets as they are there, and those of
 * the tree, which go when they are empty.
 *
 * Failure modes:
 *   - The disk has copies of this store's export that was killed before its decision: they are removed.  Another
 *     store's stay: it would take what is missing for shown.
 *   - It has files that an import had begun to take: the import has to be finished first.
 *   - Directories are deeper than any of Exim's: the export ends.
 */
#include "base/error.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/export.h"
#include "plain/export_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEEPEST 6

void export_tree_path(const char *path, char in_tree[PATH_MAX])
{
    if (snprintf(in_tree, PATH_MAX, TREE "/%s", path) >= PATH_MAX)
        in_tree[0] = '\0';
}

bool export_has(const struct export *ex, const char *path)
{
    struct stat st;

    return fastspool_stat(ex->fs, path, &st) == 0;
}

/* Call @make for each directory above @path. */
static int each_parent(struct export *ex, const char *path, visitor *make)
{
    char parent[PATH_MAX];
    int result = 0;

    for (const char *slash = strchr(path, '/'); slash && result == 0; slash = strchr(slash + 1, '/')) {
        snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
        result = make(ex, parent);
    }
    return result;
}

static int make_in_store(struct export *ex, const char *path)
{
    int result = fastspool_mkdir(ex->fs, path, 0700);

    return result == -EEXIST ? 0 : result;
}

int export_parents_in_store(struct export *ex, const char *path)
{
    return each_parent(ex, path, make_in_store);
}

/* As it is in the store. */
static int make_on_disk(struct export *ex, const char *path)
{
    struct stat st;
    int result = fastspool_stat(ex->fs, path, &st);

    return result < 0 ? result : disk_make_directory(ex->disk, path, &st);
}

int export_parents_on_disk(struct export *ex, const char *path)
{
    return each_parent(ex, path, make_on_disk);
}

/* The disk's directory @path is as the store's: an Exim with the library has changed that one alone. */
static int dress_directory(struct export *ex, const char *path, int fd)
{
    struct stat st;
    int result = fastspool_stat(ex->fs, path, &st);

    if (result == 0)
        result = disk_dress(fd, &st);
    return result == -EPERM ? 0 : result; /* this is not root */
}

/* The disk's directory @path: no copy of a killed export of this store stays, and the import has left nothing half
 * done. */
static int clean_directory(struct export *ex, const char *path)
{
    struct stat st;
    const struct dirent *entry;
    int result = make_on_disk(ex, path);
    int fd = result < 0 ? result : disk_open(ex->disk, path, O_RDONLY | O_DIRECTORY, &st);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (!directory) {
        if (fd >= 0)
            close(fd);
        return export_fail(ex, fd < 0 ? fd : -errno, "open", path);
    }
    result = dress_directory(ex, path, fd);
    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        if (ex->number && strncmp(entry->d_name, ex->copied, strlen(ex->copied)) == 0)
            result = unlinkat(fd, entry->d_name, 0) < 0 ? -errno : 0;
        else if (strncmp(entry->d_name, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0 && strcmp(ex->to, OWN) == 0)
            result = -EUCLEAN;
    }
    if (result == 0 && errno != 0)
        result = -errno;
    closedir(directory);
    if (result == -EUCLEAN)
        return error_set(ex->result->error, result,
                         "an import from %s was interrupted: run `fastspool import` first, which goes on with it",
                         path);
    return result < 0 ? export_fail(ex, result, "clean", path) : 0;
}

int export_each_file(struct export *ex, const char *root, const char *path, visitor *visit)
{
    struct fastspool_entry entries[32];
    char directory[PATH_MAX], below[PATH_MAX];
    bool tree = *root, more = true;
    uint64_t after = 0;
    ssize_t count = 0;
    int depth = 0, result = 0;

    for (const char *c = path; *c; c++)
        depth += *c == '/';
    snprintf(directory, sizeof(directory), "%s%s%s", root, tree && *path ? "/" : "", path);
    int description = fastspool_open(ex->fs, directory, O_RDONLY | O_DIRECTORY, 0);
    if (description < 0)
        return description == -ENOENT ? 0 : export_fail(ex, description, "list", directory);
    if (depth > DEEPEST)
        result = export_fail(ex, -ELOOP, "list", directory);
    if (result == 0 && !tree && *path &&
        (result = export_commit(ex, false)) == 0) /* its copies are not to be cleaned away */
        result = clean_directory(ex, path);
    while (result == 0 && more && (count = fastspool_list(ex->fs, description, after, entries, 32)) > 0) {
        after = entries[count - 1].position;
        for (ssize_t i = 0; i < count && result == 0; i++) {
            more = tree || entries[i].position <= ex->end;
            if (!more || (!tree && !*path && entries[i].name[0] == '.'))
                continue;
            if (!tree && ex->result->ended && ex->result->ended()) {
                result = -ECANCELED;
                break;
            }
            snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name);
            result = entries[i].type == DT_DIR ? export_each_file(ex, root, below, visit) : visit(ex, below);
        }
    }
    fastspool_close(ex->fs, description);
    if (tree && result == 0)
        fastspool_rmdir(ex->fs, directory);
    return result < 0 ? result : count < 0 ? export_fail(ex, (int)count, "list", directory) : 0;
}

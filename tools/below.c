/* SPDX-License-Identifier: MIT
 *
 * The files of the store that an operator names.
 *
 * The happy path: a path that begins with the spool's real one, or that is relative, and leads nowhere up.  No file is
 * asked for.
 *
 * Failure modes:
 *   - It is absolute, and begins otherwise: one of the directories on its way may be the spool, by a symbolic link or
 *     by "..": the kernel says which directory each of them is.
 *   - It leads out of the spool: that is told, and no file is looked for.
 *   - The store has no such file, and the disk has: that is told.
 */
#include "below.h"

#include "base/mountinfo.h"
#include "fastspool.h"
#include "spool/exim.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Does @path, of names without links, lead above where it begins? */
static bool leads_up(const char *path)
{
    long depth = 0;

    for (size_t length; *path && depth >= 0; path += length) {
        path += strspn(path, "/");
        length = strcspn(path, "/");
        if (length == 2 && strncmp(path, "..", 2) == 0)
            depth--;
        else if (length > 0 && !(length == 1 && *path == '.'))
            depth++;
    }
    return depth < 0;
}

/* What of the absolute @path is behind the spool, NULL: nothing. */
static const char *behind_spool(const struct fastspool *fs, const char *path)
{
    char above[PATH_MAX];
    struct stat spool, st;
    size_t length = strlen(fs->spool);

    if (strncmp(path, fs->spool, length) == 0 && (path[length] == '/' || path[length] == '\0') &&
        !leads_up(path + length))
        return path + length;
    if (strlen(path) >= sizeof(above) || fstat(fs->spool_fd, &spool) < 0)
        return NULL;
    for (const char *end = path; *end;) {
        end = strchrnul(end + 1, '/');
        snprintf(above, sizeof(above), "%.*s", (int)(end - path), path);
        if (!leads_up(end) && stat(above, &st) == 0 && st.st_dev == spool.st_dev && st.st_ino == spool.st_ino)
            return end;
    }
    return NULL;
}

int below_find(const struct fastspool *fs, const char *path, char below[PATH_MAX])
{
    const char *rest = *path == '/' ? behind_spool(fs, path) : leads_up(path) ? NULL : path;

    if (!*path)
        return tool_error("an empty PATH is that of no file");
    if (!rest)
        return tool_error("%s is not below the spool %s", path, fs->spool);
    rest += strspn(rest, "/");
    if (strlen(rest) >= PATH_MAX)
        return tool_error("%.64s...: %s", path, strerrordesc_np(ENAMETOOLONG));
    strcpy(below, rest);
    return 0;
}

int below_error(const struct fastspool *fs, const char *below, int error)
{
    char path[PATH_MAX];
    struct stat st;

    bool fits = snprintf(path, sizeof(path), "%s/%s", fs->spool, below) < (int)sizeof(path);
    bool on_disk = exim_policy(below) != EXIM_STORE || !mountinfo_has_view(fs->spool); /* which may not answer */
    if (error == -ENOENT && fits && on_disk && lstat(path, &st) == 0)
        return tool_error("%s is on the disk alone, and not in the store", path);
    return tool_error("%s: %s", fits ? path : below, strerrordesc_np(-error));
}

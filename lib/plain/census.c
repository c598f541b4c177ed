/* SPDX-License-Identifier: MIT
 *
 * Census: each message counts once.  Its -H file says where it is, because Exim knows a message by that one.
 *
 * The happy path:
 *   - On the disk: -H files with their own names, and those with names that an import or export has given them.
 *   - In the store: -H files in their places, and those in the trees of an import or export.
 *   - A message in a tree is half moved if the disk's -H file has its other name still: no Exim finds it.
 *
 *     where the store's -H file is     the disk's has the other name     the message is
 *     .import/new                      yes                               on the disk, half moved
 *     .import/new                      no                                on the disk; this one is a copy
 *     .import/taken                    -                                 in the store, half moved
 *     .export/tree                     yes                               on the disk, half moved
 *     .export/tree                     no                                on the disk, or delivered from there
 *     .export/tree, to another disk    -                                 in the store, half moved
 *     its place                        yes, or its own one               in the store; the disk's is a remainder
 *
 * Failure modes:
 *   - An import or export runs, or Exim does: what goes from one place to the other during the look may count twice, or
 *     not at all.
 *   - The disk can't be looked at: a message of .import/new counts nowhere.
 *   - An export went to another disk: nobody looks there, so all of its last batch counts as half moved.
 *   - The mail user has made more hidden names than a killed move leaves: the first ones count.
 */
#include "plain/census.h"

#include "base/mountinfo.h"
#include "base/places.h"
#include "fastspool.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define HIDDENS 65536

/* ---- on the disk ---- */

struct look {
    struct census *census;
    struct fastspool *fs; /* NULL: none */
};

static DIR *open_beneath(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (fd >= 0 && !dir)
        close(fd);
    return dir;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool store_has(struct fastspool *fs, const char *path)
{
    struct stat st;

    return fs && fastspool_stat(fs, path, &st) == 0;
}

static void note_hidden(struct census *c, const char *path)
{
    if (c->hiddens == HIDDENS)
        return;
    if (c->hiddens == c->room) {
        char **larger = realloc(c->hidden, (c->room * 2 + 64) * sizeof(*larger));
        if (!larger)
            return;
        c->hidden = larger;
        c->room = c->room * 2 + 64;
    }
    if ((c->hidden[c->hiddens] = strdup(path)))
        c->hiddens++;
}

static void count_name(const struct look *look, const char *directory, const char *name)
{
    char path[PATH_MAX];
    const char *copy = places_of_copy(name);
    const char *prefix = copy ? PLACES_COPIED : begins(name, PLACES_TAKEN) ? PLACES_TAKEN : "";
    const char *own = copy ? copy : name + strlen(prefix);

    /* without the number of a copy */
    if (!exim_shows(own) || snprintf(path, sizeof(path), "%s/%s%s", directory, prefix, own) >= PATH_MAX)
        return;
    if (*prefix)
        note_hidden(look->census, path);
    else if (store_has(look->fs, path))
        look->census->remains++;
    else
        look->census->disk++;
}

/* Directory @path is @name in @above.  Its split directories have names of one letter. */
static void count_input(const struct look *look, int above, const char *name, const char *path, bool split)
{
    DIR *dir = open_beneath(above, name);
    char below[PATH_MAX];

    if (!dir)
        return;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (!split || entry->d_name[0] == '.' || entry->d_name[1] != '\0')
            count_name(look, path, entry->d_name);
        else if (snprintf(below, sizeof(below), "%s/%s", path, entry->d_name) < PATH_MAX)
            count_input(look, dirfd(dir), entry->d_name, below, false);
    }
    closedir(dir);
}

/* Of the spool, and of each named queue. */
static void count_queues(const struct look *look, int spool)
{
    DIR *dir = open_beneath(spool, ".");
    char below[PATH_MAX];

    count_input(look, spool, "input", "input", true);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        DIR *queue = entry->d_name[0] != '.' ? open_beneath(spool, entry->d_name) : NULL;
        if (!queue)
            continue;
        snprintf(below, sizeof(below), "%s/input", entry->d_name);
        count_input(look, dirfd(queue), "input", below, true);
        closedir(queue);
    }
    if (dir)
        closedir(dir);
}

static int compare(const void *a, const void *b)
{
    char *const *x = a, *const *y = b;

    return strcmp(*x, *y);
}

static void look_at_disk(struct census *c, const char *spool, bool view, struct fastspool *fs)
{
    struct look look = {c, fs};
    int fd = view || mountinfo_has_view(spool) ? open_tree(AT_FDCWD, spool, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
                                               : open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    *c = (struct census){0};
    if (fd >= 0 && faccessat(fd, ".", R_OK, AT_EACCESS) == 0)
        count_queues(&look, fd);
    else
        c->disk = -(int64_t)errno;
    if (fd >= 0)
        close(fd);
    if (c->hiddens > 0)
        qsort(c->hidden, c->hiddens, sizeof(*c->hidden), compare);
}

void census_begin(struct census *census, const char *spool, bool view)
{
    look_at_disk(census, spool, view, NULL);
}

/* ---- in the store ---- */

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* What is behind directory @tree in @path; NULL: it is not below there. */
static const char *below(const char *path, const char *tree)
{
    return begins(path, tree) && path[strlen(tree)] == '/' ? path + strlen(tree) + 1 : NULL;
}

/* Has the disk's file @path its other name, with @prefix? */
static bool is_hidden(const struct census *c, const char *path, const char *prefix)
{
    char other[PATH_MAX];
    const char *key = other, *name = name_of(path);

    snprintf(other, sizeof(other), "%.*s%s%s", (int)(name - path), path, prefix, name);
    return c->hiddens > 0 && bsearch(&key, c->hidden, c->hiddens, sizeof(*c->hidden), compare);
}

unsigned census_kind(const void *census, const char *path, uint64_t size)
{
    const char *own;

    if (path[0] != '.')
        return exim_is_message(path) ? CENSUS_MESSAGE : exim_shows(name_of(path)) ? CENSUS_ASIDE : CENSUS_NOTHING;
    if ((own = below(path, PLACES_STAGED)) && exim_is_message(own))
        return is_hidden(census, own, PLACES_TAKEN) ? CENSUS_STAGED : CENSUS_NOTHING;
    if ((own = below(path, PLACES_IMPORTED)) && exim_is_message(own))
        return CENSUS_DECIDED;
    if ((own = below(path, PLACES_EXPORTED)) && exim_is_message(own))
        return is_hidden(census, own, PLACES_COPIED) ? CENSUS_COPIED : CENSUS_EXPORTED;
    return strcmp(path, PLACES_TARGET) == 0 && size > strlen(".") ? CENSUS_ELSEWHERE : CENSUS_NOTHING;
}

static void count_kind(void *context, const char *path, uint64_t size)
{
    struct census *c = context;

    c->kinds[census_kind(c, path, size)]++;
}

void census_end(struct census *c)
{
    uint64_t gone = c->kinds[CENSUS_ELSEWHERE] ? c->kinds[CENSUS_COPIED] + c->kinds[CENSUS_EXPORTED] : 0;
    uint64_t comes = c->kinds[CENSUS_STAGED] + (gone ? 0 : c->kinds[CENSUS_COPIED]), decided = c->kinds[CENSUS_DECIDED];

    c->store = c->kinds[CENSUS_MESSAGE] + decided + gone;
    c->half = decided + gone + comes;
    c->exports = gone || c->kinds[CENSUS_COPIED];
    c->elsewhere = gone > 0;
    c->remains += c->hiddens > comes + decided ? c->hiddens - comes - decided : 0;
    if (c->disk >= 0)
        c->disk += (int64_t)comes;
    for (size_t i = 0; i < c->hiddens; i++)
        free(c->hidden[i]);
    free(c->hidden);
    c->hidden = NULL;
    c->hiddens = c->room = 0;
}

uint64_t census_held(const struct census *c)
{
    return c->kinds[CENSUS_MESSAGE] + c->kinds[CENSUS_STAGED] + c->kinds[CENSUS_DECIDED] + c->kinds[CENSUS_COPIED] +
           c->kinds[CENSUS_EXPORTED] + c->kinds[CENSUS_ASIDE];
}

void census_take(struct census *census, struct fastspool *fs, bool view)
{
    static const struct fastspool_client server; /* the store asks it for no permission */

    fastspool_act_for(&server);
    look_at_disk(census, inside_spool(fs), view, fs);
    inside_each_name(fs, count_kind, census);
    census_end(census);
    ssize_t size = census->elsewhere ? inside_peek(fs, PLACES_TARGET, census->to, sizeof(census->to) - 1) : 0;
    census->to[size > 0 ? size : 0] = '\0';
    fastspool_act_for(NULL);
}

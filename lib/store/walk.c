/* SPDX-License-Identifier: MIT
 *
 * Walks: from a path to an inode, from a directory to its path, and through all names of a directory.
 *
 * The happy path of a listing: it goes on behind the name that it returned last.  A position is the birth number and
 * index of that name's entry.
 *
 * A path's directories are mostly those of a path before.  So a thread keeps the trails of the last two directories
 * that it walked to in sections.  A call whose path begins with the same text follows the trail, name by name,
 * and looks up the last name alone.
 *
 * A path may begin at a file's handle ("//HANDLE/rest"): its inode number and generation.  (POSIX leaves the meaning of
 * two slashes at the start to the implementation.)
 *
 * Failure modes:
 *   - The file of a handle is gone: -ESTALE.
 *   - The name of a position is gone: its freed entry leads to its successor, and birth numbers check each link.  If an
 *     entry on the way was used again, the directory's list is searched from both ends at once, which is fast near
 *     either.
 *   - A directory of a trail was moved or removed, or may not be searched: the path is walked from its start.
 *   - A walk without the lock meets a change: every index is checked before it is followed, each walk is bounded, and
 *     the caller's sequence check discards the result.
 *   - The segment is damaged: a walk that finds it out is -EUCLEAN (doubt.h).  A listing does by the birth numbers,
 *     which grow along it: a list that leads back would have no end.  One that a position has no room for (2^40: four
 *     years of 8,000 names a second) counts as damage, too.
 */
#include "store/walk.h"

#include "fastspool.h"
#include "store/access.h"
#include "store/doubt.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directory of number @i, NULL: that is none. */
static inline const struct inode *directory_at(const struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_in_use(fs, i);
    return inode && S_ISDIR(inode->mode) ? inode : NULL;
}

/* ---- handles ---- */

#define HANDLE_BITS \
    24 /* of the inode's number; the generation, counted from 1, is above: no handle is less than 2^24 */
_Static_assert(FASTSPOOL_HANDLE_MIN == 1 << HANDLE_BITS, "as the header says");

uint64_t walk_handle(const struct fastspool *fs, uint32_t i)
{
    return ((uint64_t)inode_at(fs, i)->generation + 1) << HANDLE_BITS | i;
}

/* The place that the start of @path, "//HANDLE...", leads to, with the rest of the path as its name.  (By itself, so
 * that other paths save no registers for it.) */
static __attribute__((noinline)) int start_at_handle(const struct fastspool *fs, const char *path, struct place *place)
{
    char *rest;
    uint64_t handle = strtoull(path + 2, &rest, 16);

    if (rest == path + 2 || (*rest && *rest != '/'))
        return -ENOENT;
    uint32_t i = (uint32_t)(handle & (INODES_MAX - 1));
    if (!inode_valid(fs, i) || walk_handle(fs, i) != handle ||
        (inode_at(fs, i)->links == 0 && inode_at(fs, i)->opens == 0))
        return -ESTALE;
    place->inode = place->parent = i;
    place->directory = false;
    place->name = rest;
    return 0;
}

/* ---- paths ---- */

/* May name @entry lead to @i?  A directory has one name: with two, the tree might have no end. */
static inline int check_target(const struct fastspool *fs, uint32_t entry, uint32_t i)
{
    const struct inode *inode = inode_in_use(fs, i);

    if (!inode)
        return doubt("a name leads to no file");
    if (S_ISDIR(inode->mode) && inode->names != entry)
        return doubt("a directory has more than one name");
    return 0;
}

/* As step(), of "." or "..".  (By itself, as few components are.) */
static __attribute__((noinline)) int step_dots(const struct fastspool *fs, const struct inode *above,
                                               struct place *place)
{
    place->directory = true;
    place->entry = 0;
    if (place->length == 1)
        return 0;
    place->inode = above->dir.parent;
    place->parent = place->inode;
    if (directory_at(fs, place->inode))
        return 0;
    return above->names ? doubt("a directory knows no directory above it") : -ENOENT;
}

/* Walk one component of a path, the bytes [name, end), from directory place->inode, which is @above. */
static inline int step(const struct fastspool *fs, const struct inode *above, const struct credentials *who,
                       const char *name, const char *end, struct place *place)
{
    const uint32_t directory = place->inode;
    const size_t length = (size_t)(end - name);
    int result = access_permitted_to(fs, directory, above, who, X_OK);

    if (result < 0)
        return result;
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    place->parent = directory;
    place->name = name;
    place->length = length;
    place->directory = *end == '/';
    if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
        return step_dots(fs, above, place);
    result = names_find(fs, directory, name, length, &place->hash, &place->inode);
    place->entry = result > 0 ? (uint32_t)result : 0;
    return result > 0 ? check_target(fs, place->entry, place->inode) : result;
}

/* ---- trails ---- */

#define TRAILS       2 /* Exim goes between two directories, of input/ and of msglog/ */
#define TRAIL_STEPS  4
#define TRAIL_LENGTH 64 /* bytes of a path; Exim's directories take some ten */

/* A name has its birth number alone, and neither its text nor its directory ever change: an entry that still has the
 * number still is that name, and if it still leads to the same inode, that still is a directory.  Only a section keeps
 * a trail.  What it meets was there when it began, so no rollback gives the number to another name; and no signal
 * handler of this thread comes in between.  One may come into a read, and keep another trail in the place of the one
 * that the read follows, perhaps of another store: so they are counted.
 */
struct trail {
    uint64_t store; /* hash_seed of the store, which no other one has */
    uint32_t steps;
    uint32_t length;         /* 0: there is none */
    char path[TRAIL_LENGTH]; /* up to the last '/', and that too */
    struct trail_step {
        uint64_t born;
        uint32_t entry;
        uint32_t inode;
    } step[TRAIL_STEPS];
};
static __thread struct {
    struct trail trail[TRAILS];
    uint32_t latest; /* of them, the one that was used last */
    uint32_t kept;   /* steps, ever */
} trails __attribute__((tls_model("initial-exec")));

_Static_assert(TRAILS == 2, "there is one other");

static inline struct trail *other_than(const struct trail *trail)
{
    return trail == trails.trail ? &trails.trail[1] : trails.trail;
}

/* Keep the directory at @place, to which the first @length bytes of @path lead: on @trail, or if that is NULL as the
 * first of another one.  Returns the trail, or NULL: it ends here.  (By itself: a call mostly finds a trail.) */
static __attribute__((noinline)) struct trail *trail_keep(const struct fastspool *fs, struct trail *trail,
                                                          const char *path, size_t length, const struct place *place)
{
    if (place->entry == 0 || length > TRAIL_LENGTH || (trail && trail->steps == TRAIL_STEPS))
        return NULL;
    trails.kept++;
    if (!trail) {
        trails.latest = !trails.latest;
        trail = &trails.trail[trails.latest];
        trail->steps = trail->length = 0;
        trail->store = fs->header->hash_seed;
    }
    memcpy(trail->path + trail->length, path + trail->length, length - trail->length);
    trail->length = (uint32_t)length;
    trail->step[trail->steps++] = (struct trail_step){name_at(fs, place->entry)->born, place->entry, place->inode};
    return trail;
}

/* The trail with whose text @path, not "", begins, and goes on behind it; the length of that.  NULL: there is none. */
static inline struct trail *trail_of(const struct fastspool *fs, const char *path, uint32_t *length)
{
    const uint64_t store = fs->header->hash_seed;
    struct trail *trail = &trails.trail[trails.latest];

    for (int tries = 0; tries < TRAILS; tries++, trail = other_than(trail)) {
        *length = LOAD(trail->length);
        if (*length > 0 && path[1] == trail->path[1] && trail->store == store && /* all may begin with '/' */
            strncmp(path, trail->path, *length) == 0 && path[*length] != '\0' && path[*length] != '/')
            return trail;
    }
    return NULL;
}

/* Does the step still lead from directory @from to where it led? */
static inline bool step_leads(const struct fastspool *fs, const struct trail_step *step, uint32_t from)
{
    const struct name *name = name_at(fs, step->entry);
    return name->born == step->born && name->parent == from && name->inode == step->inode;
}

/* The directory to which a trail leads, its number, and *@path behind the trail's text.  *@on: that trail.  NULL: walk
 * the path from its start. */
static inline const struct inode *trail_follow(const struct fastspool *fs, const char **path,
                                               const struct credentials *who, uint32_t *number, struct trail **on)
{
    const uint32_t before = LOAD(trails.kept);
    uint32_t at = LOAD(fs->header->tree.root), entry = 0, length;
    struct trail *trail = trail_of(fs, *path, &length);

    if (!trail)
        return NULL;
    const struct trail_step *end = trail->step + LOAD(trail->steps);
    for (const struct trail_step *step = trail->step; step < end; step++) {
        if (access_permitted(fs, at, who, X_OK) < 0 || !step_leads(fs, step, at))
            return NULL;
        at = step->inode;
        entry = step->entry;
    }
    const struct inode *directory = directory_at(fs, at);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (LOAD(trails.kept) != before || !directory || directory->names != entry)
        return NULL;
    if (section_inside == fs)
        trails.latest = trail != trails.trail;
    *path += length;
    *number = at;
    *on = trail;
    return directory;
}

/* ---- from a path to a place ---- */

int walk_to(const struct fastspool *fs, const char *path, const struct credentials *who, struct place *place)
{
    const uint32_t root = LOAD(fs->header->tree.root);
    const struct inode *above = NULL;
    struct trail *trail = NULL;
    const char *at = path;
    bool keeps = false;

    if (LOAD(fs->header->state) == SEGMENT_FAILED)
        return -EIO;
    *place = (struct place){.parent = root, .inode = root, .name = "", .directory = true};
    if (path[0] == '/' && path[1] == '/') {
        int result = start_at_handle(fs, path, place);
        if (result < 0)
            return result;
        at = place->name;
    } else if (path[0] != '\0') {
        above = trail_follow(fs, &at, who, &place->inode, &trail);
        keeps = section_inside == fs;
    }
    if (!above)
        above = directory_at(fs, place->inode);
    while (*at == '/')
        at++;
    while (*at != '\0') {
        if (!above)
            return place->inode ? -ENOTDIR : -ENOENT;
        const char *end = strchrnul(at, '/');
        int result = step(fs, above, who, at, end, place);
        if (result < 0 || *end == '\0')
            return result;
        trail = keeps ? trail_keep(fs, trail, path, (size_t)(end - path) + 1, place) : NULL;
        keeps = trail;
        above = directory_at(fs, place->inode);
        for (at = end; *at == '/';)
            at++;
    }
    return 0;
}

int walk_must_exist(const struct fastspool *fs, const struct place *place)
{
    if (place->inode == 0)
        return -ENOENT;
    return place->directory && !S_ISDIR(inode_at(fs, place->inode)->mode) ? -ENOTDIR : 0;
}

/* In a read. */
static int climb(const struct fastspool *fs, uint32_t inode, char *path, size_t size)
{
    size_t at = size - 1;

    if (size == 0)
        return -ENAMETOOLONG;
    path[at] = '\0';
    while (inode != LOAD(fs->header->tree.root)) { /* in a circle the path becomes too long */
        char text[256];
        uint32_t entry = inode_valid(fs, inode) ? inode_at(fs, inode)->names : 0;
        if (!names_valid(fs, entry))
            return -ENOENT; /* removed, or just moved */
        int length = names_read(fs, entry, text);
        if (length < 0)
            return length;
        if ((size_t)length + 1 > at)
            return -ENAMETOOLONG;
        at -= (size_t)length;
        memcpy(path + at, text, (size_t)length);
        inode = name_at(fs, entry)->parent;
        if (inode != LOAD(fs->header->tree.root))
            path[--at] = '/';
    }
    memmove(path, path + at, size - at);
    return (int)(size - 1 - at);
}

int walk_path(struct fastspool *fs, uint32_t inode, char *path, size_t size)
{
    struct section_read read = SECTION_READ;
    int result;

    do {
        result = section_read_begin(fs, &read);
        if (result == 0)
            result = climb(fs, inode, path, size);
    } while (section_read_retry(fs, &read));
    return doubt_settle(fs, result);
}

/* ---- listing ---- */

#define SUCCESSORS_MAX 100000u /* most freed entries to follow to the next name */
#define POSITION_BITS  24      /* of the entry's index; the birth number is above */
#define BORN_MAX       (UINT64_MAX >> POSITION_BITS)

static uint64_t position_of(uint64_t born, uint32_t entry)
{
    return born << POSITION_BITS | entry;
}

uint64_t walk_end(const struct fastspool *fs)
{
    return position_of(fs->header->tree.born, NAMES_MAX - 1);
}

/* The first name of the directory that was born after @born.  Searches from both ends of the list at once. */
static uint32_t search_behind(const struct fastspool *fs, const struct inode *directory, uint64_t born)
{
    uint32_t front = directory->dir.first, back = directory->dir.last, behind = 0;

    for (uint32_t steps = names_most(fs); steps > 0 && names_valid(fs, front) && names_valid(fs, back); steps--) {
        if (name_at(fs, front)->born > born)
            return front;
        if (name_at(fs, back)->born <= born)
            return behind;
        behind = back;
        front = name_at(fs, front)->next;
        back = name_at(fs, back)->prev;
    }
    return behind;
}

/* The name to list after position @after. */
static uint32_t resume(const struct fastspool *fs, uint32_t parent, uint64_t after)
{
    const struct inode *directory = inode_at(fs, parent);
    uint64_t born = after >> POSITION_BITS;
    uint32_t i = (uint32_t)(after & ((1u << POSITION_BITS) - 1));

    if (after <= 2)
        return directory->dir.first;
    if (names_valid(fs, i) && name_at(fs, i)->born == born && name_at(fs, i)->parent == parent) {
        const struct name *name = name_at(fs, i);
        if (name->inode != 0)
            return name->next;
        /* The name is gone, but its entry is not used again: follow the successors while birth numbers agree. */
        for (uint32_t steps = 0; steps < SUCCESSORS_MAX && name->inode == 0; steps++) {
            uint64_t next_born = *names_successor(name);
            uint32_t next = name->next;
            if (next_born == 0 || !names_valid(fs, next) || name_at(fs, next)->born != next_born)
                break;
            if (name_at(fs, next)->inode != 0)
                return next;
            name = name_at(fs, next);
        }
    }
    return search_behind(fs, directory, born);
}

ssize_t walk_list(const struct fastspool *fs, uint32_t parent, uint64_t after, struct fastspool_entry *entries,
                  size_t size)
{
    uint64_t last = after <= 2 ? 0 : after >> POSITION_BITS;
    size_t count = 0;

    if (!directory_at(fs, parent))
        return -ENOTDIR;
    for (uint32_t i = resume(fs, parent, after); count < size && i != 0; i = LOAD(name_at(fs, i)->next)) {
        const struct name *name = name_at(fs, i);
        uint64_t born = LOAD(name->born);
        uint32_t inode = LOAD(name->inode);
        if (!names_valid(fs, i) || born <= last || born > BORN_MAX || LOAD(name->parent) != parent)
            return doubt("a directory's list of names has no end, or leads nowhere");
        int length = check_target(fs, i, inode);
        if (length == 0)
            length = names_read(fs, i, entries[count].name);
        if (length < 0)
            return length;
        struct fastspool_entry *entry = &entries[count++];
        entry->inode = inodes_number(inode);
        entry->position = position_of(born, i);
        entry->type = S_ISDIR(LOAD(inode_at(fs, inode)->mode)) ? 4 /* DT_DIR */ : 8 /* DT_REG */;
        last = born;
    }
    return (ssize_t)count;
}

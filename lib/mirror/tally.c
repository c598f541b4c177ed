/* SPDX-License-Identifier: MIT
 *
 * A tally of what lies on the disk: names in the database, and whether the journal has more.  And a look at the
 * directories there.
 *
 * The happy path: a child opens the database as of one instant, reads the names of all directories and then of all
 * files, whose paths say what they are, then looks whether the journal has a batch behind it.  After a mirror that has
 * ended in order it has none.
 *
 * Failure modes:
 *   - No rights, a database that can't be read, damaged pages, which may kill the child: it can't be said.
 *   - A mirror starts meanwhile, and writes: the same.  Then there is a store to ask.
 *   - The mail user has written the database: the number is what he likes.
 */
#include "mirror/tally.h"

#include "base/places.h"
#include "base/rights.h"
#include "fastspool.h"
#include "mirror/database_view.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uthash.h>

#define PATH_SIZE 1024 /* Exim's deepest, below a directory of an import or export, is half as long */

/* ---- in the child ---- */

struct directory {
    uint32_t inode, parent;
    uint32_t mode, uid, gid;
    uint32_t within; /* directories that are in it */
    UT_hash_handle hh;
    char name[];
};

/* What the child gives back. */
struct results {
    struct tally tally;
    struct tally_directory directory;
};

/* All that the child counts with. */
struct count {
    const struct database_view *view;
    struct directory *directories; /* uthash by inode */
    tally_kind *kind;
    tally_pick *pick;
    const void *context;
    const char *read; /* path of the file to be read */
    uid_t owner;
    gid_t group;
    struct results *results;
};

/* The path of the name @text in directory @inode, which ends at the end of @path.  NULL: it leads nowhere, or is longer
 * than any of Exim's. */
static const char *path_of(const struct count *count, uint32_t inode, const char *text, size_t length,
                           char path[PATH_SIZE])
{
    struct directory *above;
    char *at = path + PATH_SIZE - 1;

    *at = '\0';
    while (length + 1 <= (size_t)(at - path)) {
        at -= length;
        memcpy(at, text, length);
        if (inode == count->view->meta.root)
            return at;
        *--at = '/';
        HASH_FIND(hh, count->directories, &inode, sizeof(inode), above);
        if (!above)
            return NULL;
        inode = above->parent;
        text = above->name;
        length = strlen(text);
    } /* in a circle it becomes too long */
    return NULL;
}

typedef int visitor(struct count *count, uint32_t inode, const struct disk_inode *disk, struct format_names *names);

static int note_directory(struct count *count, uint32_t inode, const struct disk_inode *disk,
                          struct format_names *names)
{
    struct format_name name;

    if (!S_ISDIR(disk->mode) || format_next_name(names, &name) <= 0)
        return 0;
    struct directory *directory = calloc(1, sizeof(*directory) + name.length + 1);
    if (!directory)
        return -ENOMEM;
    directory->inode = inode;
    directory->parent = name.parent;
    directory->mode = disk->mode;
    directory->uid = disk->uid;
    directory->gid = disk->gid;
    memcpy(directory->name, name.text, name.length);
    HASH_ADD(hh, count->directories, inode, sizeof(directory->inode), directory);
    return 0;
}

static void read_start(struct count *count, uint32_t inode, uint64_t size)
{
    const struct format_key slice = format_slice_key(inode, 0);
    char *read = count->results->tally.read;
    size_t most = sizeof(count->results->tally.read) - 1;
    MDB_val key = database_key(&slice), value;

    if (size == 0 || size > most || mdb_get(count->view->transaction, count->view->database.data, &key, &value) != 0 ||
        value.mv_size < size)
        return;
    memcpy(read, value.mv_data, size);
    read[size] = '\0';
}

static int count_names(struct count *count, uint32_t inode, const struct disk_inode *disk, struct format_names *names)
{
    char text[PATH_SIZE];
    struct format_name name;

    while (!S_ISDIR(disk->mode) && format_next_name(names, &name) > 0) {
        const char *path = path_of(count, name.parent, name.text, name.length, text);
        if (path)
            count->results->tally.names[count->kind(count->context, path, disk->size) % TALLY_KINDS]++;
        if (path && strcmp(path, count->read) == 0)
            read_start(count, inode, disk->size);
    }
    return 0;
}

static int each_inode(struct count *count, visitor *visit)
{
    struct format_names names;
    struct disk_inode disk;
    MDB_cursor *cursor;
    MDB_val key, value;
    uint32_t inode;
    int result = 0;
    int code = mdb_cursor_open(count->view->transaction, count->view->database.inodes, &cursor);

    while (code == 0 && result == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (format_parse_inode_key(key.mv_data, key.mv_size, &inode) == 0 &&
            format_decode_inode(value.mv_data, value.mv_size, &disk, &names) == 0)
            result = visit(count, inode, &disk, &names);
    }
    return result < 0 ? result : code == MDB_NOTFOUND ? 0 : -EBADMSG;
}

static int look_at_journal(const char *state, uint64_t held, struct tally *tally)
{
    const struct journal_scan scan = {.above = held, .upto = UINT64_MAX};
    struct journal_found found = {0};
    char path[PLACES_PATH_MAX];

    places_in_state(state, PLACES_JOURNAL, path);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = directory >= 0 ? journal_scan(directory, &scan, &found) : errno == ENOENT ? 0 : -errno;
    tally->journal = directory < 0    ? TALLY_NONE
                     : found.detached ? TALLY_DETACHED
                     : found.missing  ? TALLY_HOLE
                                      : TALLY_WHOLE;
    if (directory >= 0)
        close(directory);
    tally->more = found.batches > 0;
    return result;
}

static int count_all(struct count *count, const char *state)
{
    int result = each_inode(count, count_names);

    return result < 0 ? result : look_at_journal(state, count->view->meta.batch, &count->results->tally);
}

/* What was the owner's when the database was written is @count's, as owner_follow() makes it. */
static int look_at_root(const struct count *count, struct disk_inode *root)
{
    const struct format_key number = format_inode_key((uint32_t)count->view->meta.root);
    MDB_val key = database_key(&number), value;

    if (mdb_get(count->view->transaction, count->view->database.inodes, &key, &value) != 0)
        return -EBADMSG;
    return format_decode_inode(value.mv_data, value.mv_size, root, NULL);
}

static void consider(struct count *count, const struct directory *directory, const struct disk_inode *root)
{
    struct tally_directory *found = &count->results->directory;
    const struct stat st = {.st_mode = directory->mode,
                            .st_nlink = 2 + directory->within,
                            .st_uid = directory->uid == root->uid ? count->owner : directory->uid,
                            .st_gid = directory->gid == root->gid ? count->group : directory->gid};
    char text[PATH_SIZE];
    const char *path = path_of(count, directory->parent, directory->name, strlen(directory->name), text);

    if (path && strlen(path) < sizeof(found->path) && count->pick(count->context, path, &st, found->path)) {
        strcpy(found->path, path);
        found->st = st;
    }
}

/* Only of one that was picked does it matter whether the journal has changed it. */
static int pick_one(struct count *count, const char *state)
{
    struct tally *tally = &count->results->tally;
    struct directory *above;
    struct disk_inode root;
    int result = count->view->meta.root ? look_at_root(count, &root) : -ENOENT;

    if (result < 0)
        return result;
    for (const struct directory *d = count->directories; d; d = d->hh.next) {
        HASH_FIND(hh, count->directories, &d->parent, sizeof(d->parent), above);
        if (above)
            above->within++;
    }
    for (const struct directory *d = count->directories; d; d = d->hh.next)
        consider(count, d, &root);
    if (count->results->directory.path[0])
        result = look_at_journal(state, count->view->meta.batch, tally);
    return result == 0 && tally->more ? -EBUSY : result;
}

typedef int work(struct count *count, const char *state);

static int do_inside(const char *state, struct count *count, work *do_work)
{
    char path[PLACES_PATH_MAX], why[FASTSPOOL_ERROR_MAX];
    struct database_view view;

    places_in_state(state, PLACES_DATABASE, path);
    int result = database_view_open(&view, path, false, why);
    if (result < 0)
        return result;
    count->view = &view;
    result = each_inode(count, note_directory);
    if (result == 0)
        result = do_work(count, state);
    if (result == 0 && !database_view_last(&view))
        result = -EBUSY;
    database_view_close(&view);
    return result;
}

/* ---- in the parent ---- */

static int do_in_child(const char *state, struct count *count, work *do_work, struct results *results)
{
    struct results *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;

    if (shared == MAP_FAILED)
        return -errno;
    struct rights rights = rights_of_owner(count->owner, count->group);
    count->results = shared;
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        int result = rights_confine(parent, -1);
        _exit(result < 0 ? -result : -do_inside(state, count, do_work));
    }
    int result = child < 0 || waitpid(child, &status, 0) != child ? -errno : 0;
    rights_back(rights);
    if (result == 0)
        result = WIFEXITED(status) ? -WEXITSTATUS(status) : -EBADMSG;
    *results = *shared;
    munmap(shared, sizeof(*shared));
    return result;
}

int tally_disk(const char *state, uid_t owner, gid_t group, tally_kind *kind, const void *context, const char *read,
               struct tally *tally)
{
    struct count count = {.kind = kind, .context = context, .read = read, .owner = owner, .group = group};
    struct results results = {0};
    int result = do_in_child(state, &count, count_all, &results);

    *tally = results.tally;
    tally->read[sizeof(tally->read) - 1] = '\0';
    return result;
}

int tally_directory(const char *state, uid_t owner, gid_t group, tally_pick *pick, const void *context,
                    struct tally_directory *directory)
{
    struct count count = {.pick = pick, .context = context, .owner = owner, .group = group};
    struct results results = {0};
    int result = do_in_child(state, &count, pick_one, &results);

    *directory = results.directory;
    directory->path[result == 0 ? sizeof(directory->path) - 1 : 0] = '\0';
    return result;
}

bool tally_is_emptied(const char *state)
{
    char path[PLACES_PATH_MAX];

    places_in_state(state, PLACES_DATABASE, path);
    return database_is_emptied(path);
}

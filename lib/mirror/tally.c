/* SPDX-License-Identifier: MIT
 *
 * A tally of what lies on the disk: names in the database, and whether the journal has more.
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
    UT_hash_handle hh;
    char name[];
};

/* All that the child counts with. */
struct count {
    const struct database_view *view;
    struct directory *directories; /* uthash by inode */
    tally_kind *kind;
    const void *context;
    const char *read; /* path of the file to be read */
    struct tally *tally;
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
    memcpy(directory->name, name.text, name.length);
    HASH_ADD(hh, count->directories, inode, sizeof(directory->inode), directory);
    return 0;
}

static void read_start(struct count *count, uint32_t inode, uint64_t size)
{
    const struct format_key slice = format_slice_key(inode, 0);
    size_t most = sizeof(count->tally->read) - 1;
    MDB_val key = database_key(&slice), value;

    if (size == 0 || size > most || mdb_get(count->view->transaction, count->view->database.data, &key, &value) != 0 ||
        value.mv_size < size)
        return;
    memcpy(count->tally->read, value.mv_data, size);
    count->tally->read[size] = '\0';
}

static int count_names(struct count *count, uint32_t inode, const struct disk_inode *disk, struct format_names *names)
{
    char text[PATH_SIZE];
    struct format_name name;

    while (!S_ISDIR(disk->mode) && format_next_name(names, &name) > 0) {
        const char *path = path_of(count, name.parent, name.text, name.length, text);
        if (path)
            count->tally->names[count->kind(count->context, path, disk->size) % TALLY_KINDS]++;
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

static int tally_all(const char *state, struct count *count)
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
        result = each_inode(count, count_names);
    if (result == 0)
        result = look_at_journal(state, view.meta.batch, count->tally);
    if (result == 0 && !database_view_last(&view))
        result = -EBUSY;
    database_view_close(&view);
    return result;
}

/* ---- in the parent ---- */

int tally_disk(const char *state, uid_t owner, gid_t group, tally_kind *kind, const void *context, const char *read,
               struct tally *tally)
{
    struct tally *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;

    if (shared == MAP_FAILED)
        return -errno;
    struct rights rights = rights_of_owner(owner, group);
    struct count count = {.kind = kind, .context = context, .read = read, .tally = shared};
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        int result = rights_confine(parent, -1);
        _exit(result < 0 ? -result : -tally_all(state, &count));
    }
    int result = child < 0 || waitpid(child, &status, 0) != child ? -errno : 0;
    rights_back(rights);
    if (result == 0)
        result = WIFEXITED(status) ? -WEXITSTATUS(status) : -EBADMSG;
    *tally = *shared;
    tally->read[sizeof(tally->read) - 1] = '\0';
    munmap(shared, sizeof(*shared));
    return result;
}

bool tally_is_emptied(const char *state)
{
    char path[PLACES_PATH_MAX];

    places_in_state(state, PLACES_DATABASE, path);
    return database_is_emptied(path);
}

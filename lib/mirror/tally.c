/* SPDX-License-Identifier: MIT
 *
 * A tally of what lies on the disk: names in the database, and whether the journal has more.
 *
 * The happy path: a child opens the database as of one instant, reads the names of all inodes, then looks whether the
 * journal has a batch behind it.  After a mirror that has ended in order it has none.
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
#include <sys/wait.h>
#include <unistd.h>

/* ---- in the child ---- */

static void count_names(const MDB_val *value, tally_which *which, struct tally *tally)
{
    struct format_names names;
    struct format_name name;
    struct disk_inode disk;
    char text[NAME_MAX + 1];

    if (format_decode_inode(value->mv_data, value->mv_size, &disk, &names) < 0)
        return;
    while (format_next_name(&names, &name) > 0) {
        memcpy(text, name.text, name.length);
        text[name.length] = '\0';
        tally->names += which(text);
    }
}

static int count_inodes(const struct database_view *view, tally_which *which, struct tally *tally)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int code = mdb_cursor_open(view->transaction, view->database.inodes, &cursor);

    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        count_names(&value, which, tally);
    return code == MDB_NOTFOUND ? 0 : -EBADMSG;
}

static int look_at_journal(const char *state, uint64_t held, struct tally *tally)
{
    const struct journal_scan scan = {.above = held, .upto = UINT64_MAX};
    struct journal_found found = {0};
    char path[PLACES_PATH_MAX];

    places_in_state(state, PLACES_JOURNAL, path);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = directory >= 0 ? journal_scan(directory, &scan, &found) : errno == ENOENT ? 0 : -errno;
    if (directory >= 0)
        close(directory);
    tally->more = found.batches > 0;
    return result;
}

static int tally_all(const char *state, tally_which *which, struct tally *tally)
{
    char path[PLACES_PATH_MAX], why[FASTSPOOL_ERROR_MAX];
    struct database_view view;

    places_in_state(state, PLACES_DATABASE, path);
    int result = database_view_open(&view, path, false, why);
    if (result < 0)
        return result;
    result = count_inodes(&view, which, tally);
    if (result == 0)
        result = look_at_journal(state, view.meta.batch, tally);
    if (result == 0 && !database_view_last(&view))
        result = -EBUSY;
    database_view_close(&view);
    return result;
}

/* ---- in the parent ---- */

int tally_disk(const char *state, uid_t owner, gid_t group, tally_which *which, struct tally *tally)
{
    struct tally *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;

    if (shared == MAP_FAILED)
        return -errno;
    struct rights rights = rights_of_owner(owner, group);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        int result = rights_confine(parent, -1);
        _exit(result < 0 ? -result : -tally_all(state, which, shared));
    }
    int result = child < 0 || waitpid(child, &status, 0) != child ? -errno : 0;
    rights_back(rights);
    if (result == 0)
        result = WIFEXITED(status) ? -WEXITSTATUS(status) : -EBADMSG;
    *tally = *shared;
    munmap(shared, sizeof(*shared));
    return result;
}

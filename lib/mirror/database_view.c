/* SPDX-License-Identifier: MIT
 *
 * A look at the database that changes nothing.
 *
 * The happy path: LMDB maps the file read-only, without its lock file, and a transaction for reading sees the last
 * commit.  LMDB writes new pages and leaves the old ones alone: a page that one commit frees is used again two commits
 * later at the earliest.  So what is read is of that commit, whatever the mirror does, until it has made two more.
 * LMDB's own two pages say how many there were, and database_view_whole() looks there after the reading.
 *
 * Failure modes:
 *   - The mirror makes two commits meanwhile: the caller begins again, and, where that happens again and again, with
 *     @registered.
 *   - The file ends before its last page: an error here, not a SIGBUS later.  (Free pages may be missing at the end.)
 *   - Pages are damaged: LMDB may follow them anywhere.  The caller must expect to die.
 */
#include "mirror/database_view.h"

#include "base/error.h"
#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int say(int code, const char *what, char *error)
{
    return error_set(error, code > 0 ? -code : -EBADMSG, "%s: %s", what, mdb_strerror(code));
}

static uint64_t last_number(MDB_env *environment)
{
    MDB_envinfo info;

    return mdb_env_info(environment, &info) == 0 ? info.me_last_txnid : UINT64_MAX;
}

/* Is every page there that isn't free? */
static int check_length(MDB_env *environment, char *error)
{
    MDB_envinfo info;
    MDB_stat main;
    mdb_filehandle_t fd;
    struct stat st;
    size_t free = 0;

    if (mdb_env_info(environment, &info) != 0 || mdb_env_stat(environment, &main) != 0 ||
        mdb_env_get_fd(environment, &fd) != 0 || fstat(fd, &st) < 0)
        return error_set(error, -EIO, "look at the database's file");
    size_t pages = (size_t)st.st_size / main.ms_psize;
    if (pages > info.me_last_pgno)
        return 0;
    int code = database_count_free(environment, pages, &free);
    if (code != 0)
        return say(code, "read the database's free pages", error);
    if (free == info.me_last_pgno + 1 - pages)
        return 0;
    return error_set(error, -EBADMSG, "the file ends after page %zu, and page %zu is in use", pages - 1,
                     info.me_last_pgno);
}

static int open_tables(struct database *database, MDB_txn *transaction, char *error)
{
    const char *const names[] = {"inodes", "data", "meta"};
    MDB_dbi *const tables[] = {&database->inodes, &database->data, &database->meta};

    for (int i = 0; i < 3; i++) {
        int code = mdb_dbi_open(transaction, names[i], 0, tables[i]);
        if (code != 0)
            return error_set(error, -EBADMSG, "open the table \"%s\": %s", names[i], mdb_strerror(code));
    }
    return 0;
}

static int read_meta(struct database_view *view, char *error)
{
    const struct format_key name = format_meta_key();
    MDB_val key = database_key(&name), value;
    int code = mdb_get(view->transaction, view->database.meta, &key, &value);

    if (code != 0)
        return error_set(error, -EBADMSG, "the table \"meta\" has no entry: %s", mdb_strerror(code));
    if (format_decode_meta(value.mv_data, value.mv_size, &view->meta) < 0)
        return error_set(error, -EBADMSG, "the entry of the table \"meta\" (%zu bytes) is none of this version",
                         value.mv_size);
    return 0;
}

/* A FIFO in its place would be waited for. */
static int check_file(const char *path, char *error)
{
    char file[FASTSPOOL_PATH_MAX + 48];
    struct stat st;

    snprintf(file, sizeof(file), "%s/data.mdb", path);
    return stat(file, &st) == 0 && !S_ISREG(st.st_mode) ? error_set(error, -EBADMSG, "data.mdb is no file") : 0;
}

int database_view_open(struct database_view *view, const char *path, bool registered, char error[FASTSPOOL_ERROR_MAX])
{
    MDB_env *environment;

    *view = (struct database_view){0};
    if (check_file(path, error) < 0)
        return -EBADMSG;
    int code = mdb_env_create(&environment);
    if (code == 0)
        view->database.environment = environment;
    if (code == 0)
        code = mdb_env_set_maxdbs(environment, 4);
    if (code == 0)
        code = mdb_env_open(environment, path, MDB_RDONLY | MDB_NOTLS | (registered ? 0 : MDB_NOLOCK), 0);
    int result = code ? say(code, "open the database's file", error) : check_length(environment, error);
    if (result == 0 && (code = mdb_txn_begin(environment, NULL, MDB_RDONLY, &view->transaction)) != 0)
        result = say(code, "begin to read", error);
    if (result == 0)
        result = open_tables(&view->database, view->transaction, error);
    if (result == 0)
        result = read_meta(view, error);
    if (result == 0)
        view->number = mdb_txn_id(view->transaction);
    else
        database_view_close(view);
    return result;
}

void database_view_close(struct database_view *view)
{
    if (view->transaction)
        mdb_txn_abort(view->transaction);
    view->transaction = NULL;
    database_close(&view->database);
}

bool database_view_whole(const struct database_view *view)
{
    return last_number(view->database.environment) <= view->number + 1;
}

bool database_view_last(const struct database_view *view)
{
    return last_number(view->database.environment) == view->number;
}

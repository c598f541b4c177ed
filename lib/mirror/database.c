/* SPDX-License-Identifier: MIT
 *
 * Writing the database.
 *
 * The happy path: one transaction per checkpoint.  Each record puts or deletes what it says, and slices beyond a file's
 * end are deleted.  A new database is made beside its place, synced, and renamed: so there is a whole one, or none.
 *
 * Failure modes:
 *  - Any error aborts the transaction, and the database holds the checkpoint before.
 *  - A full disk is -ENOSPC, damage -EBADMSG, anything else that LMDB may return -EIO with LMDB's sentence.
 *  - The file is missing in its directory, or empty: -ENODATA, and nothing is made there, as LMDB would.
 *  - Where each block is written to a new place, as by btrfs, LMDB's stores to its lock file need room, too, which this
 *    asks for before it opens.  Later they are a SIGBUS (database_lacks_room()).
 *  - After a commit that failed the environment is closed, so that the next one reads the disk anew.
 *
 * The map is as large as it may ever be from the start, so it is never resized.  It is not writable, so a stray store
 * cannot reach it.
 */
#include "mirror/database.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/places.h"
#include "base/unconst.h"
#include "fastspool.h"
#include "mirror/format.h"
#include "spool/locker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_LARGEST  (UINT64_C(1) << 40) /* bytes of address space; the file grows as needed */
#define LOCK_NAME    PLACES_DATABASE_LOCK
#define LOCK_TIME    NS_PER_S /* for another process that opens the database */
#define LOCK_EVERY   (10 * NS_PER_MS)
#define LOCK_FILE    8192                /* bytes: what LMDB makes it for its 126 readers */
#define MAP_SMALLEST (UINT64_C(1) << 26) /* under a limit that this process can't shed */

/* The negative errno of LMDB's code, and a sentence.  The static functions of this file return LMDB's codes, which are
 * its own or a positive errno; the public ones call this.  What they look for every whole database has. */
static int explain(int code, const char *what, char *error)
{
    bool damaged = code == MDB_CORRUPTED || code == MDB_INVALID || code == MDB_VERSION_MISMATCH ||
                   code == MDB_PAGE_NOTFOUND || code == MDB_NOTFOUND;
    int result = code == MDB_MAP_FULL ? -ENOSPC : damaged ? -EBADMSG : code > 0 ? -code : -EIO;

    return error_set(error, result, "%s: %s", what, mdb_strerror(code));
}

/* ---- opening ---- */

#define FREE_PAGES 0 /* LMDB's own table: transaction number to a list of pages that are free, its length first */

int database_count_free(MDB_env *environment, size_t first, size_t *count)
{
    MDB_txn *transaction;
    MDB_cursor *cursor;
    MDB_val key, value;
    int code = mdb_txn_begin(environment, NULL, MDB_RDONLY, &transaction);

    *count = 0;
    if (code != 0)
        return code;
    code = mdb_cursor_open(transaction, FREE_PAGES, &cursor);
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        const size_t *pages = value.mv_data;
        for (size_t i = 1; i <= pages[0] && i < value.mv_size / sizeof(*pages); i++)
            *count += pages[i] >= first;
    }
    mdb_txn_abort(transaction);
    return code == MDB_NOTFOUND ? 0 : code;
}

/* Are all pages from number @first up to the last one free?  There are @count. */
static int all_free(MDB_env *environment, size_t first, size_t count)
{
    size_t found;
    int code = database_count_free(environment, first, &found);

    return code ? code : found == count ? 0 : MDB_CORRUPTED;
}

/* Reading the map beyond the file's end is a SIGBUS.  LMDB never writes a page that one transaction both takes and
 * frees, so free pages may be missing there: the file is made longer.  Any other missing page is damage, and the file
 * is left as it was. */
static int check_length(MDB_env *environment)
{
    MDB_envinfo info;
    MDB_stat stat_of_main;
    mdb_filehandle_t fd;
    struct stat st;
    int code = mdb_env_info(environment, &info);

    if (code == 0)
        code = mdb_env_stat(environment, &stat_of_main);
    if (code == 0)
        code = mdb_env_get_fd(environment, &fd);
    if (code == 0 && fstat(fd, &st) < 0)
        code = errno;
    size_t pages = code ? 0 : (size_t)st.st_size / stat_of_main.ms_psize;
    if (code != 0 || pages > info.me_last_pgno)
        return code;
    if (ftruncate(fd, (off_t)((info.me_last_pgno + 1) * stat_of_main.ms_psize)) < 0)
        return errno;
    code = all_free(environment, pages, info.me_last_pgno + 1 - pages);
    if (code != 0 && ftruncate(fd, st.st_size) < 0)
        return errno;
    return code;
}

/* LMDB would wait without an end, and without a word, for the process that has locked its lock file @fd.  One that
 * opens the database does so for an instant. */
static int wait_for_lock(int fd)
{
    uint64_t start = clock_monotonic();

    do {
        struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
            return errno;
        if (lock.l_type == F_UNLCK)
            return 0;
        clock_sleep(LOCK_EVERY);
    } while (clock_monotonic() - start < LOCK_TIME);
    return EAGAIN;
}

/* Why can't a block be written in directory @path? */
static int why_no_room(const char *path)
{
    static const char block[4096];
    int fd = open(path, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    int code = fd < 0 || pwrite(fd, block, sizeof(block), 0) < 0 ? errno : ENOSPC; /* by now there is room */

    if (fd >= 0)
        close(fd);
    return code;
}

/* Can the lock file @fd in directory @path be written to through memory?  (A kernel before 5.14 can't be asked.) */
static int try_stores(int fd, const char *path)
{
    void *map = mmap(NULL, LOCK_FILE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        return errno;
    bool full = madvise(map, LOCK_FILE, MADV_POPULATE_WRITE) < 0 && errno == EFAULT;
    munmap(map, LOCK_FILE);
    return full ? why_no_room(path) : 0;
}

/* LMDB maps its lock file and writes to it: a SIGBUS on a full disk.  So its blocks are allocated first.  (This process
 * has no other descriptor of the file, so closing this one drops no lock.) */
static int prepare_lock_file(const char *path)
{
    char file[FASTSPOOL_PATH_MAX + 48];

    snprintf(file, sizeof(file), "%s/" LOCK_NAME, path);
    int fd = open(file, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    int code = posix_fallocate(fd, 0, LOCK_FILE);
    if (code == 0)
        code = try_stores(fd, path);
    if (code == 0)
        code = wait_for_lock(fd);
    close(fd);
    return code;
}

static struct {
    uintptr_t begin, end; /* empty: nowhere, or there is no /proc */
    char directory[FASTSPOOL_PATH_MAX + 32];
} lock_map; /* where this process has mapped the lock file */

static void find_lock_map(const char *path)
{
    static const char name[] = "/" LOCK_NAME "\n";
    char line[PATH_MAX + 128];
    FILE *maps = fopen("/proc/self/maps", "re");

    while (maps && fgets(line, sizeof(line), maps)) {
        size_t length = strlen(line);
        if (length > strlen(name) && strcmp(line + length - strlen(name), name) == 0)
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &lock_map.begin, &lock_map.end);
    }
    if (maps)
        fclose(maps);
    snprintf(lock_map.directory, sizeof(lock_map.directory), "%s", path);
}

int database_lacks_room(const void *fault)
{
    bool is_in_map = (uintptr_t)fault >= lock_map.begin && (uintptr_t)fault < lock_map.end;

    return is_in_map ? -why_no_room(lock_map.directory) : 0;
}

static int open_environment(struct database *database, const char *path)
{
    int code = prepare_lock_file(path);

    if (code != 0)
        return code;
    code = ENOMEM;

    for (uint64_t size = MAP_LARGEST; size >= MAP_SMALLEST && code == ENOMEM; size /= 4) {
        code = mdb_env_create(&database->environment);
        if (code != 0)
            return code;
        code = mdb_env_set_mapsize(database->environment, size);
        if (code == 0)
            code = mdb_env_set_maxdbs(database->environment, 4);
        if (code == 0)
            code = mdb_env_open(database->environment, path, 0, 0600);
        if (code != 0)
            database_close(database);
    }
    if (code == 0)
        find_lock_map(path);
    return code;
}

static int open_tables(struct database *database, MDB_txn *transaction, unsigned flags)
{
    int code = mdb_dbi_open(transaction, "inodes", flags, &database->inodes);

    if (code == 0)
        code = mdb_dbi_open(transaction, "data", flags, &database->data);
    return code ? code : mdb_dbi_open(transaction, "meta", flags, &database->meta);
}

static int put_meta(struct database *database, MDB_txn *transaction, const struct disk_meta *meta)
{
    const struct format_key name = format_meta_key();
    MDB_val key = database_key(&name), value = {sizeof(*meta), UNCONST(meta)};

    return mdb_put(transaction, database->meta, &key, &value, 0);
}

/* ---- making ---- */

/* An empty database at @path, synced. */
static int make_empty(const char *path)
{
    const struct disk_meta meta = {.format = DATABASE_FORMAT};
    struct database database = {0};
    MDB_txn *transaction;
    int code = open_environment(&database, path);

    if (code == 0)
        code = mdb_txn_begin(database.environment, NULL, 0, &transaction);
    if (code == 0) {
        code = open_tables(&database, transaction, MDB_CREATE);
        if (code == 0)
            code = put_meta(&database, transaction, &meta);
        if (code == 0)
            code = mdb_txn_commit(transaction);
        else
            mdb_txn_abort(transaction);
    }
    database_close(&database);
    return code ? code : -fd_sync_directory(path);
}

static void remove_files(const char *path)
{
    static const char *const files[] = {"data.mdb", LOCK_NAME};
    char file[FASTSPOOL_PATH_MAX + 48];

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        snprintf(file, sizeof(file), "%s/%s", path, files[i]);
        unlink(file);
    }
}

/* Make the database that is missing at @path: at @path.new, and renamed. */
static int make(const char *path)
{
    char new[FASTSPOOL_PATH_MAX + 32], above[FASTSPOOL_PATH_MAX + 32];

    snprintf(new, sizeof(new), "%s.new", path);
    snprintf(above, sizeof(above), "%s", path);
    remove_files(new); /* left by a mirror that died */
    if (mkdir(new, 0700) < 0 && errno != EEXIST)
        return errno;
    int code = make_empty(new);
    if (code == 0 && rename(new, path) < 0)
        code = errno;
    if (code != 0)
        return code;
    code = -fd_sync_directory(dirname(above));
    if (code != 0)
        rename(path, new); /* make it again: the next sync may succeed without having written the name */
    return code;
}

/* ---- opening, for use ---- */

/* After a commit that failed in its last write, the disk may hold that commit while the page cache holds what LMDB put
 * back: the next transaction would overwrite pages that the disk's state uses.  So sync first, to have on the disk what
 * is read.  Where that fails, drop the cache: the next open reads what the disk holds. */
static int settle(MDB_env *environment)
{
    mdb_filehandle_t fd;
    int code = mdb_env_sync(environment, 1);

    if (code != 0 && mdb_env_get_fd(environment, &fd) == 0)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return code;
}

/* LMDB would make one there. */
bool database_is_emptied(const char *path)
{
    char file[FASTSPOOL_PATH_MAX + 48];
    struct stat st;

    snprintf(file, sizeof(file), "%s/data.mdb", path);
    if (stat(path, &st) < 0)
        return false;
    return stat(file, &st) < 0 ? errno == ENOENT : S_ISREG(st.st_mode) && st.st_size == 0;
}

int database_open(struct database *database, const char *path, char error[FASTSPOOL_ERROR_MAX])
{
    char what[FASTSPOOL_PATH_MAX + 32], locker[LOCKER_SENTENCE];
    MDB_txn *transaction;
    struct stat st;

    *database = (struct database){0};
    snprintf(what, sizeof(what), "open the database %s", path);
    if (database_is_emptied(path))
        return error_set(error, -ENODATA,
                         "%s: it is empty: mount its disk, or put data.mdb back; where that is lost, remove the "
                         "directory, and what the journal has comes back",
                         what);
    int code = stat(path, &st) < 0 ? errno : 0;
    if (code == ENOENT)
        code = make(path);
    if (code == 0)
        code = open_environment(database, path);
    if (code == 0)
        code = settle(database->environment);
    if (code == 0)
        code = check_length(database->environment);
    if (code == 0)
        code = mdb_txn_begin(database->environment, NULL, MDB_RDONLY, &transaction);
    if (code == 0) {
        code = open_tables(database, transaction, 0);
        if (code == 0)
            code = mdb_txn_commit(transaction); /* a commit keeps the tables open */
        else
            mdb_txn_abort(transaction);
    }
    if (code == 0)
        return 0;
    database_close(database);
    if (code != EAGAIN)
        return explain(code, what, error);
    if (locker_find(path, LOCK_NAME, "mirror", locker))
        return error_set(error, -EAGAIN, "%s: %s", what, locker);
    return error_set(error, -EAGAIN,
                     "%s: another process has locked %s/" LOCK_NAME ": `fuser -v %s/" LOCK_NAME
                     "` says which one; end it",
                     what, path, path);
}

void database_close(struct database *database)
{
    if (database->environment)
        mdb_env_close(database->environment);
    database->environment = NULL;
    lock_map.begin = lock_map.end = 0;
}

/* ---- shared by threads ---- */

void shared_database_init(struct shared_database *shared, const char *path)
{
    *shared = (struct shared_database){.path = path};
    pthread_rwlock_init(&shared->lock, NULL);
}

void shared_database_end(struct shared_database *shared)
{
    database_close(&shared->database);
    pthread_rwlock_destroy(&shared->lock);
}

int shared_database_enter(struct shared_database *shared, struct database **database, char error[FASTSPOOL_ERROR_MAX])
{
    *database = &shared->database;
    for (;;) {
        pthread_rwlock_rdlock(&shared->lock);
        if (shared->database.environment)
            return 0;
        pthread_rwlock_unlock(&shared->lock);
        pthread_rwlock_wrlock(&shared->lock);
        int result = shared->database.environment ? 0 : database_open(&shared->database, shared->path, error);
        pthread_rwlock_unlock(&shared->lock);
        if (result < 0)
            return result;
    }
}

void shared_database_leave(struct shared_database *shared, bool broken)
{
    pthread_rwlock_unlock(&shared->lock);
    if (!broken)
        return;
    __atomic_add_fetch(&shared->closing, 1, __ATOMIC_ACQ_REL);
    pthread_rwlock_wrlock(&shared->lock);
    database_close(&shared->database);
    pthread_rwlock_unlock(&shared->lock);
    __atomic_sub_fetch(&shared->closing, 1, __ATOMIC_ACQ_REL);
}

/* The lock is held. */
static bool is_away(const struct shared_database *shared, int state)
{
    struct stat open, named;
    mdb_filehandle_t fd;

    if (!shared->database.environment)
        return database_is_emptied(shared->path);
    if (mdb_env_get_fd(shared->database.environment, &fd) != 0 || fstat(fd, &open) < 0)
        return false;
    return fstatat(state, PLACES_DATABASE "/data.mdb", &named, 0) < 0
               ? errno == ENOENT
               : named.st_dev != open.st_dev || named.st_ino != open.st_ino || named.st_size == 0;
}

bool shared_database_is_away(struct shared_database *shared, int state)
{
    pthread_rwlock_rdlock(&shared->lock);
    bool away = is_away(shared, state);
    pthread_rwlock_unlock(&shared->lock);
    return away;
}

void shared_database_forget(struct shared_database *shared, int state)
{
    pthread_rwlock_wrlock(&shared->lock);
    if (is_away(shared, state))
        database_close(&shared->database);
    if (!shared->database.environment && database_is_emptied(shared->path)) {
        remove_files(shared->path);
        rmdir(shared->path);
    }
    pthread_rwlock_unlock(&shared->lock);
}

/* ---- writing ---- */

/* Delete the slices of an inode from number @slice on. */
static int delete_slices(struct database *database, MDB_txn *transaction, uint32_t inode, uint32_t slice)
{
    const struct format_key first = format_slice_key(inode, slice);
    MDB_val key = database_key(&first), value;
    MDB_cursor *cursor;
    uint32_t owner;
    int code = mdb_cursor_open(transaction, database->data, &cursor);

    if (code != 0)
        return code;
    code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (code == 0 && format_parse_slice_key(key.mv_data, key.mv_size, &owner, &slice) == 0 && owner == inode) {
        code = mdb_cursor_del(cursor, 0);
        if (code == 0)
            code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT); /* the one behind the deleted one */
    }
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

static int put_inode(struct database *database, MDB_txn *transaction, const struct record *record, const void *bytes)
{
    const struct format_key number = format_inode_key(record->inode);
    MDB_val key = database_key(&number), value = {record->size, UNCONST(bytes)};
    struct disk_inode disk;

    if (format_decode_inode(bytes, record->size, &disk, NULL) < 0)
        return EBADMSG;
    uint32_t slices = S_ISREG(disk.mode) ? format_slices(disk.size) : 0;
    int code = mdb_put(transaction, database->inodes, &key, &value, 0);
    return code ? code : delete_slices(database, transaction, record->inode, slices);
}

static int delete_inode(struct database *database, MDB_txn *transaction, uint32_t inode)
{
    const struct format_key number = format_inode_key(inode);
    MDB_val key = database_key(&number);
    int code = mdb_del(transaction, database->inodes, &key, NULL);

    return code == 0 || code == MDB_NOTFOUND ? delete_slices(database, transaction, inode, 0) : code;
}

static int put_slice(struct database *database, MDB_txn *transaction, const struct record *record, const void *bytes)
{
    const struct format_key number = format_slice_key(record->inode, record->slice);
    MDB_val key = database_key(&number), value = {record->size, UNCONST(bytes)};

    if (record->kind == RECORD_SLICE)
        return record->size && record->size <= SLICE_SIZE ? mdb_put(transaction, database->data, &key, &value, 0)
                                                          : EBADMSG;
    int code = mdb_del(transaction, database->data, &key, NULL);
    return code == MDB_NOTFOUND ? 0 : code;
}

int database_begin(struct database *database, MDB_txn **transaction, struct disk_meta *meta,
                   char error[FASTSPOOL_ERROR_MAX])
{
    const struct format_key name = format_meta_key();
    MDB_val key = database_key(&name), value;

    (void)mdb_reader_check(database->environment, NULL); /* a killed reader would keep old pages for ever */
    int code = mdb_txn_begin(database->environment, NULL, 0, transaction);

    if (code != 0)
        return explain(code, "begin a transaction", error);
    code = mdb_get(*transaction, database->meta, &key, &value);
    if (code == 0 && format_decode_meta(value.mv_data, value.mv_size, meta) < 0)
        code = MDB_VERSION_MISMATCH;
    if (code == 0)
        return 0;
    mdb_txn_abort(*transaction);
    return explain(code, "the database is damaged: read what it holds", error);
}

int database_apply(struct database *database, MDB_txn *transaction, const struct record *record, const void *value,
                   char error[FASTSPOOL_ERROR_MAX])
{
    int code = EBADMSG;

    switch (record->kind) {
    case RECORD_INODE:
        code = put_inode(database, transaction, record, value);
        break;
    case RECORD_GONE:
        code = delete_inode(database, transaction, record->inode);
        break;
    case RECORD_SLICE:
    case RECORD_HOLE:
        code = put_slice(database, transaction, record, value);
        break;
    }
    return code ? explain(code, "write to the database", error) : 0;
}

int database_commit(struct database *database, MDB_txn *transaction, const struct disk_meta *meta,
                    char error[FASTSPOOL_ERROR_MAX])
{
    int code = put_meta(database, transaction, meta);

    if (code != 0) {
        mdb_txn_abort(transaction);
        return explain(code, "write to the database", error);
    }
    code = mdb_txn_commit(transaction);
    return code ? explain(code, "commit to the database", error) : 0;
}

uint64_t database_free_bytes(struct database *database)
{
    MDB_stat statistics;
    size_t count;

    if (database_count_free(database->environment, 0, &count) != 0 ||
        mdb_env_stat(database->environment, &statistics) != 0)
        return 0;
    return (uint64_t)count * statistics.ms_psize;
}

int database_turn_over(struct database *database, char error[FASTSPOOL_ERROR_MAX])
{
    struct disk_meta meta;
    MDB_txn *transaction;
    int result = 0;

    for (int turn = 0; turn < 2 && result == 0; turn++) {
        result = database_begin(database, &transaction, &meta, error);
        if (result == 0)
            result = database_commit(database, transaction, &meta, error);
    }
    return result;
}

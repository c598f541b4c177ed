/* SPDX-License-Identifier: MIT
 *
 * Whose the parts of a store are.
 *
 * All below the state directory, and all of the memory, is the spool owner's.  A chown or chmod of one part, by hand or
 * by what restores a backup, locks him out.  What fails then is some call, on some file, with "Permission denied": the
 * reason may be a directory above it.
 *
 * The happy path: the kernel, asked as the owner (faccessat(2)), lets him have each part.  So access control lists,
 * groups and capabilities count as they do for the call that failed.
 *
 * Failure modes, each a sentence with the path, whose it is or its mode, and the command:
 *   - A directory on the way there can't be searched.  Only that is told: what is below it can't be looked at.  Where
 *     it is another user's, below one of the owner's, nothing is: he may have put a link there.
 *   - A part is another user's: so may be those beside it, and the command gives him all of them.
 *   - It is his, and has not the mode for it.  The command gives that and takes nothing: he may put a link there, and
 *     what it leads to stays open to all that it was.
 *   - A part has an attribute with which not even root can write it; a file is in a directory's place.
 *   - A lock is no file.
 *   - The spool's own directory has lost its mode, which matters to Exim alone where the state is elsewhere.
 *   - State or memory could be used by others: no process trusts them then.
 *   - The spool is root's, and the state is not: Exim has no state of root's, so the spool was given away.
 *   - The memory that the state names is another store's, or gone, or where no process makes any: nothing is told of
 *     it.  The owner writes that name, and root may do what the sentence says.
 *   - The owner is refused for another reason (a security module, say): nothing is told.
 */
#include "spool/owned.h"

#include "base/acl.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "store/layout.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_MODE      0600u
#define DIRECTORY_MODE 0700u
#define SEARCHED       0100u /* of a directory on the way */
#define OTHERS_WRITE   0022u

/* What others must not do with a part. */
enum others { NOTHING_MORE, NOT_WRITE, NOT_USE };

/* What is looked at, and for whom. */
struct owned {
    const char *spool;
    const struct stat *st;
    const char *top; /* what is given back to the owner together: the state directory, or that of the memory */
    char *error;
};

/* ---- one part ---- */

/* Is the owner refused @mode, the owner's bits of one? */
static bool is_refused(const char *path, mode_t mode)
{
    int wanted = (mode & 0400 ? R_OK : 0) | (mode & 0200 ? W_OK : 0) | (mode & 0100 ? X_OK : 0);

    return faccessat(AT_FDCWD, path, wanted, AT_EACCESS) < 0 && errno == EACCES;
}

/* A spool of root's, and a state of another user's. */
static int tell_given_away(const struct owned *owned, const struct stat *state)
{
    char user[ERROR_USER], like[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], what[sizeof(like)];

    return error_set(owned->error, -EPERM,
                     "the spool %s is root's, and its state directory %s is %s's: as root, run `chown --reference=%s "
                     "%s`, if that is Exim's user",
                     owned->spool, owned->top, error_user(state->st_uid, user),
                     escape_word(like, sizeof(like), owned->top), escape_word(what, sizeof(what), owned->spool));
}

static int tell_owner(const struct owned *owned, const char *path, const struct stat *st)
{
    char user[ERROR_USER], owner[ERROR_USER], like[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], what[sizeof(like)];
    bool is_state = strcmp(path, owned->top) == 0 && st->st_uid != 0;

    return error_set(owned->error, -EPERM,
                     "%s is %s's, and has to be %s's, as the spool is: as root, run `chown -R --reference=%s %s`%s",
                     path, error_user(st->st_uid, user), error_user(owned->st->st_uid, owner),
                     escape_word(like, sizeof(like), owned->spool), escape_word(what, sizeof(what), owned->top),
                     is_state ? ", unless it is the spool that was given away" : "");
}

/* @command: what chmod(1) has to be told, so that it has what it lacks, or no more. */
static int tell_mode(const struct owned *owned, const char *path, const struct stat *st, bool refused,
                     const char *command)
{
    char owner[ERROR_USER], why[96], what[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (refused)
        snprintf(why, sizeof(why), "with which %s, the spool's owner, can't use it",
                 error_user(owned->st->st_uid, owner));
    else
        snprintf(why, sizeof(why), "and has to be %s's, readable and writable by that user alone",
                 error_user(owned->st->st_uid, owner));
    return error_set(owned->error, -EPERM, "%s has mode %04o, %s: as root, run `chmod %s %s`", path,
                     st->st_mode & 07777, why, command, escape_word(what, sizeof(what), path));
}

/* The first directory on the way to @path that the owner can't search, if there is one.  A directory of root's has to
 * be every user's to search, unless the owner can have put it there. */
static int check_way(const struct owned *owned, const char *path)
{
    char above[PLACES_PATH_MAX];
    bool is_his = false; /* to change: it, or a directory on the way to it, is the owner's, or a link of his */
    struct stat st, named;

    for (const char *at = path; (at = strchr(at + 1, '/'));) {
        snprintf(above, sizeof(above), "%.*s", (int)(at - path), path);
        if (lstat(above, &named) < 0)
            return 0;
        is_his = is_his || named.st_uid == owned->st->st_uid;
        if (!is_refused(above, SEARCHED) || stat(above, &st) < 0)
            continue;
        if (st.st_uid == owned->st->st_uid)
            return tell_mode(owned, above, &st, true, "u+rwx");
        return is_his ? 0 : tell_mode(owned, above, &st, true, "a+rx");
    }
    return 0;
}

/* As those refuse it that open it.  Trusted users have an access control list. */
static bool is_shared(const struct owned *owned, const char *path, const struct stat *st, enum others others)
{
    if (others != NOTHING_MORE && st->st_uid != owned->st->st_uid && st->st_uid != 0)
        return true;
    if (others != NOT_USE)
        return others == NOT_WRITE && (st->st_mode & OTHERS_WRITE);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool is = fd >= 0 && !acl_alone(fd, st);
    if (fd >= 0)
        close(fd);
    return is;
}

/* As chattr(1) sets them: nobody, not even root, may write there then. */
static int check_attributes(const struct owned *owned, const char *path, mode_t mode)
{
    char what[ESCAPE_WORD_ROOM(PLACES_PATH_MAX)];
    struct statx st;

    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &st) < 0 ||
        !(st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)))
        return 0;
    return error_set(owned->error, -EPERM,
                     "%s has an attribute with which nobody can use it: as root, run `chattr %s-i -a %s`", path,
                     mode & SEARCHED ? "-R " : "", escape_word(what, sizeof(what), path));
}

/* Is a file where a directory has to be? */
static int check_kind(const struct owned *owned, const char *path, mode_t mode)
{
    char what[ESCAPE_WORD_ROOM(PLACES_PATH_MAX)];
    struct stat st;

    if (!(mode & SEARCHED) || stat(path, &st) < 0 || S_ISDIR(st.st_mode))
        return 0;
    escape_word(what, sizeof(what), path);
    return error_set(owned->error, -EPERM,
                     "%s has to be a directory: put that back, if it was moved; else, as root, run `mv -T %s %s.away`",
                     path, what, what);
}

/* @mode: of a file or directory as they are made.  What is not there, or no longer, is none of this file's business. */
static int check_part(const struct owned *owned, const char *path, mode_t mode, enum others others)
{
    char command[8];
    struct stat st;
    int result = check_attributes(owned, path, mode);

    if (result == 0)
        result = check_kind(owned, path, mode);
    if (result < 0)
        return result;
    bool refused = is_refused(path, mode);
    result = refused ? check_way(owned, path) : 0;

    if (result < 0 || (!refused && others == NOTHING_MORE) || stat(path, &st) < 0)
        return result;
    bool shared = is_shared(owned, path, &st, others);
    if (st.st_uid != owned->st->st_uid && (refused || (shared && st.st_uid != 0)))
        return others == NOT_WRITE && owned->st->st_uid == 0 ? tell_given_away(owned, &st)
                                                             : tell_owner(owned, path, &st);
    if (!shared && (!refused || (st.st_mode & mode) == mode))
        return 0;
    if (refused)
        strcpy(command, mode & SEARCHED ? "u+rwx" : "u+rw");
    else
        snprintf(command, sizeof(command), "%04o", (unsigned)mode);
    return tell_mode(owned, path, &st, refused, command);
}

/* ---- the state ---- */

static int check_named(const struct owned *owned, const char *name, mode_t mode)
{
    char path[PLACES_PATH_MAX];

    places_in_state(owned->top, name, path);
    return check_part(owned, path, mode, NOTHING_MORE);
}

/* Opened as by the processes that hold it, which make it where it is missing.  (-T: the owner may put a link to a
 * directory in the place that the file is moved to.) */
static int check_lock(const struct owned *owned, const char *name)
{
    char path[PLACES_PATH_MAX], what[ESCAPE_WORD_ROOM(PLACES_PATH_MAX)];
    int result = check_named(owned, name, FILE_MODE);

    if (result < 0)
        return result;
    places_in_state(owned->top, name, path);
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), refused = fd < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    escape_word(what, sizeof(what), path);
    return refused == EISDIR || refused == ELOOP || refused == ENXIO
               ? error_set(owned->error, -EPERM, "%s is a lock, and has to be a file: as root, run `mv -T %s %s.away`",
                           path, what, what)
               : 0;
}

static int check_journal(const struct owned *owned)
{
    char path[PLACES_PATH_MAX], name[PLACES_NAME_MAX + sizeof(PLACES_JOURNAL)];
    uint32_t number;
    int result = 0;

    places_in_state(owned->top, PLACES_JOURNAL, path);
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory && result == 0 && (entry = readdir(directory));) {
        if (places_parse_journal_file(entry->d_name, &number) < 0)
            continue;
        snprintf(name, sizeof(name), PLACES_JOURNAL "/%.*s", PLACES_NAME_MAX - 1, entry->d_name);
        result = check_named(owned, name, FILE_MODE);
    }
    if (directory)
        closedir(directory);
    return result;
}

/* Where the state directory is missing nobody can make it in such a directory. */
static int check_above(const struct owned *owned)
{
    char above[PLACES_PATH_MAX];

    if (access(owned->top, F_OK) == 0 || errno != ENOENT)
        return 0;
    snprintf(above, sizeof(above), "%s", owned->top);
    char *slash = strrchr(above, '/');
    slash[slash == above] = '\0';
    return check_attributes(owned, above, 0);
}

static int check_state(const struct owned *owned)
{
    static const struct {
        const char *name;
        mode_t mode;
    } parts[] = {
        {PLACES_RUNTIME, FILE_MODE},
        {PLACES_JOURNAL, DIRECTORY_MODE},
        {PLACES_DATABASE, DIRECTORY_MODE},
        {PLACES_DATABASE "/data.mdb", FILE_MODE},
        {PLACES_DATABASE "/lock.mdb", FILE_MODE},
        {PLACES_SPILL, DIRECTORY_MODE},
    };

    int result = check_above(owned);
    if (result == 0)
        result = check_part(owned, owned->top, DIRECTORY_MODE, NOT_WRITE);
    if (result == 0)
        result = check_lock(owned, PLACES_LOCK);
    if (result == 0)
        result = check_lock(owned, PLACES_MIRROR_LOCK);
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts) && result == 0; i++)
        result = check_named(owned, parts[i].name, parts[i].mode);
    return result == 0 ? check_journal(owned) : result;
}

/* ---- the memory ---- */

/* Is @memory one that is made in @base? */
static bool is_in(const char *base, const char *memory)
{
    char made[PLACES_PATH_MAX];
    size_t length = strlen(base);
    unsigned long long id;

    return length && strncmp(memory, base, length) == 0 && sscanf(memory + length, "/fastspool.%llx", &id) == 1 &&
           places_runtime(base, id, made, sizeof(made)) == 0 && strcmp(made, memory) == 0;
}

static bool is_made_there(const char *spool, const char *runtime, const char *memory)
{
    char directory[PLACES_NAME_MAX], size[PLACES_NAME_MAX], own[PLACES_PATH_MAX];

    places_of_spool(spool, directory, size);
    snprintf(own, sizeof(own), PLACES_TMPFS "/%s", directory);
    return is_in(runtime, memory) || is_in(own, memory) || is_in(PLACES_MEMORY, memory);
}

/* The one that the state names, and that is of this state and this spool. */
static bool find_memory(const struct owned *owned, const char *runtime, struct record *record)
{
    int fd = open(owned->top, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool found = fd >= 0 && record_read(fd, record) == 0 &&
                 (!record->identity[0] || presence_is_still(record->identity, fd)) &&
                 record_is_of(record, owned->st, owned->spool) && is_made_there(owned->spool, runtime, record->runtime);

    if (fd >= 0)
        close(fd);
    return found;
}

static int check_memory(const struct owned *owned)
{
    char path[PLACES_PATH_MAX], name[PLACES_NAME_MAX];

    int result = check_part(owned, owned->top, DIRECTORY_MODE, NOT_USE);
    places_in_state(owned->top, PLACES_SEGMENT, path);
    if (result == 0)
        result = check_part(owned, path, FILE_MODE, NOT_USE);
    if (result == 0)
        result = check_named(owned, PLACES_LOCKS, FILE_MODE);
    for (unsigned i = 0; i < PLACEHOLDERS && result == 0; i++) {
        places_placeholder(i, name);
        result = check_named(owned, name, DIRECTORY_MODE);
    }
    return result;
}

int owned_check_spool(const char *spool, const struct stat *st, char error[FASTSPOOL_ERROR_MAX])
{
    const struct owned owned = {spool, st, spool, error};

    if (!is_refused(spool, DIRECTORY_MODE))
        return 0;
    int result = check_way(&owned, spool);
    return result < 0 || (st->st_mode & DIRECTORY_MODE) == DIRECTORY_MODE ? result
                                                                          : tell_mode(&owned, spool, st, true, "u+rwx");
}

int owned_check(const char *spool, const struct stat *st, const char *state, const char *runtime,
                char error[FASTSPOOL_ERROR_MAX])
{
    struct owned owned = {spool, st, state, error};
    struct record record;
    int result = owned_check_spool(spool, st, error);

    if (result == 0)
        result = check_state(&owned);

    if (result < 0 || !runtime || !find_memory(&owned, runtime, &record))
        return result;
    owned.top = record.runtime;
    return check_memory(&owned);
}

int owned_check_view(const char *spool, const struct stat *st, const char *state, char error[FASTSPOOL_ERROR_MAX])
{
    const struct owned owned = {spool, st, state, error};
    int result = check_lock(&owned, PLACES_VIEW_LOCK);

    return result < 0 ? result : check_lock(&owned, PLACES_SERVER_LOCK);
}

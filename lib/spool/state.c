/* SPDX-License-Identifier: MIT
 *
 * The spool, its state directory, and which users they let in.
 *
 * The state directory is SPOOL/.fastspool, or what `state` names: 0700, the owner's (base/places.h).  Root, the owner,
 * and each `trusted_user` may use it.
 *
 * Failure modes, each a sentence in @error:
 *   - The spool's real path can't be found, or is too long.
 *   - The user is none of those, or was another one when the program began.
 *   - Another user could write to the state directory: it is refused.  The spool was given to another user, and the
 *     state directory was not: it can't be opened.
 *   - A trusted user has no rights there yet: root or the owner has to use the store first.
 *   - The state directory is not there, and the view of another state lives: `state` is mistyped.  None is made: its
 *     mail would be in no view, and the mail of the view not in it.
 *   - The state directory is not there, and another one is that may hold mail: the same, as nobody would find that.
 *
 * Which state may hold mail a link in the spool says, SPOOL/.fastspool.state, and of further ones one with a number.
 * The mirror makes it before its first commit of a file, and takes it away when it ends without any.  The spool's owner
 * could turn it: so it is followed with his rights, and leads to sentences alone.
 */
#include "spool/state.h"

#include "base/error.h"
#include "base/escape.h"
#include "base/fd.h"
#include "base/places.h"
#include "spool/launch.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int state_open_spool(struct fastspool *fs, const char *spool, struct stat *st, char *error)
{
    int fd = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    fs->spool_fd = fd_high(fd);
    if (fs->spool_fd < 0 || fstat(fs->spool_fd, st) < 0)
        return error_set(error, -errno, "cannot open the spool %s: %s", spool, strerrordesc_np(errno));
    int result = fd_path(fs->spool_fd, spool, fs->spool, sizeof(fs->spool));
    if (result == -ENAMETOOLONG)
        return error_set(error, result, "the real path of the spool %s is longer than %d bytes", spool,
                         FASTSPOOL_PATH_MAX - 2);
    return result == 0 ? 0
                       : error_set(error, result, "cannot find the real path of the spool %s: %s", spool,
                                   strerrordesc_np(-result));
}

static bool is_owners(const struct stat *spool)
{
    return geteuid() == 0 || geteuid() == spool->st_uid;
}

static bool is_trusted(const struct fastspool_config *config, const struct stat *spool, uid_t uid)
{
    bool trusted = uid == 0 || uid == spool->st_uid;

    for (size_t i = 0; i < config->trusted_users && !trusted; i++)
        trusted = config->trusted_user[i] == uid;
    return trusted;
}

int state_check_user(const struct fastspool_config *config, struct fastspool *fs, const struct stat *spool, char *error)
{
    uid_t starter = 0, user = 0, saved = 0;
    char owner[ERROR_USER];

    syscall(SYS_getresuid, &starter, &user, &saved);
    uid_t uid = is_trusted(config, spool, user) ? starter : user;
    if (is_trusted(config, spool, uid))
        uid = saved; /* this one may stop the process, and so may the starter */
    fs->starts_view = user == 0 && (starter == 0 || starter == spool->st_uid);
    if (is_trusted(config, spool, uid))
        return user == 0 || user == spool->st_uid;
    return error_set(error, -EACCES,
                     "the spool %s belongs to %s, and user %u is not a `trusted_user`; if that is Exim's user, "
                     "`fastspool doctor`, as root, says what to do",
                     fs->spool, error_user(spool->st_uid, owner), (unsigned)uid);
}

/* ---- the one that may hold mail ---- */

static bool is_used(const char *state)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/" PLACES_DATABASE "/data.mdb", state);

    return length < (int)sizeof(path) && faccessat(AT_FDCWD, path, F_OK, AT_EACCESS) == 0;
}

bool state_noted(const char *spool, unsigned number, char state[FASTSPOOL_PATH_MAX])
{
    char link[PLACES_PATH_MAX], found[FASTSPOOL_PATH_MAX];

    places_note(spool, number, link);
    ssize_t size = readlink(link, found, sizeof(found));
    if (size <= 0 || size >= (ssize_t)sizeof(found))
        return false;
    found[size] = '\0';
    bool usual = strcmp(found, PLACES_STATE) == 0; /* below the spool, wherever that is */
    int length = snprintf(state, FASTSPOOL_PATH_MAX, "%s%s%s", usual ? spool : "", usual ? "/" : "", found);
    return length < FASTSPOOL_PATH_MAX && *state == '/' && is_used(state);
}

static bool is_one(const char *path, const char *other)
{
    struct stat st, of;

    return stat(path, &st) == 0 && stat(other, &of) == 0 && st.st_dev == of.st_dev && st.st_ino == of.st_ino;
}

/* The number of the link to the state of @fs; PLACES_NOTES: there is none.  *@unused: of the first one that leads
 * nowhere, or is not there. */
static unsigned find_note(const struct fastspool *fs, unsigned *unused)
{
    char noted[FASTSPOOL_PATH_MAX];

    *unused = PLACES_NOTES;
    for (unsigned number = 0; number < PLACES_NOTES; number++) {
        bool is = state_noted(fs->spool, number, noted);
        if (is && is_one(noted, fs->state))
            return number;
        if (!is && *unused == PLACES_NOTES)
            *unused = number;
    }
    return PLACES_NOTES;
}

int state_remember(const struct fastspool *fs, bool holds)
{
    char link[PLACES_PATH_MAX], usual[PLACES_PATH_MAX];
    unsigned unused, own = find_note(fs, &unused);

    if (holds ? own < PLACES_NOTES : own == PLACES_NOTES)
        return 0;
    if (holds && unused == PLACES_NOTES)
        return -EMLINK;
    places_note(fs->spool, holds ? unused : own, link);
    places_in_state(fs->spool, PLACES_STATE, usual);
    if (unlink(link) < 0 && errno != ENOENT)
        return -errno;
    return !holds || symlink(is_one(usual, fs->state) ? PLACES_STATE : fs->state, link) == 0 ? 0 : -errno;
}

int state_check_new(const char *spool, const char *state, char *error)
{
    char noted[FASTSPOOL_PATH_MAX], shown[ESCAPE_ROOM(FASTSPOOL_PATH_MAX)];
    int viewed = launch_place_viewed(spool);

    if (viewed < 0 && viewed != -EACCES) /* whoever can't look makes none either */
        return error_set(error, viewed, "cannot look for a view of %s: %s", spool, strerrordesc_np(-viewed));
    if (viewed > 0)
        return error_set(error, -EBUSY,
                         "the state directory %s is not there, and the view of another state of %s is mounted; is "
                         "`state` mistyped?  To begin with a new one, end the other before: `fastspool stop`",
                         state, spool);
    unsigned number = 0;
    while (number < PLACES_NOTES && !state_noted(spool, number, noted))
        number++;
    if (number == PLACES_NOTES)
        return 0;
    return error_set(error, -EBUSY,
                     "the state directory %s is not there, and another one that may hold mail is, %s; is `state` "
                     "mistyped?  Else move that one there, or away (`man fastspool.conf`)",
                     state, escape_bytes(shown, sizeof(shown), noted, strlen(noted)));
}

/* ---- the one that is named ---- */

int state_open(struct fastspool *fs, const struct fastspool_config *config, const struct stat *spool, bool create,
               char *error)
{
    struct stat st;

    if (snprintf(fs->state, sizeof(fs->state), config->state[0] ? "%s" : "%s/" PLACES_STATE,
                 config->state[0] ? config->state : fs->spool) >= (int)sizeof(fs->state))
        return error_set(error, -ENAMETOOLONG, "the path of the state directory of %s is too long; configure `state`",
                         fs->spool);
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(fs->state, flags);
    if (fd < 0 && errno == ENOENT && create) {
        int result = state_check_new(fs->spool, fs->state, error);
        if (result < 0)
            return result;
        if (mkdir(fs->state, 0700) < 0 && errno != EEXIST)
            return error_set(error, -errno, "cannot create the state directory %s: %s", fs->state,
                             strerrordesc_np(errno));
        fd = open(fs->state, flags);
    }
    if (fd < 0 && errno == EACCES && !is_owners(spool))
        return error_set(error, -EACCES,
                         "cannot open the state directory %s: a trusted user has rights there from the next use of the "
                         "store by root "
                         "or the owner on, if its file system has access control lists",
                         fs->state);
    if (fd < 0)
        return error_set(error, -errno, "cannot open the state directory %s: %s", fs->state, strerrordesc_np(errno));
    if (fstat(fd, &st) < 0 || (st.st_uid != spool->st_uid && st.st_uid != 0) || (st.st_mode & 022)) {
        close(fd);
        return error_set(error, -EPERM,
                         "the state directory %s must be the spool owner's or root's, and writable by that user alone",
                         fs->state);
    }
    fs->may_have_lists = st.st_mode & 070;
    return fd;
}

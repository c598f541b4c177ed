/* SPDX-License-Identifier: MIT
 *
 * The place where the memory of the next store is made: what `runtime` names, or one of fastspool's own.
 *
 * Happy path: it is a directory on a tmpfs, in which the spool's owner may make another one.
 *
 * Failure modes: a store that is there goes on, whatever becomes of its place.  None can be made after it.
 */
#include "memory.h"

#include "base/error.h"
#include "base/rights.h"
#include "config.h"
#include "mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The errno with which the owner can make nothing there; 0: he can. */
static int try(const char *place, uid_t owner, gid_t group)
{
    struct rights rights = rights_of_owner(owner, group);
    int error = faccessat(AT_FDCWD, place, W_OK | X_OK, AT_EACCESS) < 0 ? errno : 0;

    rights_back(rights);
    return error;
}

/* On a tmpfs.  (-h: the owner may put a link in its place, where he can write to the directory above.) */
static bool is_closed(const char *place, const struct stat *st, uid_t owner, gid_t group, char found[MEMORY_FOUND],
                      char mend[MEMORY_MEND])
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], user[ERROR_USER], other[ERROR_USER];
    int error = try(place, owner, group);

    escape_word(word, sizeof(word), place);
    if (error == EROFS) {
        snprintf(found, MEMORY_FOUND, "%s, the place of the store, is mounted to be read only", place);
        snprintf(mend, MEMORY_MEND, "`mount -o remount,rw` it; a service that sees it so needs ReadWritePaths=%s",
                 word);
    } else if (error) {
        snprintf(found, MEMORY_FOUND,
                 "%s, the place of the store, is %s's, of mode %04o: %s, the spool's owner, can make nothing there",
                 place, error_user(st->st_uid, other), st->st_mode & 07777, error_user(owner, user));
        snprintf(mend, MEMORY_MEND, "`chown -h %u:%u %s && chmod u+rwx %s`", (unsigned)owner, (unsigned)group, word,
                 word);
    }
    return error;
}

bool memory_refuses(const char *place, uid_t owner, gid_t group, char found[MEMORY_FOUND], char mend[MEMORY_MEND])
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];
    struct mountpoint mount;
    struct stat st;

    escape_word(word, sizeof(word), place);
    snprintf(mend, MEMORY_MEND,
             "`mkdir -p %s && mount -t tmpfs -o uid=%u,gid=%u,mode=0700 tmpfs %s`, or take `runtime` out "
             "of " FASTSPOOL_CONFIG,
             word, (unsigned)owner, (unsigned)group, word);
    if (stat(place, &st) < 0 || !mountpoint_of(place, &mount)) {
        snprintf(found, MEMORY_FOUND, "%s, the place of the store: %s", place, strerrordesc_np(errno));
    } else if (!S_ISDIR(st.st_mode)) {
        snprintf(found, MEMORY_FOUND, "%s, the place of the store, is no directory", place);
        strcpy(mend, "take `runtime` out of " FASTSPOOL_CONFIG);
    } else if (strcmp(mount.type, "tmpfs") != 0) {
        snprintf(found, MEMORY_FOUND, "%s, the place of the store, is %s", place, mount.type);
    } else {
        return is_closed(place, &st, owner, group, found, mend);
    }
    return true;
}

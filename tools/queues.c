/* SPDX-License-Identifier: MIT
 *
 * The queue's directories in the store: may Exim use them?
 *
 * A chown or chmod of SPOOL/input reaches the store, by the view, as it reaches a disk.  The store is well then, and
 * Exim, which has given up root's rights, is refused: it answers 421, or delivers nothing.
 *
 * The happy path: input, msglog and their directories of one letter are the spool owner's to use, or are not there yet.
 *
 * Failure modes: a spool of root's does not say whose they have to be.  Those of a named queue are not
 * looked at.  What is looked at needs no lock, and no wait.
 */
#include "queues.h"

#include "base/error.h"
#include "base/escape.h"
#include "fastspool.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The rights of its owner, its group, or of all others. */
static bool may_use(const struct fastspool *fs, const struct stat *st)
{
    mode_t rights = st->st_uid == fs->owner   ? st->st_mode >> 6
                    : st->st_gid == fs->group ? st->st_mode >> 3
                                              : st->st_mode;

    return (rights & 07) == 07;
}

static void tell(const struct fastspool *fs, bool viewed, const char *path, const struct stat *st,
                 char line[QUEUES_LINE])
{
    char user[ERROR_USER], owner[ERROR_USER], like[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], what[sizeof(like)];
    const char *by = viewed ? "" : "fastspool run -- ";

    escape_word(like, sizeof(like), fs->spool);
    escape_word(what, sizeof(what), path);
    if (st->st_uid == fs->owner)
        snprintf(line, QUEUES_LINE,
                 "%s has mode %04o, with which Exim's user can't use it, and mail stands: as root say `%schmod u+rwx "
                 "%s`",
                 path, st->st_mode & 07777, by, what);
    else
        snprintf(line, QUEUES_LINE,
                 "%s is %s's, and has to be %s's, as the spool is, and mail stands: as root say `%schown -R "
                 "--reference=%s %s`",
                 path, error_user(st->st_uid, user), error_user(fs->owner, owner), by, like, what);
}

bool queues_refuse(struct fastspool *fs, bool viewed, char line[QUEUES_LINE])
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static const char *const tops[] = {"input", "msglog"};
    char path[FASTSPOOL_PATH_MAX];
    struct stat st;

    for (size_t top = 0; top < sizeof(tops) / sizeof(*tops); top++) {
        for (size_t i = 0; i < sizeof(letters); i++) { /* the first time: itself */
            const char below[] = {i ? '/' : '\0', letters[i ? i - 1 : 0], '\0'};
            int length = snprintf(path, sizeof(path), "%s/%s%s", fs->spool, tops[top], below);
            if (length >= (int)sizeof(path) || fastspool_stat(fs, path + strlen(fs->spool) + 1, &st) < 0 ||
                may_use(fs, &st) || fs->owner == 0)
                continue;
            tell(fs, viewed, path, &st, line);
            return true;
        }
    }
    return false;
}

/* SPDX-License-Identifier: MIT
 *
 * The queue's directories: may Exim use them?
 *
 * A chown or chmod of SPOOL/input reaches the store, by the view, as it reaches a disk.  The store is well then, and
 * Exim, which has given up root's rights, is refused: it answers 421, or delivers nothing.  A store that has not got
 * the directory yet takes it over from the disk, with owner and mode; where the disk has a file in its place, none can
 * be made.
 *
 * The happy path: the spool on the disk is its owner's to use; input, msglog, their directories of one letter, and
 * those of each named queue are, too, or are not there yet.  Of several that are not, the uppermost is told.
 *
 * Failure modes:
 *   - A spool of root's does not say whose they have to be.
 *   - A named queue on the disk is known by its input or msglog: of an empty directory nothing is said.
 *   - The mail user has made any number of named queues on the disk: MOST are looked at, and of the rest it is said
 *     that they were not.
 *   - A name on the disk is a symbolic link of the mail user's, or leads through one: nothing is said of what is
 *     there.  The store takes none over, and the command would be about what the link leads to.
 *   - What is looked at in the store needs no lock, and no wait.  The disk is not looked at through a view, which may
 *     not answer.
 *   - The store is on the disk alone, as after `fastspool stop`: the database is walked through.  What the journal may
 *     have changed since, or can't be read, is told of when it is in memory again.
 */
#include "queues.h"

#include "base/atomic.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/mountinfo.h"
#include "base/rights.h"
#include "fastspool.h"
#include "mirror/tally.h"
#include "plain/disk.h"
#include "spool/exim.h"
#include "spool/owned.h"
#include "store/layout.h"
#include "store/status.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define USED     07u /* of a directory with messages: read, written and searched */
#define SEARCHED 01u
#define FILLED   03u
#define MOST     10000u /* named queues of the disk that are looked at: some 0.2 s of a processor */

static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
static const char *const tops[] = {"input", "msglog"};
#define TOPS (sizeof(tops) / sizeof(*tops))

struct look {
    struct fastspool *fs; /* NULL: none */
    const char *spool;
    int disk; /* the open spool; -1: it can't be looked at */
    uid_t owner;
    gid_t group;
    bool viewed;                   /* a view shows those of the store to what the operator types */
    char path[FASTSPOOL_PATH_MAX]; /* what can't be used, "": nothing */
    struct stat st;                /* of it */
    bool on_disk;                  /* it is the disk's */
    uint64_t named;                /* named queues of the disk */
};

/* ---- names ---- */

/* What is behind "input" or "msglog" in @path, NULL: that has another name. */
static const char *behind_top(const char *path)
{
    for (size_t i = 0; i < TOPS; i++) {
        size_t length = strlen(tops[i]);
        if (strncmp(path, tops[i], length) == 0 && (path[length] == '/' || path[length] == '\0'))
            return path + length;
    }
    return NULL;
}

/* Is @name, which ends at a slash or a NUL, that of a named queue? */
static bool is_queue(const char *name)
{
    size_t length = strcspn(name, "/");

    return name[0] != '.' && length > 0 && !exim_is_directory(name, length);
}

/* Is it Exim's: QUEUE, [QUEUE/]input, or [QUEUE/]input/LETTER? */
static bool is_exims(const char *path)
{
    const char *rest = behind_top(path);

    if (!rest && is_queue(path)) {
        rest = strchrnul(path, '/');
        rest = *rest ? behind_top(rest + 1) : rest;
    }
    return rest && (!*rest || (rest[1] && strchr(letters, rest[1]) && !rest[2]));
}

/* ---- one directory ---- */

static bool path_of(const struct look *q, const char *below, char path[FASTSPOOL_PATH_MAX])
{
    return snprintf(path, FASTSPOOL_PATH_MAX, "%s/%s", q->spool, below) < FASTSPOOL_PATH_MAX;
}

/* In the store. */
static bool may(const struct look *q, const struct stat *st, mode_t wanted)
{
    mode_t rights = st->st_uid == q->owner ? st->st_mode >> 6 : st->st_gid == q->group ? st->st_mode >> 3 : st->st_mode;

    return S_ISDIR(st->st_mode) && (rights & wanted) == wanted;
}

/* The kernel is asked, with the owner's rights: it knows access control lists, and the way there. */
static bool may_on_disk(const struct look *q, const char *path, const struct stat *st, mode_t wanted)
{
    struct rights rights = rights_of_owner(q->owner, q->group);
    bool refused = faccessat(AT_FDCWD, path, (int)wanted, AT_EACCESS) < 0 && errno == EACCES;

    rights_back(rights);
    return S_ISDIR(st->st_mode) && !refused;
}

static bool is_there(const struct look *q, const char *below, bool on_disk, struct stat *st)
{
    if (!on_disk)
        return fastspool_stat(q->fs, below, st) == 0;
    int fd = disk_open(q->disk, below, O_PATH | O_NOFOLLOW, st);
    if (fd < 0)
        return false;
    close(fd);
    return !S_ISLNK(st->st_mode);
}

/* Of a named queue's own directory Exim needs no more than the way, but to make another one in it. */
static mode_t needs(const struct look *q, const char *below, bool on_disk)
{
    char path[FASTSPOOL_PATH_MAX];
    struct stat st;
    bool all = true;

    if (behind_top(below) || strchr(below, '/'))
        return USED;
    for (size_t i = 0; i < TOPS && all; i++)
        all = snprintf(path, sizeof(path), "%s/%s", below, tops[i]) < (int)sizeof(path) &&
              is_there(q, path, on_disk, &st);
    return all ? SEARCHED : FILLED;
}

/* The one with the shortest path counts.  @told: "": none yet. */
static bool comes_before(const char *path, const char *told)
{
    size_t length = strlen(path), before = strlen(told);

    return !before || length < before || (length == before && strcmp(path, told) < 0);
}

static void look_at(struct look *q, const char *below, bool on_disk)
{
    char path[FASTSPOOL_PATH_MAX];
    struct stat st;

    if (!path_of(q, below, path) || !is_there(q, below, on_disk, &st))
        return;
    mode_t mode = needs(q, below, on_disk);
    if ((on_disk ? may_on_disk(q, path, &st, mode) : may(q, &st, mode)) || !comes_before(path, q->path))
        return;
    strcpy(q->path, path);
    q->st = st;
    q->on_disk = on_disk;
}

/* ---- all of them ---- */

static void look_in_store(void *context, const char *path, uint32_t inode)
{
    struct look *q = context;

    if (inode_valid(q->fs, inode) && is_exims(path))
        look_at(q, path, false);
}

/* What the store has not got. */
static void look_on_disk(struct look *q, const char *below)
{
    struct stat st;

    if (!q->fs || !is_there(q, below, false, &st))
        look_at(q, below, true);
}

/* Of Exim's own queue, whose directories may have any number of messages: each letter is tried. */
static void look_at_main(struct look *q)
{
    char below[FASTSPOOL_PATH_MAX];

    for (size_t top = 0; top < TOPS; top++) {
        look_on_disk(q, tops[top]);
        for (size_t i = 0; i < sizeof(letters) - 1; i++) {
            snprintf(below, sizeof(below), "%s/%c", tops[top], letters[i]);
            look_on_disk(q, below);
        }
    }
}

/* What is in directory @top of a named queue: there may be very many of them, with next to nothing in each. */
static void look_in(struct look *q, const char *top)
{
    char below[FASTSPOOL_PATH_MAX];
    struct stat st;
    int fd = disk_open(q->disk, top, O_RDONLY | O_DIRECTORY, &st);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (fd >= 0 && !directory)
        close(fd);
    for (const struct dirent *entry; directory && (entry = readdir(directory));) {
        if (!entry->d_name[1] && strchr(letters, entry->d_name[0]) &&
            snprintf(below, sizeof(below), "%s/%s", top, entry->d_name) < (int)sizeof(below))
            look_on_disk(q, below);
    }
    if (directory)
        closedir(directory);
}

static void look_at_named(struct look *q, const char *queue)
{
    char below[FASTSPOOL_PATH_MAX];

    look_on_disk(q, queue);
    for (size_t top = 0; top < TOPS; top++) {
        if (snprintf(below, sizeof(below), "%s/%s", queue, tops[top]) >= (int)sizeof(below))
            continue;
        look_on_disk(q, below);
        look_in(q, below);
    }
}

/* On the disk, is @name a named queue, with a name that a path has room for? */
static bool has_queue(const struct look *q, const char *name)
{
    char path[FASTSPOOL_PATH_MAX];
    struct stat st;
    bool has = false;

    for (size_t i = 0; i < TOPS && !has && is_queue(name); i++)
        has = snprintf(path, sizeof(path), "%s/%s", name, tops[i]) < (int)sizeof(path) && is_there(q, path, true, &st);
    return has;
}

static void look_at_disk(struct look *q)
{
    DIR *directory = opendir(q->spool);

    q->disk = directory ? dirfd(directory) : -1;
    look_at_main(q);
    for (const struct dirent *entry; directory && (entry = readdir(directory));) {
        if (has_queue(q, entry->d_name) && q->named++ < MOST)
            look_at_named(q, entry->d_name);
    }
    if (directory)
        closedir(directory);
}

/* Of the database.  That a named queue has both of its own tells how many it has. */
static bool is_closed(const void *context, const char *below, const struct stat *st, const char *told)
{
    mode_t mode = behind_top(below) || strchr(below, '/') ? USED : st->st_nlink < 2 + TOPS ? FILLED : SEARCHED;

    return is_exims(below) && !may(context, st, mode) && comes_before(below, told);
}

/* ---- what is told ---- */

/* What is given back to the owner: all below one name in the spool.  A command that named more would follow the link
 * that the mail user can put behind that name meanwhile. */
static void say_given(const struct look *q, char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)])
{
    char given[FASTSPOOL_PATH_MAX];
    size_t spool = strlen(q->spool) + 1;

    snprintf(given, sizeof(given), "%.*s", (int)(spool + strcspn(q->path + spool, "/")), q->path);
    escape_word(word, ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX), given);
}

static void tell(const struct look *q, char line[QUEUES_LINE])
{
    char user[ERROR_USER], owner[ERROR_USER], like[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], what[sizeof(like)];
    const char *path = q->path;
    const char *by = q->viewed || q->on_disk ? "" : "fastspool run -- ";

    escape_word(like, sizeof(like), q->spool);
    escape_word(what, sizeof(what), path);
    if (!S_ISDIR(q->st.st_mode)) {
        snprintf(line, QUEUES_LINE,
                 "%s is no directory, so Exim can't make its own there, and mail stands: as root move that file away",
                 path);
    } else if (q->st.st_uid == q->owner) {
        snprintf(line, QUEUES_LINE,
                 "%s has mode %04o, with which Exim's user can't use it, and mail stands: as root, run `%schmod u+rwx "
                 "%s`",
                 path, q->st.st_mode & 07777, by, what);
    } else {
        say_given(q, what);
        snprintf(line, QUEUES_LINE,
                 "%s is %s's, and has to be %s's, as the spool is, and mail stands: as root, run `%schown -R "
                 "--reference=%s %s`",
                 path, error_user(q->st.st_uid, user), error_user(q->owner, owner), by, like, what);
    }
}

static enum queues refuse(struct look *q, char line[QUEUES_LINE])
{
    if (q->owner == 0)
        return QUEUES_OPEN;
    if (q->fs)
        status_each(q->fs, look_in_store, q);
    if (!mountinfo_has_view(q->spool) && (geteuid() == 0 || geteuid() == q->owner))
        look_at_disk(q);
    if (q->path[0]) {
        tell(q, line);
        return QUEUES_REFUSED;
    }
    if (q->named > MOST)
        snprintf(line, QUEUES_LINE,
                 "of %" PRIu64 " named queues on the disk, in %s, %" PRIu64
                 " were not looked at, and may be closed to Exim: remove those that nobody uses",
                 q->named, q->spool, q->named - MOST);
    return q->named > MOST ? QUEUES_UNSEEN : QUEUES_OPEN;
}

/* On the disk, and the way there. */
static bool is_spool_closed(const struct fastspool *fs, char line[QUEUES_LINE])
{
    char error[FASTSPOOL_ERROR_MAX];
    struct stat st;

    if (fstat(fs->spool_fd, &st) < 0 || geteuid() != 0)
        return false;
    struct rights rights = rights_of_owner(st.st_uid, st.st_gid);
    bool closed = owned_check_spool(fs->spool, &st, error) < 0;
    rights_back(rights);
    if (closed)
        snprintf(line, QUEUES_LINE, "%s; until that is mended mail stands", error);
    return closed;
}

enum queues queues_look(struct fastspool *fs, bool viewed, char line[QUEUES_LINE])
{
    struct look q = {.fs = fs, .spool = fs->spool, .owner = fs->owner, .group = fs->group, .viewed = viewed};

    return is_spool_closed(fs, line) ? QUEUES_REFUSED : refuse(&q, line);
}

enum queues queues_look_on_disk(const char *spool, uid_t owner, gid_t group, char line[QUEUES_LINE])
{
    struct look q = {.spool = spool, .owner = owner, .group = group};

    return refuse(&q, line);
}

enum queues queues_look_in_state(const char *state, const char *spool, uid_t owner, gid_t group, char line[QUEUES_LINE])
{
    struct look q = {.spool = spool, .owner = owner, .group = group};
    struct tally_directory found;

    if (owner == 0 || tally_directory(state, owner, group, is_closed, &q, &found) < 0 || !is_exims(found.path) ||
        !path_of(&q, found.path, q.path))
        return QUEUES_OPEN;
    q.st = found.st;
    tell(&q, line);
    return QUEUES_REFUSED;
}

/* SPDX-License-Identifier: MIT
 *
 * The state directories of a spool: the one that the configuration names, and others, also of Exim's own spool.
 *
 * `state` is one line.  Where it is mistyped, changed or lost, Exim finds an empty queue, or none, and the mail is in
 * the other directory.  The same is true of `spool`: where it is not Exim's, the mail is in a state that nothing names.
 *
 * Happy path: the state that is named can be used, or made, and there is no other one.
 *
 * Failure modes:
 *   - Of several that are neither SPOOL/.fastspool nor served by a mirror, one is found, which a link in the spool
 *     names (state_remember()).
 *   - `state` may be that of the spool that is named wrongly, or of Exim's: without a mirror, and the link, it is
 *     Exim's only where no spool that is named exists.
 *   - Any user can run a mirror: only one of root's or the spool owner's counts, and the kernel says whose it is.
 *   - The mail user shows another state of his own: then the operator looks there.  Its path gets to root's terminal,
 *     and into a command that root is asked to run: so one with unusual characters is none.
 */
#include "states.h"

#include "asked.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "base/rights.h"
#include "beside.h"
#include "config.h"
#include "mirror/tally.h"
#include "mirrors.h"
#include "mountpoint.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "spool/locker.h"
#include "spool/owned.h"
#include "spool/record.h"
#include "spool/runtime.h"
#include "spool/state.h"
#include "spool/viewed.h"
#include "store/inside.h"
#include "store/layout.h"
#include "store/store.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* What the smallest store takes of a file system when it is made: a chunk; its directory, segment, locks, placeholders.
 */
#define MEMORY_ROOM  CHUNK_SIZE
#define MEMORY_FILES (PLACEHOLDERS + 3)

/* ---- the one that is named ---- */

/* With the owner's rights. */
static int try_above(const char *state, char *error)
{
    char above[FASTSPOOL_PATH_MAX];

    snprintf(above, sizeof(above), "%s", state);
    char *slash = strrchr(above, '/');
    slash[slash == above] = '\0';
    return faccessat(AT_FDCWD, above, W_OK | X_OK, AT_EACCESS) == 0
               ? 0
               : error_set(error, -errno, "the state directory %s can't be created: %s: %s", state, above,
                           strerrordesc_np(errno));
}

/* The same. */
static int try_new(const struct fastspool *fs, const struct stat *spool, char *error)
{
    int result = try_above(fs->state, error);
    if (result == -EPERM)
        owned_check(fs->spool, spool, fs->state, NULL, error);
    return result < 0 ? result : state_check_new(fs->spool, fs->state, error);
}

/* The same. */
static int try_inside(const struct fastspool *fs, int fd, const struct stat *spool, const char *runtime, char *error)
{
    struct mountpoint mount;

    if (faccessat(fd, ".", W_OK, AT_EACCESS) == 0 || errno != EROFS)
        return owned_check(fs->spool, spool, fs->state, runtime, error);
    if (mountpoint_of(fs->state, &mount) && mount.bound)
        return error_set(error, -EROFS, "the state directory %s can't be written: " MOUNTPOINT_BOUND, fs->state,
                         fs->spool);
    return error_set(error, -EROFS,
                     "the state directory %s is on a read-only file system: `dmesg` says why; remount it to be written",
                     fs->state);
}

/* Is there memory of a store in its place, of which the state directory @fd tells? */
static bool has_memory(int fd)
{
    struct record record;

    return fd >= 0 && record_read(fd, &record) == 0 && access(record.runtime, F_OK) == 0;
}

/* Without a store in memory: can one be made?  Root's own file system grows; any user can fill another one. */
static int try_memory(const struct fastspool_config *config, const char *spool, const struct stat *st, char *error)
{
    char own[FASTSPOOL_PATH_MAX], word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];
    struct statvfs size;
    const char *place = config->runtime[0] ? config->runtime : PLACES_MEMORY;

    if ((!config->runtime[0] && (runtime_own(spool, st, own) || rights_may_mount())) || statvfs(place, &size) < 0)
        return 0;
    uint64_t room = (uint64_t)size.f_bavail * size.f_frsize;
    if (room >= MEMORY_ROOM && (size.f_files == 0 || size.f_favail >= MEMORY_FILES))
        return 0;
    return error_set(error, -ENOSPC,
                     "%s, where the store's memory is to be, has room for %.1f MiB and %lu files: `ls -la %s` says who "
                     "has filled it",
                     place, (double)room / (1 << 20), (unsigned long)size.f_favail,
                     escape_word(word, sizeof(word), place));
}

/* Where root registers spools: Exim looks there first. */
static int try_registry(char *error)
{
    struct stat st;

    if (lstat(PLACES_REGISTRY, &st) < 0 || S_ISDIR(st.st_mode))
        return 0;
    return error_set(error, -EPERM,
                     PLACES_REGISTRY " has to be a directory: as root, run `mv " PLACES_REGISTRY " " PLACES_REGISTRY
                                     ".away`");
}

/* A record that is no file says of no memory, and none can be written. */
static int try_record(const struct fastspool *fs, int fd, char *error)
{
    char path[PLACES_PATH_MAX], word[ESCAPE_WORD_ROOM(PLACES_PATH_MAX)];
    struct stat st;

    if (fstatat(fd, PLACES_RUNTIME, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISREG(st.st_mode))
        return 0;
    places_in_state(fs->state, PLACES_RUNTIME, path);
    escape_word(word, sizeof(word), path);
    return error_set(error, -EPERM, "%s has to be a file: as root, run `mv -T %s %s.away`", path, word, word);
}

/* As after `: > data.mdb`.  Whether memory has all that it held is the operator's to see. */
static int try_database(const char *state, char *error)
{
    if (!tally_is_emptied(state))
        return 0;
    return error_set(error, -ENODATA,
                     "the database %s/" PLACES_DATABASE
                     " is empty: mount its disk, or put data.mdb back; where that is lost, and a store "
                     "is in memory, `fastspool flush --anew` writes that to the disk anew; where none is, remove the "
                     "directory, and what the journal has comes back",
                     state);
}

/* Any process of the mail user's can have the lock of the mirror: then none starts. */
static int try_mirror(const char *state, uid_t owner, char *error)
{
    char locker[LOCKER_SENTENCE];

    if ((launch_mirror_lives(state) > 0 && mirrors_find(state, owner)) ||
        !locker_find(state, PLACES_MIRROR_LOCK, "mirror", locker))
        return 0;
    return error_set(error, -EWOULDBLOCK, "no mirror can be started: %s", locker);
}

int states_usable(const struct fastspool_config *config, char error[FASTSPOOL_ERROR_MAX])
{
    struct fastspool fs = {.spool_fd = -1};
    struct stat st;
    int result = state_open_spool(&fs, config->spool[0], &st, error);

    if (result < 0)
        return result;
    struct rights rights = rights_of_owner(st.st_uid, st.st_gid);
    int fd = state_open(&fs, config, &st, false, error);
    if (fd >= 0)
        result = try_inside(&fs, fd, &st, config->runtime, error);
    else if (fd == -ENOENT)
        result = try_new(&fs, &st, error);
    else if (fd == -EACCES || fd == -EPERM)
        result = owned_check(fs.spool, &st, fs.state, config->runtime, error) < 0 ? -EPERM : fd;
    else
        result = fd;
    if (result == 0 && fd >= 0)
        result = try_record(&fs, fd, error);
    if (result == 0 && fd >= 0)
        result = try_database(fs.state, error);
    bool memory = has_memory(fd);
    rights_back(rights);
    if (result == 0)
        result = try_registry(error);
    if (result == 0 && !memory)
        result = try_memory(config, fs.spool, &st, error);
    if (result == 0 && fd >= 0)
        result = try_mirror(fs.state, st.st_uid, error);
    if (fd >= 0)
        close(fd);
    close(fs.spool_fd);
    return result < 0 ? result : 0;
}

_Static_assert(CENSUS_KINDS <= TALLY_KINDS, "a tally has a number for each kind");

int states_census(const char *state, struct census *census)
{
    struct tally tally;
    struct stat st;
    int result = stat(state, &st) < 0
                     ? -errno
                     : tally_disk(state, st.st_uid, st.st_gid, census_kind, census, PLACES_TARGET, &tally);

    if (result == 0 && tally.more)
        result = -EBUSY;
    census->journal = result == 0 || result == -EBUSY ? tally.journal : TALLY_WHOLE;
    strcpy(census->to, result == 0 ? tally.read : "");
    for (unsigned kind = 0; result == 0 && kind < CENSUS_KINDS; kind++)
        census->kinds[kind] = tally.names[kind];
    return result;
}

/* ---- others ---- */

struct search {
    const struct fastspool_config *config;
    char spool[PATH_MAX];       /* its real path */
    struct stat st;             /* of it */
    struct stat named;          /* of the state that the configuration names; st_ino 0: there is none */
    struct states_other *found; /* those with mail first */
    size_t count, most;
};

/* Of a state that is there: in its store, or on the disk. */
static void look_at(const struct search *search, struct states_other *other)
{
    struct fastspool_config config = *search->config;
    char path[PLACES_PATH_MAX], error[FASTSPOOL_ERROR_MAX];
    struct census census = {0}; /* without the disk: what is half moved counts */
    struct fastspool *fs;

    strcpy(config.state, other->state);
    places_in_state(other->state, PLACES_DATABASE "/data.mdb", path);
    if (attach_open(search->spool, &config, &fs, error) == 0) {
        bool known = !inside_failed(fs);
        census_take(&census, fs, viewed(fs->spool) > 0);
        other->messages = known ? (int64_t)census_held(&census) : -1;
        other->used = geteuid() != 0 || beside_is_used(&config, fs);
        fastspool_detach(fs);
    } else if (access(path, F_OK) == 0 || errno != ENOENT) {
        other->messages = states_census(other->state, &census) == 0 ? (int64_t)census_held(&census) : -1;
    }
}

static bool is_found(const struct search *search, const struct stat *state)
{
    struct stat st;
    bool is = false;

    for (size_t i = 0; i < search->count && !is; i++)
        is = stat(search->found[i].state, &st) == 0 && st.st_dev == state->st_dev && st.st_ino == state->st_ino;
    return is;
}

/* Behind those with mail, if it has some, else behind all. */
static void add(struct search *search, const struct states_other *other)
{
    size_t at = 0;

    while (at < search->count && (search->found[at].messages != 0 || other->messages == 0))
        at++;
    if (at == search->most)
        return;
    search->count += search->count < search->most;
    memmove(&search->found[at + 1], &search->found[at], (search->count - 1 - at) * sizeof(*other));
    search->found[at] = *other;
}

static void consider(struct search *search, const char *state, pid_t mirror)
{
    struct stat st;

    bool full = search->count == search->most && search->found[search->most - 1].messages != 0;
    if (full || strlen(state) >= sizeof(search->found->state) || lstat(state, &st) < 0 || !S_ISDIR(st.st_mode) ||
        (st.st_uid != search->st.st_uid && st.st_uid != 0) || (st.st_mode & 022) || is_found(search, &st) ||
        (st.st_dev == search->named.st_dev && st.st_ino == search->named.st_ino))
        return;
    struct states_other other = {.mirror = mirror};
    strcpy(other.state, state);
    snprintf(other.of, sizeof(other.of), "%.*s", (int)sizeof(other.of) - 1, search->spool);
    look_at(search, &other);
    if (other.messages != 0 || mirror)
        add(search, &other);
}

/* Does it say nothing to a terminal, a shell, or the configuration? */
static bool is_plain(const char *path)
{
    static const char usual[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+,:@%";

    return *path == '/' && path[strspn(path, usual)] == '\0';
}

static void consider_process(struct search *search, pid_t pid)
{
    struct mirrors_words words;

    if (mirrors_read(pid, search->st.st_uid, &words) && is_plain(words.state) &&
        strcmp(words.spool, search->spool) == 0)
        consider(search, words.state, pid);
}

static void consider_processes(struct search *search)
{
    DIR *directory = opendir("/proc");

    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        if (pid > 0)
            consider_process(search, pid);
    }
    if (directory)
        closedir(directory);
}

/* Those that the spool itself names.  Its owner may have turned the links, so they are followed with his rights. */
static void consider_noted(struct search *search)
{
    char state[FASTSPOOL_PATH_MAX];

    for (unsigned number = 0; number < PLACES_NOTES; number++) {
        struct rights rights = rights_of_owner(search->st.st_uid, search->st.st_gid);
        bool noted = state_noted(search->spool, number, state);
        rights_back(rights);
        if (noted && is_plain(state))
            consider(search, state, 0);
    }
}

static size_t find_others(const struct fastspool_config *config, struct states_other *others, size_t most)
{
    struct search search = {.config = config, .found = others, .most = most};
    char state[PATH_MAX + sizeof(PLACES_STATE) + 1];

    if (!realpath(config->spool[0], search.spool) || stat(search.spool, &search.st) < 0 ||
        (geteuid() != 0 && geteuid() != search.st.st_uid))
        return 0;
    snprintf(state, sizeof(state), "%s/" PLACES_STATE, search.spool);
    if (stat(config->state[0] ? config->state : state, &search.named) < 0)
        search.named.st_ino = 0;
    consider_processes(&search);
    if (config->state[0])
        consider(&search, state, 0);
    consider_noted(&search);
    return search.count;
}

bool states_find_other(const struct fastspool_config *config, struct states_other *other)
{
    *other = (struct states_other){0};
    return find_others(config, other, 1) > 0;
}

size_t states_find_others(const struct fastspool_config *config, struct states_other others[STATES_MOST])
{
    return find_others(config, others, STATES_MOST);
}

/* *@exists: one of @config's own is there. */
static bool find_unnamed(const struct fastspool_config *config, char spool[PATH_MAX], bool *exists)
{
    struct stat st, named;

    *exists = false;
    if (!asked_spool(config, spool) || stat(spool, &st) < 0)
        return false;
    for (size_t i = 0; i < config->spools; i++) {
        bool is = stat(config->spool[i], &named) == 0;
        if (is && named.st_dev == st.st_dev && named.st_ino == st.st_ino)
            return false;
        *exists = *exists || is;
    }
    return true;
}

bool states_unnamed_spool(const struct fastspool_config *config, char spool[FASTSPOOL_PATH_MAX])
{
    char path[PATH_MAX];
    bool exists, found = find_unnamed(config, path, &exists) && strlen(path) < FASTSPOOL_PATH_MAX;

    strcpy(spool, found ? path : "");
    return found;
}

bool states_find_unnamed(const struct fastspool_config *config, struct states_other *other)
{
    struct search search = {.config = config, .found = other, .most = 1};
    char state[PATH_MAX + sizeof(PLACES_STATE) + 1];
    struct stat st;
    bool exists;

    *other = (struct states_other){0};
    if (!find_unnamed(config, search.spool, &exists) || stat(search.spool, &search.st) < 0 ||
        strlen(search.spool) >= sizeof(other->spool))
        return false;
    snprintf(state, sizeof(state), "%s/" PLACES_STATE, search.spool);
    consider_processes(&search);
    consider(&search, state, 0);
    consider_noted(&search);
    if (config->state[0] && !exists)
        consider(&search, config->state, 0);
    if (other->state[0] || lstat(state, &st) == 0)
        strcpy(other->spool, search.spool);
    return other->state[0];
}

void states_describe(const struct states_other *other, char found[STATES_SENTENCE], char mend[STATES_SENTENCE])
{
    const char *unnamed = other->spool[0] ? "Exim's spool, which `spool` in " FASTSPOOL_CONFIG " does not name"
                                          : "which `state` does not name";
    char served[64] = "", word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], of[TOOL_OF_SPOOL];

    escape_word(word, sizeof(word), other->state);
    tool_of_spool(other->of, of);
    if (other->mirror)
        snprintf(served, sizeof(served), ", and that a mirror, process %ld, serves", (long)other->mirror);
    if (other->messages > 0)
        snprintf(found, STATES_SENTENCE, "%" PRId64 " message%s in %s, %s%s", other->messages,
                 other->messages == 1 ? " stands" : "s stand", other->state, unnamed, served);
    else if (other->messages < 0)
        snprintf(found, STATES_SENTENCE, "%s, %s%s, may hold mail, which can't be counted now", other->state, unnamed,
                 served);
    else
        snprintf(found, STATES_SENTENCE, "a mirror, process %ld, serves %s, %s, %s", (long)other->mirror, other->state,
                 unnamed, other->used ? "to the Exims that were started before" : "and no Exim uses that");
    if (other->spool[0])
        snprintf(mend, STATES_SENTENCE, "say `spool = %s` there", other->spool);
    else if (other->messages && *of) /* one `state` for several spools would be refused */
        snprintf(
            mend, STATES_SENTENCE,
            "stop Exim, and write them to the plain spool: `%sFASTSPOOL_STATE=%s fastspool stop`, and so `export`, "
            "and `stop` again",
            of, word);
    else if (other->messages)
        snprintf(mend, STATES_SENTENCE,
                 "say `state = %s` in " FASTSPOOL_CONFIG
                 ", and restart Exim; or stop Exim, and write them to the plain spool: `FASTSPOOL_STATE=%s fastspool "
                 "stop`, and so `export`, and `stop` again",
                 other->state, word);
    else
        snprintf(mend, STATES_SENTENCE, "%s`%sFASTSPOOL_STATE=%s fastspool stop`%s",
                 other->used ? "restart Exim, and " : "", of, word, other->used ? "" : " ends it");
}

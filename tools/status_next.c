/* SPDX-License-Identifier: MIT
 *
 * What the next process will find: Exim's next re-execution the library, the next mirror the state, and the next store
 * the place of its memory.
 *
 * The happy path: all that runs could be started again.
 *
 * Failure modes: what runs has open what it needs, and goes on.  So each of these is told as what it is: mail that
 * stands, or mail that stands after the next start.
 */
#include "asked.h"
#include "base/error.h"
#include "base/places.h"
#include "command.h"
#include "config.h"
#include "exims.h"
#include "mountpoint.h"
#include "proof.h"
#include "states.h"
#include "status.h"
#include "store/store.h"
#include "ways.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY INSTALLED_LIBRARY

/* Does the loader take it into Exim's re-executions?  As command_maps_library(), -ECHILD where Exim ends with it alone.
 * Asked again when its file @st has changed, as --watch looks each second; not where an Exim that runs is the answer.
 */
static int is_loaded(const struct fastspool *fs, const struct shown *shown, const struct stat *st)
{
    static struct stat asked;
    static int loaded = 1;
    const char *exim = asked_exim(shown->config);

    if (exim && shown->found.served && proof_of(shown->found.served, exim, st))
        return 1;
    if (!exim || (asked.st_ino == st->st_ino && asked.st_ctim.tv_sec == st->st_ctim.tv_sec &&
                  asked.st_ctim.tv_nsec == st->st_ctim.tv_nsec))
        return loaded;
    asked = *st;
    loaded = command_maps_library(exim, fs->owner, fs->group, EXIMS_LIBRARY);
    if (loaded == -ECHILD)
        loaded = command_maps_library(exim, fs->owner, fs->group, NULL) == -ECHILD ? 1 : -ECHILD;
    return loaded;
}

/* Its file has the right owner and mode. */
static void look_at_loader(const struct fastspool *fs, const struct stat *st, struct shown *shown)
{
    int loaded = geteuid() == 0 && fs->owner != 0 ? is_loaded(fs, shown, st) : 1;

    shown->fatal = loaded == -ECHILD;
    if (loaded == 0 || shown->fatal)
        snprintf(shown->library, sizeof(shown->library), "%s is %s: %s", LIBRARY,
                 shown->fatal ? "a part of a library" : "no library that the loader takes", ways_install(true));
}

/* Where it is installed for Exim.  A missing one matters where an Exim has the store. */
void status_next_library(const struct fastspool *fs, struct shown *shown)
{
    char user[ERROR_USER];
    struct stat st;

    if (stat(LIBRARY, &st) < 0) {
        if (errno != ENOENT || !shown->unattended)
            snprintf(shown->library, sizeof(shown->library), "%s: %s: %s", LIBRARY, strerrordesc_np(errno),
                     ways_install(true));
    } else if (!(st.st_mode & S_ISUID)) {
        snprintf(shown->library, sizeof(shown->library),
                 "%s is %s's, of mode %04o, and has to be root's, of mode 4644: `chown root:root %s && chmod 4644 %s`",
                 LIBRARY, error_user(st.st_uid, user), st.st_mode & 07777, LIBRARY, LIBRARY);
    } else {
        look_at_loader(fs, &st, shown);
        if (st.st_uid != 0 || (st.st_mode & 022))
            snprintf(
                shown->exposed, sizeof(shown->exposed),
                "%s is %s's, of mode %04o, and not root's alone to write: mail goes on, but the next start of Exim "
                "is refused; `chown root:root %s && chmod 4644 %s`",
                LIBRARY, error_user(st.st_uid, user), st.st_mode & 07777, LIBRARY, LIBRARY);
    }
}

/* Does process 1 see @state, and may it be written to there? */
static bool is_writable_for_first(const char *state)
{
    char path[PATH_MAX];
    struct stat here, there;

    return snprintf(path, sizeof(path), "/proc/1/root%s", state) < (int)sizeof(path) && stat(state, &here) == 0 &&
           stat(path, &there) == 0 && here.st_dev == there.st_dev && here.st_ino == there.st_ino &&
           access(path, W_OK) == 0;
}

/* A sandbox of this call's own, which shows @state read-only, is none of the next mirror's business: that lives where
 * process 1 sees the spool. */
int status_next_state(const struct shown *shown, const char *state, char error[FASTSPOOL_ERROR_MAX])
{
    int result = geteuid() == 0 ? states_usable(shown->config, error) : 0;

    return result == -EROFS && is_writable_for_first(state) ? 0 : result;
}

/* fastspool's own places are made at need. */
void status_next_memory(struct shown *shown, uid_t owner, gid_t group)
{
    char found[MEMORY_FOUND], mend[MEMORY_MEND];

    if (geteuid() == 0 && shown->config->runtime[0] &&
        memory_refuses(shown->config->runtime, owner, group, found, mend))
        snprintf(shown->memory, sizeof(shown->memory), "%s: %s", found, mend);
}

static bool is_immutable(int directory, const char *name)
{
    struct statx st;

    return statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, 0, &st) == 0 &&
           (st.stx_attributes & STATX_ATTR_IMMUTABLE);
}

/* Has the journal no file that can be written, and can none be made?  (Those that are open are refused as well.) */
static bool is_journal_sealed(const char *state)
{
    char path[PLACES_PATH_MAX];
    uint32_t number;

    places_in_state(state, PLACES_JOURNAL, path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool sealed = fd >= 0 && is_immutable(fd, "");
    DIR *directory = sealed ? fdopendir(fd) : NULL;
    for (const struct dirent *entry; directory && sealed && (entry = readdir(directory));)
        sealed = places_parse_journal_file(entry->d_name, &number) < 0 || is_immutable(fd, entry->d_name);
    if (directory)
        closedir(directory);
    else if (fd >= 0)
        close(fd);
    return sealed;
}

/* A mirror that runs has open what it needs, and writes to that whatever becomes of its path.  Not where the file
 * system itself can't be written to, as after an error of its disk, nor where the journal is made immutable. */
static bool goes_on(const struct fastspool *fs, const struct shown *shown, int next)
{
    const struct fastspool_status *s = &shown->numbers;
    struct mountpoint mount;

    return next != -EWOULDBLOCK && s->mirror_pid && !shown->recovery && !s->commit_error &&
           !(next == -EROFS && mountpoint_of(fs->state, &mount) && mount.read_only) &&
           !(next == -EPERM && is_journal_sealed(fs->state));
}

void status_next_use(const struct fastspool *fs, struct shown *shown)
{
    char error[FASTSPOOL_ERROR_MAX];
    int next = status_next_state(shown, fs->state, error);

    if (next == -EROFS || next == -EWOULDBLOCK || next == -EPERM || next == -ENODATA)
        snprintf(shown->unusable, sizeof(shown->unusable), "%s", error);
    shown->stands = !goes_on(fs, shown, next);
    status_next_memory(shown, fs->owner, fs->group);
}

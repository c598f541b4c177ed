/* SPDX-License-Identifier: MIT
 *
 * The process that has a lock of the state directory.
 *
 * A mirror, a view, and a command that wants neither hold locks there.  The directory is the mail user's, so any
 * process of that user can hold them as well, by mistake (`flock`, a backup program) or on purpose: then no mirror or
 * no view starts.  The operator is told which one it is.
 *
 * The happy path: the lines "lock:" of /proc/PID/fdinfo name every lock of a description, of each kind, whoever has
 * opened the file.  F_GETLK knows neither flock(2)'s nor the holder of an F_OFD_SETLK, and flock(2)'s of /proc/locks
 * name the process that has opened the file, which may be gone.
 *
 * Failure modes:
 *   - A process that is not root's may look at those of its own user alone.  For others it believes /proc/locks, and
 *     the name of the program.
 *   - A process that only looks holds a shared lock for an instant: such a one is looked at twice.
 *   - The file is asked for without a wait: a file system with a server that does not answer is not waited for.
 */
#include "spool/locker.h"

#include "base/clock.h"
#include "base/escape.h"
#include "base/listed.h"
#include "base/places.h"
#include "base/started.h"
#include "spool/launch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INSTANT   (50 * NS_PER_MS) /* for a look */
#define TOOL_NAME "fastspool"

enum held { NOT_HELD, HELD_SHARED, HELD };

/* Is the open file PID/fd/NAME the one with @st? */
static bool is_file(pid_t pid, const char *name, const struct statx *st)
{
    char path[64];
    struct statx of;

    snprintf(path, sizeof(path), "/proc/%ld/fd/%.16s", (long)pid, name);
    return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_INO, &of) == 0 && of.stx_ino == st->stx_ino &&
           of.stx_dev_major == st->stx_dev_major && of.stx_dev_minor == st->stx_dev_minor;
}

/* The lock of descriptor @name of process @pid, whatever it is of. */
static enum held lock_of(pid_t pid, const char *name)
{
    char path[64], line[256];
    enum held held = NOT_HELD;

    snprintf(path, sizeof(path), "/proc/%ld/fdinfo/%.16s", (long)pid, name);
    FILE *file = fopen(path, "re");
    while (file && held != HELD && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "lock:", 5) == 0 && !strstr(line, " -> "))
            held = strstr(line, " WRITE ") ? HELD : HELD_SHARED;
    }
    if (file)
        fclose(file);
    return held;
}

static bool holds(pid_t pid, const char *name, const struct statx *st)
{
    enum held held = lock_of(pid, name);

    if (held == HELD_SHARED && is_file(pid, name, st)) {
        clock_sleep(INSTANT);
        held = lock_of(pid, name);
    }
    return held != NOT_HELD && is_file(pid, name, st);
}

static bool is_holder(pid_t pid, const struct statx *st)
{
    char path[48];
    bool is = false;

    snprintf(path, sizeof(path), "/proc/%ld/fdinfo", (long)pid);
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory && !is && (entry = readdir(directory));)
        is = entry->d_name[0] != '.' && holds(pid, entry->d_name, st);
    if (directory)
        closedir(directory);
    return is;
}

/* Is process @pid one that the lock is for? */
static bool is_one(pid_t pid, bool roots, const char *what)
{
    struct started_now now;

    return pid == getpid() || (what && launch_is_tool(pid) && (!roots || (started_look(pid, &now) && now.uid == 0)));
}

/* The process with a lock of the file with @st that is not one, as far as this process may look; 0: none. */
static pid_t find(const struct statx *st, bool roots, const char *what)
{
    DIR *directory = opendir("/proc");
    pid_t found = 0;

    for (const struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        if (pid > 0 && is_holder(pid, st) && !is_one(pid, roots, what))
            found = pid;
    }
    if (directory)
        closedir(directory);
    return found;
}

/* The same of those that this one may not look at: by the name of the program. */
static pid_t find_listed(const char *path, const char *what)
{
    char program[STARTED_NAME];
    struct stat st;
    pid_t pid = lstat(path, &st) == 0 ? listed_locker(&st) : 0;

    return pid > 0 && what && pid != getpid() && started_at(pid, program) && strcmp(program, TOOL_NAME) != 0 ? pid : 0;
}

static void describe(pid_t pid, const char *what, const char *path, char sentence[LOCKER_SENTENCE])
{
    char program[STARTED_NAME], shown[ESCAPE_ROOM(STARTED_NAME)];
    long number = (long)pid;

    started_at(pid, program);
    escape_bytes(shown, sizeof(shown), program, strlen(program));
    if (what)
        snprintf(sentence, LOCKER_SENTENCE, "process %ld (%s), which is no %s, holds the lock %s: end it, `kill %ld`",
                 number, shown, what, path, number);
    else
        snprintf(sentence, LOCKER_SENTENCE, "process %ld (%s) holds the lock %s", number, shown, path);
}

bool locker_find(const char *state, const char *name, const char *what, char sentence[LOCKER_SENTENCE])
{
    char path[PLACES_PATH_MAX];
    struct statx st;

    places_in_state(state, name, path);
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO, &st) < 0)
        return false;
    pid_t pid = find(&st, strcmp(name, PLACES_VIEW_LOCK) == 0, what);
    if (pid == 0 && geteuid() != 0)
        pid = find_listed(path, what);
    if (pid > 0)
        describe(pid, what, path, sentence);
    return pid > 0;
}

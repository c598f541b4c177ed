/* SPDX-License-Identifier: MIT
 *
 * Opening files by path, in the union of the store and the disk (names.c).
 *
 * Happy path:
 *   - The store opens the file, and the descriptor is a duplicate of the description's placeholder.
 *   - If the store has no such file, the real call opens the disk's.
 *
 * Failure modes:
 *   - As in names.c.
 *   - EOPNOTSUPP: O_TMPFILE.
 */
#include "opening.h"

#include "attachment.h"
#include "base/atomic.h"
#include "descriptors.h"
#include "fastspool.h"
#include "paths.h"
#include "serve.h"
#include "spool/exim.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- the umask ---- */

#define MASK_UNKNOWN UINT32_MAX
static uint32_t mask = MASK_UNKNOWN; /* as this process has set it last, or as read at the first need */

mode_t opening_umask(void)
{
    if (LOAD(mask) == MASK_UNKNOWN) {
        mode_t current = real.umask(077);
        real.umask(current);
        STORE(mask, current);
    }
    return LOAD(mask);
}

EXPORT mode_t umask(mode_t new)
{
    BOUND();
    mode_t before = real.umask(new);
    STORE(mask, new & 0777);
    return before;
}

/* ---- opening ---- */

/* A descriptor or -errno. */
static int open_in_store(struct store_path *target, int flags, mode_t mode)
{
    int placeholder, fresh;
    int result = inside_open(target->fs, target->path, flags, mode, &placeholder, &fresh);

    return result < 0 ? result
                      : descriptors_new(attachment_number(target->fs, (uint32_t)result), placeholder, fresh, flags);
}

int opening_place(struct store_path *target, int flags, mode_t mode, bool *foreign)
{
    *foreign = false;
    if (!target->fs)
        return -target->error;
    if ((flags & O_TMPFILE) == O_TMPFILE)
        return -EOPNOTSUPP;
    bool creating = flags & O_CREAT;
    bool asks = paths_ask_disk(target->fs);
    if (creating && asks && paths_on_disk(target)) {
        *foreign = true;
        STORE(paths_disk_changed, true);
        return 0;
    }
    mode &= ~opening_umask();
    int result = open_in_store(target, flags, mode);
    if (result == -ENOENT && creating && paths_adopt(target) >= 0)
        result = open_in_store(target, flags, mode);
    *foreign = result == -ENOENT && !creating && asks;
    return result;
}

static bool takes_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

/* @fd is a real descriptor.  Below db/ and scan/ its fsync is free. */
static int note_foreign(const char *path, int fd)
{
    size_t offset = fd >= 0 && serve_active() && path[0] == '/' && exim_telling(path) ? serve_match(path) : 0;

    if (fd < 0 || !serve_active())
        return fd;
    descriptors_set(fd, 0);
    if (offset && exim_policy(path + offset) == EXIM_HINTS)
        descriptors_mark_hint(fd);
    return fd;
}

/* Not inlined because of its buffer, a page of the stack. */
static __attribute__((noinline)) int open_on_disk(const struct store_path *target, int flags, mode_t mode)
{
    char real_path[PATH_MAX];
    return real.open(paths_real(target, real_path), flags, mode);
}

/* Does @path, which is foreign by its text, lead to what descriptors_is_quiet() means?  So go down from the root, name
 * by name, those that trust no link (systemd's look-up of users). */
static bool stays_quiet(int dirfd, const char *path, int flags)
{
    if (*path == '/')
        return path[1] == '\0';
    return (flags & O_NOFOLLOW) && descriptors_is_quiet(dirfd) && !strchr(path, '/');
}

static int open_foreign(int dirfd, const char *path, int flags, mode_t mode)
{
    return note_foreign(path, dirfd == AT_FDCWD ? real.open(path, flags, mode) : real.openat(dirfd, path, flags, mode));
}

/* As open_on_disk(). */
static __attribute__((noinline)) int open_asked(int dirfd, const char *path, int flags, mode_t mode)
{
    struct store_path target;
    bool foreign = true;

    bool follows = !(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    if (follows ? paths_follow_asked(dirfd, path, &target) : paths_resolve_asked(dirfd, path, &target)) {
        int result = opening_place(&target, flags, mode, &foreign);
        if (!foreign)
            return (int)result_of(result);
        return note_foreign(path, open_on_disk(&target, flags, mode));
    }
    return open_foreign(dirfd, path, flags, mode);
}

static int open_at(int dirfd, const char *path, int flags, mode_t mode)
{
    if (!paths_foreign(dirfd, path))
        return open_asked(dirfd, path, flags, mode);
    int fd = open_foreign(dirfd, path, flags, mode);
    if (fd >= 0 && (flags & O_PATH) && serve_active() && stays_quiet(dirfd, path, flags))
        descriptors_mark_quiet(fd);
    return fd;
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode = 0;

    BOUND();
    va_start(arguments, flags);
    if (takes_mode(flags))
        mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return open_at(AT_FDCWD, path, flags, mode);
}
EXPORT_ALIAS(open64, open);

EXPORT int openat(int dirfd, const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode = 0;

    BOUND();
    va_start(arguments, flags);
    if (takes_mode(flags))
        mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return open_at(dirfd, path, flags, mode);
}
EXPORT_ALIAS(openat64, openat);

/* The fortified names, without a mode. */
int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
    BOUND();
    return open_at(AT_FDCWD, path, flags, 0);
}
EXPORT_ALIAS(__open64_2, __open_2);

int __openat_2(int dirfd, const char *path, int flags);
EXPORT int __openat_2(int dirfd, const char *path, int flags)
{
    BOUND();
    return open_at(dirfd, path, flags, 0);
}
EXPORT_ALIAS(__openat64_2, __openat_2);

EXPORT int creat(const char *path, mode_t mode)
{
    BOUND();
    return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
EXPORT_ALIAS(creat64, creat);

/* ---- names that are new ---- */

/* Where the six characters are to be in @template, before @suffix more.  NULL: it has none. */
static char *blanks(char *template, int suffix)
{
    size_t length = strlen(template);

    if (suffix < 0 || length < 6 + (size_t)suffix || strncmp(template + length - suffix - 6, "XXXXXX", 6) != 0)
        return NULL;
    return template + length - suffix - 6;
}

/* Six random characters, until @try has made what has this name.  Returns what @try has, or -1. */
static int make_new(char *template, int suffix, int flags, int (*try)(const char *path, int flags))
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    char *at = blanks(template, suffix);

    if (!at)
        return (int)result_of(-EINVAL);
    for (int tries = 0; tries < 100; tries++) {
        unsigned char random[6];
        if (getrandom(random, sizeof(random), 0) != sizeof(random))
            return -1;
        for (int i = 0; i < 6; i++)
            at[i] = letters[random[i] % 62];
        int result = try(template, flags);
        if (result >= 0 || errno != EEXIST)
            return result;
    }
    return -1;
}

static int try_file(const char *path, int flags)
{
    return open_at(AT_FDCWD, path, (flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL, 0600);
}

static int try_directory(const char *path, int flags)
{
    (void)flags;
    return mkdir(path, 0700);
}

static bool is_stores(const char *template)
{
    struct store_path target;

    BOUND();
    return paths_resolve(AT_FDCWD, template, &target);
}

EXPORT int mkstemp(char *template)
{
    return is_stores(template) ? make_new(template, 0, 0, try_file) : note_foreign(template, real.mkstemp(template));
}
EXPORT_ALIAS(mkstemp64, mkstemp);

EXPORT int mkostemp(char *template, int flags)
{
    return is_stores(template) ? make_new(template, 0, flags, try_file)
                               : note_foreign(template, real.mkostemp(template, flags));
}
EXPORT_ALIAS(mkostemp64, mkostemp);

EXPORT int mkstemps(char *template, int suffix)
{
    return is_stores(template) ? make_new(template, suffix, 0, try_file)
                               : note_foreign(template, real.mkstemps(template, suffix));
}
EXPORT_ALIAS(mkstemps64, mkstemps);

EXPORT int mkostemps(char *template, int suffix, int flags)
{
    return is_stores(template) ? make_new(template, suffix, flags, try_file)
                               : note_foreign(template, real.mkostemps(template, suffix, flags));
}
EXPORT_ALIAS(mkostemps64, mkostemps);

EXPORT char *mkdtemp(char *template)
{
    if (!is_stores(template))
        return real.mkdtemp(template);
    return make_new(template, 0, 0, try_directory) < 0 ? NULL : template;
}

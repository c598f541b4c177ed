/* SPDX-License-Identifier: MIT
 *
 * Paths: which of a program's paths are the store's.
 *
 * Happy path:
 *   - A foreign path, as most are, is absolute, and has no component with the name of a served directory.  It costs no
 *     system call.
 *   - A path of the spool is compared component by component; "//" and "." are skipped.  lib/spool/exim.c knows what is
 *     served of the rest.
 *   - A relative path is appended to the working directory, or to that of a descriptor, which may be the store's.  But
 *     where neither the working directory nor the path has such a component, the path leads elsewhere.  So the
 *     kernel is asked once for each working directory (a local delivery names a dozen files below a maildir), and not
 *     of a directory to which the program went from the root, name by name (descriptors_is_quiet()).
 *   - A path that doesn't begin with the spool's, but has a component like "input", may lead there by ".." or a
 *     symbolic link.  The kernel resolves what is before that component, and the path is compared again.
 *   - A descriptor has other names: /proc/self/fd/N, /dev/fd/N, /dev/stdout.  Of a spool file they lead to the file
 *     (paths_follow()), where the kernel would find the placeholder.
 *
 * Failure modes:
 *   - A link under another name straight into a served directory is not seen (docs/limits.md).
 *   - The working directory is moved into a served directory by another process: this is seen at the next chdir(2).
 *     Likewise of a directory below which paths are not asked about.
 *   - A relative path that is too long as an absolute one is taken from the descriptor's directory; below the working
 *     directory it is ENAMETOOLONG, if it is still too long without its ".".
 *   - Another path that is too long, or whose directory can't be resolved, is left to the kernel.  It returns the
 *     errno.
 */
#include "paths.h"

#include "attachment.h"
#include "descriptors.h"
#include "fastspool.h"
#include "pointers.h"
#include "real.h"
#include "serve.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

bool paths_disk_changed;

int paths_of(struct fastspool *fs, uint32_t description, char path[PATH_MAX])
{
    const char *spool = inside_spool(fs);
    size_t length = strlen(spool);

    memcpy(path, spool, length);
    path[length++] = '/';
    return inside_path(fs, description, path + length, PATH_MAX - length);
}

/* The absolute path of directory @dirfd. */
static bool directory_path(int dirfd, char path[PATH_MAX])
{
    if (dirfd == AT_FDCWD)
        return getcwd(path, PATH_MAX) != NULL;
    uint32_t description = descriptors_find(dirfd);
    return description ? paths_of(OF(description), path) >= 0 : real_path_of(dirfd, path, PATH_MAX);
}

static bool append(char path[PATH_MAX], const char *rest)
{
    size_t length = strlen(path), more = strlen(rest);

    if (length + 1 + more >= PATH_MAX)
        return false;
    path[length] = '/';
    memcpy(path + length + 1, rest, more + 1);
    return true;
}

/* The kernel resolves what is before the telling component; the rest follows as it is. */
static bool canonical(const char *path, char result[PATH_MAX])
{
    const char *rest = exim_telling(path);
    char prefix[PATH_MAX];

    if (!rest || rest == path || (size_t)(rest - path) >= sizeof(prefix))
        return false;
    memcpy(prefix, path, (size_t)(rest - path));
    prefix[rest - path] = '\0';
    int saved = errno;
    int fd = real.open(prefix, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool known = fd >= 0 && real_path_of(fd, result, PATH_MAX) && append(result, rest + 1);
    if (fd >= 0)
        real.close(fd);
    errno = saved;
    return known;
}

/* Resolve ".." below the spool.  As in the kernel, only a directory has a "..". */
static bool climb(struct fastspool *fs, const char *path, char *result)
{
    size_t length = 0;

    for (const char *at = path; *at;) {
        size_t part = (size_t)(strchrnul(at, '/') - at);
        struct stat st;
        if (part == 2 && at[0] == '.' && at[1] == '.') {
            if (length == 0)
                return false; /* above the spool */
            result[length - 1] = '\0';
            if (fs && exim_policy(result) == EXIM_STORE &&
                (fastspool_stat(fs, result, &st) < 0 || !S_ISDIR(st.st_mode))) {
                /* The store's errno is the right one. */
                strcpy(result, path);
                return true;
            }
            size_t before = length;
            while (length > 0 && result[--length] != '/')
                ;
            if (length > 0)
                length++;
            if (at[part + strspn(at + part, "/")] == '\0' && length > 1) {
                /* A path that ends in ".." has no last name: the store decides what each call does with it. */
                strcpy(result + before - 1, "/..");
                return true;
            }
        } else if (part > 0 && !(part == 1 && at[0] == '.')) {
            memcpy(result + length, at, part);
            length += part;
            result[length++] = '/';
        }
        at += part;
        while (*at == '/')
            at++;
    }
    /* A "/" or "." at the end says that it must be a directory. */
    size_t all = strlen(path);
    bool slash = path[all - 1] == '/', dot = path[all - 1] == '.' && (path[all - 2] == '/' || path[all - 2] == '.');
    if (length > 0 && dot)
        result[length++] = '.';
    else if (length > 0 && !slash)
        length--;
    result[length] = '\0';
    return true;
}

static bool has_dot_dot(const char *path)
{
    for (const char *at = path; (at = strchr(at, '.')); at++) {
        if ((at == path || at[-1] == '/') && at[1] == '.' && (at[2] == '/' || at[2] == '\0'))
            return true;
    }
    return false;
}

/* ---- the working directory ---- */

enum { NOT_ASKED, QUIET, TELLING, WANDERING, STATES };
static uint32_t working; /* one of them, of the working directory; above it a count of its changes */

void paths_entered(void)
{
    uint32_t before = LOAD(working);

    while (before % STATES != WANDERING && !__atomic_compare_exchange_n(&working, &before, (before | (STATES - 1)) + 1,
                                                                        false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

void paths_wander(void)
{
    STORE(working, WANDERING);
}

/* Another thread may change it meanwhile: then what was found counts for this call alone. */
static __attribute__((noinline)) uint32_t look_around(uint32_t before)
{
    char directory[PATH_MAX];
    int saved = errno;
    bool known = getcwd(directory, sizeof(directory)) && directory[0] == '/';
    uint32_t found = before + (known && !exim_telling(directory) ? QUIET : TELLING);

    errno = saved;
    __atomic_compare_exchange_n(&working, &before, found, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    return found;
}

/* Has @path, which is relative, a "..", or a component that could be a served directory? */
static bool tells(const char *path)
{
    return exim_is_directory(path, (size_t)(strchrnul(path, '/') - path)) || exim_telling(path) || has_dot_dot(path);
}

/* Is the working directory below none that could be a served one? */
static bool works_elsewhere(void)
{
    uint32_t seen = LOAD(working);
    if (seen % STATES == NOT_ASKED)
        seen = look_around(seen);
    return seen % STATES == QUIET;
}

/* ---- resolving ---- */

/* The errno of @path below @dirfd, if that is a file of the store, or a removed directory.  (Such a one has no path;
 * the kernel would look into its placeholder, and make files there.) */
static int error_below(int dirfd, const char *path)
{
    uint32_t description = descriptors_find(dirfd);
    struct stat st;

    if (!description)
        return 0;
    int result = fastspool_fstat(OF(description), &st);
    if (result < 0)
        return -result;
    if (!S_ISDIR(st.st_mode))
        return ENOTDIR;
    return st.st_nlink == 0 && strcmp(path, ".") != 0 ? ENOENT : 0;
}

/* Is @dirfd a file that was the store's before this process left it, and @path below that? */
static bool is_below_file(int dirfd, const char *path)
{
    struct stat st;

    return *path != '/' && dirfd != AT_FDCWD && real.fstat(dirfd, &st) == 0 && !S_ISDIR(st.st_mode);
}

/* Is @path, relative to the spool, the store's? */
static bool settle(const char *path, struct store_path *target)
{
    if (exim_policy(path) != EXIM_STORE)
        return false;
    target->fs = serve_store(&target->error);
    if (!target->fs && target->error == 0)
        return false;
    while (*path == '/')
        path++;
    target->path = path;
    return true;
}

/* @path without "." and "//", into @text.  False: it is still too long. */
static bool shorten(const char *path, char text[PATH_MAX])
{
    size_t length = 0;

    for (const char *at = path; *at; at += *at == '/') {
        size_t part = (size_t)(strchrnul(at, '/') - at);
        if (part > 0 && !(part == 1 && *at == '.' && at[1] == '/')) {
            if (length + 1 + part >= PATH_MAX)
                return false;
            text[length++] = '/';
            memcpy(text + length, at, part);
            length += part;
        }
        at += part;
    }
    text[length] = '\0';
    return true;
}

/* @path is relative, and too long as an absolute one.  Below a descriptor's directory its handle stands for that (see
 * store/walk.h). */
static __attribute__((noinline)) bool resolve_long(int dirfd, const char *path, struct store_path *target)
{
    char whole[2 * PATH_MAX];
    uint32_t description = dirfd == AT_FDCWD ? 0 : descriptors_find(dirfd);

    target->fs = NULL;
    target->error = ENAMETOOLONG;
    if (description && !has_dot_dot(path) &&
        (size_t)snprintf(target->text, sizeof(target->text), "//%016llx/%s",
                         (unsigned long long)inside_handle(OF(description)), path) < sizeof(target->text)) {
        target->fs = attachment_of(description);
        target->path = target->text;
        return true;
    }
    if (!description) {
        if (!directory_path(dirfd, whole) || strlen(path) >= PATH_MAX)
            return false; /* the kernel's error */
        strcpy(stpcpy(whole + strlen(whole), "/"), path);
        size_t offset = serve_match(whole);
        if (!offset || exim_policy(whole + offset) != EXIM_STORE)
            return false;
        if (!has_dot_dot(whole + offset) && shorten(whole + offset, target->text))
            return settle(target->text, target);
    }
    return true;
}

/* Make @path absolute.  Returns where the spool ends in it, 0: it is outside the spool.  *@is_known: it was not
 * too long. */
static size_t find_spool(int dirfd, const char *path, char absolute[PATH_MAX], bool *is_known)
{
    int saved = errno;
    bool known = *path == '/' ? strlen(path) < PATH_MAX && strcpy(absolute, path)
                              : directory_path(dirfd, absolute) && append(absolute, path);

    errno = saved;
    *is_known = known;
    size_t offset = known ? serve_match(absolute) : 0;
    if (known && offset == 0 && exim_telling(absolute)) {
        char resolved[PATH_MAX];
        offset = canonical(absolute, resolved) ? serve_match(resolved) : 0;
        if (offset)
            strcpy(absolute, resolved);
    }
    return offset;
}

/* Relative paths, links, and "..".  Not inlined because of its buffers: the child of a fork pays some 4 us for each
 * page of stack that it touches first. */
static __attribute__((noinline)) bool resolve_slowly(int dirfd, const char *path, struct store_path *target)
{
    char absolute[PATH_MAX], beyond[PATH_MAX];

    if (*path != '/' && dirfd != AT_FDCWD && (target->error = error_below(dirfd, path)) != 0) {
        target->fs = NULL;
        return true;
    }
    bool known;
    size_t offset = find_spool(dirfd, path, absolute, &known);
    if (offset == 0)
        return !known && *path != '/' && resolve_long(dirfd, path, target);
    const char *rest = absolute + offset;
    if (has_dot_dot(rest)) {
        struct fastspool *fs = serve_store(&target->error);
        if (!fs && target->error == 0)
            return false;
        /* Above the spool, and perhaps back into it: the kernel resolves it. */
        if (!climb(fs, rest, target->text)) {
            offset = canonical(absolute, beyond) ? serve_match(beyond) : 0;
            if (offset == 0 || has_dot_dot(beyond + offset))
                return false;
            strcpy(target->text, beyond + offset);
        }
    } else {
        strcpy(target->text, rest);
    }
    bool stores = settle(target->text, target);
    if (stores && !target->fs && is_below_file(dirfd, path))
        target->error = ENOTDIR;
    return stores;
}

/* Does the text of @path say that it is not the store's?  That costs a third of the comparison with the spools, and is
 * so of most paths. */
static bool is_foreign(int dirfd, const char *path)
{
    if (*path == '/')
        return !exim_telling(path + serve_begins(path));
    if (!*path)
        return true;
    if (dirfd != AT_FDCWD)
        return descriptors_is_quiet(dirfd) && !tells(path);
    return !tells(path) && works_elsewhere();
}

/* @path can be read, and its text does not say that it is another's. */
static bool resolve(int dirfd, const char *path, struct store_path *target)
{
    if (*path == '/') {
        size_t offset = serve_match(path);
        if (offset && !has_dot_dot(path + offset))
            return strlen(path) < PATH_MAX && settle(path + offset, target);
    }
    return resolve_slowly(dirfd, path, target);
}

bool paths_resolve(int dirfd, const char *path, struct store_path *target)
{
    return serve_looks() && pointers_text(path) && !is_foreign(dirfd, path) && resolve(dirfd, path, target);
}

/* ---- other names of descriptors ---- */

/* Does @path begin with @start?  Then what follows. */
static const char *behind(const char *path, const char *start)
{
    size_t length = strlen(start);
    return path && strncmp(path, start, length) == 0 ? path + length : NULL;
}

/* The number of this process's descriptor that @path, an absolute one, names, -1: none.  *@rest: what follows, "" or
 * "/...". */
static int named_descriptor(const char *path, const char **rest)
{
    static const char *const standard[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
    char *end = NULL;

    if (path[1] != 'd' && path[1] != 'p') /* most paths, and the comparisons were a quarter of the look */
        return -1;
    for (int fd = 0; fd < 3; fd++) {
        *rest = behind(path, standard[fd]);
        if (*rest && (**rest == '\0' || **rest == '/'))
            return fd;
    }
    const char *number = behind(path, "/dev/fd/"), *process = behind(path, "/proc/");
    if (process && !number) {
        const char *own = behind(process, "self");
        own = own ? own : behind(process, "thread-self");
        if (!own && strtol(process, &end, 10) == getpid())
            own = end;
        number = behind(own, "/fd/");
    }
    if (!number || *number < '0' || *number > '9')
        return -1;
    long fd = strtol(number, &end, 10);
    *rest = end;
    return fd <= INT_MAX && (*end == '\0' || *end == '/') ? (int)fd : -1;
}

/* The same, where descriptors may be the store's; @path need not be absolute. */
static int named_if_served(const char *path, const char **rest)
{
    return serve_active() && *path == '/' ? named_descriptor(path, rest) : -1;
}

uint32_t paths_description(const char *path)
{
    const char *rest;
    int fd = serve_active() && pointers_text(path) && *path == '/' ? named_descriptor(path, &rest) : -1;

    return fd >= 0 && *rest == '\0' ? descriptors_find(fd) : 0;
}

bool paths_resolve_asked(int dirfd, const char *path, struct store_path *target)
{
    const char *rest;

    return (named_if_served(path, &rest) < 0 || !is_foreign(dirfd, path)) && resolve(dirfd, path, target);
}

bool paths_follow_asked(int dirfd, const char *path, struct store_path *target)
{
    const char *rest;
    int fd = named_if_served(path, &rest);
    uint32_t description = fd < 0 ? 0 : descriptors_find(fd);

    if (description) {
        target->fs = attachment_of(description);
        target->error = 0;
        target->path = target->text;
        /* By its handle (store/walk.h), because it may be unlinked. */
        snprintf(target->text, sizeof(target->text), "//%016llx%s", (unsigned long long)inside_handle(OF(description)),
                 rest);
        return true;
    }
    return (fd < 0 || !is_foreign(dirfd, path)) && resolve(dirfd, path, target);
}

bool paths_follow(int dirfd, const char *path, struct store_path *target)
{
    return !paths_foreign(dirfd, path) && paths_follow_asked(dirfd, path, target);
}

bool paths_foreign(int dirfd, const char *path)
{
    const char *rest;

    if (!serve_looks() || !pointers_text(path))
        return true;
    return is_foreign(dirfd, path) && named_if_served(path, &rest) < 0;
}

static bool is_placeholder(struct fastspool *fs, const void *st)
{
    return inside_is_placeholder(fs, st);
}

bool paths_is_placeholder(int dirfd, const char *path, int flags)
{
    struct stat st;
    int saved = errno;

    bool found = attachment_any() && real.fstatat(dirfd, path, &st, flags) == 0 && attachment_is(is_placeholder, &st);
    errno = saved;
    return found;
}

/* ---- the disk's side ---- */

bool paths_ask_disk(const struct fastspool *fs)
{
    return fs && !inside_view(fs);
}

const char *paths_real(const struct store_path *target, char real_path[PATH_MAX])
{
    snprintf(real_path, PATH_MAX, "%s/%s", inside_spool(target->fs), target->path);
    return real_path;
}

static bool disk_has(const struct fastspool *fs, const char *path)
{
    char real_path[PATH_MAX];
    struct stat st;
    int saved = errno;

    strcpy(real_path, inside_spool(fs));
    bool there = append(real_path, path) && real.lstat(real_path, &st) == 0;
    errno = saved;
    return there;
}

static bool store_has(const struct store_path *target, const char *path)
{
    return fastspool_access(target->fs, path, F_OK, true) == 0;
}

/* Of most new files the store has the -D file, and that is all that is asked. */
bool paths_on_disk(const struct store_path *target)
{
    char data[PATH_MAX];

    if (!paths_ask_disk(target->fs))
        return false;
    bool family = exim_family(target->path, data), is_data = family && strcmp(data, target->path) == 0;
    if ((family && store_has(target, data)) || (!is_data && store_has(target, target->path)))
        return false;
    return (family && disk_has(target->fs, data)) || (!is_data && disk_has(target->fs, target->path));
}

int paths_adopt(const struct store_path *target)
{
    char parent[PATH_MAX], real_path[PATH_MAX + FASTSPOOL_PATH_MAX];
    struct stat st;
    size_t length = strlen(target->path);

    if (!paths_ask_disk(target->fs) && !exim_is_top(target->path)) /* a queue's own directory is the disk's */
        return -ENOENT;
    while (length > 0 && target->path[length - 1] == '/')
        length--;
    while (length > 0 && target->path[length - 1] != '/')
        length--;
    while (length > 0 && target->path[length - 1] == '/')
        length--;
    if (length == 0)
        return -ENOENT;
    memcpy(parent, target->path, length);
    parent[length] = '\0';
    snprintf(real_path, sizeof(real_path), "%s/%s", inside_spool(target->fs), parent);
    int saved = errno;
    int result = real.stat(real_path, &st) < 0 ? -errno : 0;
    errno = saved;
    if (result == 0 && !S_ISDIR(st.st_mode))
        result = -ENOTDIR;
    return result < 0 ? result : inside_adopt(target->fs, parent, &st);
}

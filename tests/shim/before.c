/* SPDX-License-Identifier: MIT
 *
 * Libraries that stand before the preloaded one, or behind it.  LIES: fsync and its kin do nothing, as in libeatmydata.
 * Otherwise stat passes its call on, and readlink has an answer of its own for /srv/link.
 */
#include <dlfcn.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

#ifdef LIES
EXPORT int fsync(int fd)
{
    (void)fd;
    return 0;
}

EXPORT int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

EXPORT int syncfs(int fd)
{
    (void)fd;
    return 0;
}

EXPORT void sync(void)
{
}
#else
EXPORT int stat(const char *path, struct stat *st)
{
    int (*next)(const char *, struct stat *);

    *(void **)&next = dlsym(RTLD_NEXT, "stat");
    return next(path, st);
}

EXPORT ssize_t readlink(const char *path, char *target, size_t size)
{
    ssize_t (*next)(const char *, char *, size_t);

    *(void **)&next = dlsym(RTLD_NEXT, "readlink");
    if (strcmp(path, "/srv/link") != 0 || size < 6)
        return next(path, target, size);
    memcpy(target, "behind", 6);
    return 6;
}
#endif

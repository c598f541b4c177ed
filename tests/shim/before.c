/* SPDX-License-Identifier: MIT
 *
 * Libraries that stand before the preloaded one.  LIES: fsync and its kin do nothing, as in libeatmydata.  Otherwise
 * stat passes its call on.
 */
#include <dlfcn.h>
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
#endif

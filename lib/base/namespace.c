/* SPDX-License-Identifier: MIT
 *
 * The mount namespace of process 1, and the PID namespace of this one.
 */
#include "base/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PIDFD_GET_PID_NAMESPACE
#define PIDFD_GET_PID_NAMESPACE _IO(0xFF, 5) /* since Linux 6.11 */
#endif

bool namespace_sees(const char *path, const struct stat *known)
{
    struct stat here;
    return stat(path, &here) == 0 && here.st_dev == known->st_dev && here.st_ino == known->st_ino;
}

static int open_root(const char *path)
{
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static bool take_root(int root)
{
    return fchdir(root) == 0 && syscall(SYS_chroot, ".") == 0;
}

/* setns(2) makes the namespace's own root the process's: whoever lives in a chroot, this process or process 1, would
 * see what lies outside. */
bool namespace_enter_first(bool (*accept)(const void *context), const void *context)
{
    int own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), first = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
    int root = open_root("/"), firsts_root = open_root("/proc/1/root");
    bool moved = own >= 0 && root >= 0 && firsts_root >= 0 && first >= 0 && syscall(SYS_setns, first, CLONE_NEWNS) == 0;
    bool there = moved && take_root(firsts_root) && accept(context);

    if (moved && !there && (syscall(SYS_setns, own, CLONE_NEWNS) < 0 || !take_root(root)))
        _exit(127); /* whatever this child does next would happen in the wrong place */
    for (int *fd = (int[]){own, first, root, firsts_root}, *end = fd + 4; fd < end; fd++) {
        if (*fd >= 0)
            close(*fd);
    }
    return there;
}

/* Without /proc. */
static int open_own_pids(void)
{
    int process = (int)syscall(SYS_pidfd_open, getpid(), 0);
    int fd = process < 0 ? -1 : (int)syscall(SYS_ioctl, process, PIDFD_GET_PID_NAMESPACE, 0);

    if (process >= 0)
        close(process);
    return fd;
}

uint64_t namespace_of_pids(void)
{
    struct stat st;
    int saved = errno, fd;
    uint64_t number = 0;

    if (stat("/proc/self/ns/pid", &st) == 0) {
        number = st.st_ino;
    } else if ((fd = open_own_pids()) >= 0) {
        number = fstat(fd, &st) == 0 ? st.st_ino : 0;
        close(fd);
    }
    errno = saved;
    return number;
}

/* SPDX-License-Identifier: MIT
 *
 * By the view a call is a system call: this program has functions of its own in the place of libc's (record.c).
 */
#include "way.h"

#include "fastspool.h"
#include "store/store.h"
#include "view/requests.h"
#include "view/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int root = -1; /* of the view; -1: the clients go by the library */
static const char *place;
static pid_t server;

static int mount_fuse(const char *directory)
{
    static bool private;
    char options[128];

    if (!private && (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
        return -errno;
    private = true;
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40750,user_id=0,group_id=0,default_permissions,allow_other",
             fuse);
    if (fuse < 0 || mkdir(directory, 0750) < 0 || mount("fastspool", directory, "fuse", 0, options) < 0)
        return -errno;
    return fuse;
}

static void serve(struct fastspool *fs, enum fastspool_durability durability, int fuse)
{
    const struct requests requests = {fs, geteuid(), durability};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fastspool_after_fork_child(fs);
    fs->mirror = false;
    fs->durability = durability;
    shares_begin();
    _exit(requests_serve(&requests, fuse) < 0);
}

int way_mount(struct fastspool *fs, enum fastspool_durability durability, const char *directory)
{
    int fuse = mount_fuse(directory);

    if (fuse < 0)
        return fuse;
    server = fork();
    if (server == 0)
        serve(fs, durability, fuse);
    close(fuse);
    place = directory;
    root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return server < 0 || root < 0 ? -errno : 0;
}

void way_unmount(void)
{
    int status;

    close(root);
    root = -1;
    if (umount2(place, MNT_DETACH) < 0 || waitpid(server, &status, 0) < 0 || status != 0)
        abort();
}

int way_open(struct fastspool *fs, const char *name, int flags, mode_t mode)
{
    return root < 0 ? fastspool_open(fs, name, flags, mode) : (int)syscall(SYS_openat, root, name, flags, mode);
}

ssize_t way_write(struct fastspool *fs, int d, const char *bytes, size_t size)
{
    return root < 0 ? fastspool_write(fs, d, bytes, size) : syscall(SYS_write, d, bytes, size);
}

ssize_t way_read(struct fastspool *fs, int d, char *bytes, size_t size)
{
    return root < 0 ? fastspool_read(fs, d, bytes, size) : syscall(SYS_read, d, bytes, size);
}

int way_fsync(struct fastspool *fs, int d)
{
    return root < 0 ? fastspool_fsync(fs, d) : (int)syscall(SYS_fsync, d);
}

int way_close(struct fastspool *fs, int d)
{
    return root < 0 ? fastspool_close(fs, d) : (int)syscall(SYS_close, d);
}

int way_rename(struct fastspool *fs, const char *from, const char *to)
{
    return root < 0 ? fastspool_rename(fs, from, to, 0) : (int)syscall(SYS_renameat, root, from, root, to);
}

int way_unlink(struct fastspool *fs, const char *name)
{
    return root < 0 ? fastspool_unlink(fs, name) : (int)syscall(SYS_unlinkat, root, name, 0);
}

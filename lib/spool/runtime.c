/* SPDX-License-Identifier: MIT
 *
 * The runtime directory: in which file system the memory of a store is made.
 *
 * Any user can fill /dev/shm.  So root has a tmpfs of its own, of a size, which nobody but root and owners of spools
 * can write to (base/places.h):
 *
 *     /run/fastspool/memory/              root's, 0755; nosuid, nodev, noexec
 *         HASH/                           of a spool, by its path: its owner's, so that he can make and remove in it
 *             fastspool.ID/
 *         HASH.size                       root's, sparse: its length is what the spool may take
 *
 * The happy path:
 *   - The first process of root's that makes a store, and may mount (CAP_SYS_ADMIN), mounts it where process 1 sees the
 *     same spool: so every service sees it, whatever sandbox the first one lives in.
 *   - Exim may be the owner by its first use of the spool: it does so ahead (shim/serve.c).
 *   - Each new store writes down what it may take: `memory`, which tables are a part of, and SPARE.
 *   - The size of the file system is the sum.  It grows with a new store or a larger `memory`, and never shrinks.
 *   - A unit may mount it before, with any size.  It stays mounted; empty it takes no memory.
 *
 * Failure modes: /dev/shm, without a word.
 *   - The process may not mount, process 1 doesn't see the spool, or /proc is hidden.
 *   - This process doesn't see the mount (a /run of its own), or sees it read-only: a service's sandbox
 *     (ProtectSystem=strict), which is the administrator's to open (ReadWritePaths=).
 *   - A kernel without huge pages for tmpfs: without.
 *   - Two processes at once: a lock of root's.  One that doesn't get it within LOCK_TIME goes without.
 *   - The machine has less memory than the sum: that much.
 *   - A spool is gone: its directory is empty then, and the next new store takes both names away.  A process that has
 *     prepared, and not yet made its store, may lose its directory so.
 */
#include "spool/runtime.h"

#include "base/child.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/namespace.h"
#include "base/places.h"
#include "base/rights.h"
#include "spool/configuration.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SPARE     (UINT64_C(32) << 20) /* of each store: tables end within a huge page, and others begin */
#define LOCK_TIME (2 * NS_PER_S)

/* What a child of this process is to do. */
struct wish {
    const char *spool; /* its real path */
    const struct stat *st;
    uint64_t memory; /* 0: only mount */
};

static uint64_t wanted(uint64_t memory)
{
    return memory + SPARE;
}

static bool is_roots(const struct stat *st)
{
    return S_ISDIR(st->st_mode) && st->st_uid == 0 && !(st->st_mode & 022);
}

/* ---- the file system: by system calls, as the loader looks up each function of libc in each process ---- */

/* Open a directory of root's alone.  It is made if it is missing. */
static int open_roots(int above, const char *path)
{
    struct stat st;

    if (mkdirat(above, path, 0755) < 0 && errno != EEXIST)
        return -errno;
    int fd = openat(above, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 || fstat(fd, &st) < 0 ? -errno : is_roots(&st) ? fd : -EPERM;
}

/* 1 or 0; -errno: it can't be said, and another one over it would hide all stores. */
static int is_mounted(int fd)
{
    struct statfs file_system;
    struct statx st;

    if (fstatfs(fd, &file_system) < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0)
        return -errno;
    return file_system.f_type == TMPFS_MAGIC && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

static int set(int context, const char *key, const char *value)
{
    return syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

/* As much of @bytes as the machine has. */
static uint64_t at_most(uint64_t bytes)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t all = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : bytes;

    return bytes < all ? bytes : all;
}

static int set_size(int context, uint64_t bytes)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
    return set(context, "size", text);
}

static int mount_over(int directory, uint64_t bytes)
{
    int context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);

    if (context < 0 || set(context, "source", "fastspool") < 0 || set(context, "mode", "0755") < 0 ||
        set_size(context, at_most(bytes)) < 0)
        return -errno;
    set(context, "huge", "within_size");
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int mount =
        (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return mount < 0 || syscall(SYS_move_mount, mount, "", directory, "",
                                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0
               ? -errno
               : 0;
}

static int open_mounted(int above, uint64_t bytes)
{
    int fd = open_roots(above, PLACES_TMPFS_NAME);
    int mounted = fd < 0 ? fd : is_mounted(fd);

    if (mounted != 0)
        return mounted < 0 ? mounted : fd;
    int result = mount_over(fd, bytes);
    return result < 0 ? result : open_roots(above, PLACES_TMPFS_NAME);
}

static int enlarge(int top, uint64_t bytes)
{
    struct statvfs st;

    bytes = at_most(bytes);
    if (fstatvfs(top, &st) < 0)
        return -errno;
    if (st.f_blocks == 0 || (uint64_t)st.f_blocks * st.f_frsize >= bytes) /* the first: without a size */
        return 0;
    int context = (int)syscall(SYS_fspick, top, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
    if (context < 0 || set_size(context, bytes) < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
        return -errno;
    return 0;
}

/* ---- what each spool may take ---- */

static int write_size(int top, const char *name, uint64_t bytes)
{
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    int fd = openat(top, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);

    setrlimit(RLIMIT_FSIZE, &none); /* of the child */
    return fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;
}

/* What a spool's file @name counts.  The file of a spool without a store is removed, but not @own. */
static uint64_t size_of(int top, const char *name, const char *own)
{
    char spool[PLACES_NAME_MAX];
    struct stat st;
    const char *dot = strrchr(name, '.');

    if (!dot || strcmp(dot, PLACES_SIZE) != 0 || fstatat(top, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    snprintf(spool, sizeof(spool), "%.*s", (int)(dot - name), name);
    if (strcmp(name, own) == 0 || (unlinkat(top, spool, AT_REMOVEDIR) < 0 && errno != ENOENT))
        return (uint64_t)st.st_size;
    unlinkat(top, name, 0);
    return 0;
}

/* The sum.  Not by readdir(3), which allocates: this is the child of a process that may be in its allocator just now
 * (jemalloc looks for /etc/malloc.conf with its lock held), and would wait for that lock for ever. */
static uint64_t add_sizes(int top, const char *own)
{
    _Alignas(struct dirent64) char entries[1024];
    int directory = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint64_t sum = 0;

    for (ssize_t got; directory >= 0 && (got = getdents64(directory, entries, sizeof(entries))) > 0;) {
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            sum += size_of(top, entry->d_name, own);
            at += entry->d_reclen;
        }
    }
    return sum;
}

/* Another owner's directory stays his while anything is in it: a user can find a path with the hash of another spool.
 */
static int make_own(int top, const char *directory, const struct stat *spool)
{
    struct stat st;
    bool made = mkdirat(top, directory, 0755) == 0;

    if (!made && errno != EEXIST)
        return -errno;
    if (fstatat(top, directory, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (st.st_uid == spool->st_uid && st.st_gid == spool->st_gid)
        return 0;
    if (!made && (unlinkat(top, directory, AT_REMOVEDIR) < 0 || mkdirat(top, directory, 0755) < 0))
        return -errno;
    return fchownat(top, directory, spool->st_uid, spool->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int reserve(int top, const struct wish *wish)
{
    char directory[PLACES_NAME_MAX], size[PLACES_NAME_MAX];

    places_of_spool(wish->spool, directory, size);
    int result = write_size(top, size, wanted(wish->memory));
    if (result == 0)
        result = enlarge(top, add_sizes(top, size));
    return result < 0 ? result : make_own(top, directory, wish->st);
}

/* ---- the child ---- */

static bool sees_spool(const void *context)
{
    const struct wish *wish = context;
    return namespace_sees(wish->spool, wish->st);
}

static bool take_lock(int above)
{
    int fd = openat(above, PLACES_TMPFS_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd >= 0 && fd_lock(fd, LOCK_TIME) == 0;
}

/* The end of the child gives back what it has. */
static void prepare(void *context)
{
    const struct wish *wish = context;

    syscall(SYS_setfsuid, 0); /* whoever's rights the process has borrowed */
    syscall(SYS_setfsgid, 0);
    umask(022);
    if (!namespace_enter_first(sees_spool, wish))
        return;
    int above = open_roots(AT_FDCWD, PLACES_REGISTRY);
    if (above < 0 || !take_lock(above))
        return;
    int top = open_mounted(above, wanted(wish->memory));
    if (top >= 0 && wish->memory)
        reserve(top, wish);
}

void runtime_prepare(const char *spool, const struct stat *st, uint64_t memory)
{
    struct wish wish = {spool, st, memory};

    if (geteuid() == 0 && rights_may_mount())
        child_run(prepare, &wish);
}

/* ---- looking ---- */

bool runtime_own(const char *spool, const struct stat *st, char base[FASTSPOOL_PATH_MAX])
{
    char directory[PLACES_NAME_MAX], size[PLACES_NAME_MAX];
    struct stat top, own;

    places_of_spool(spool, directory, size);
    snprintf(base, FASTSPOOL_PATH_MAX, PLACES_TMPFS "/%s", directory);
    return lstat(PLACES_TMPFS, &top) == 0 && is_roots(&top) && lstat(base, &own) == 0 && S_ISDIR(own.st_mode) &&
           own.st_uid == st->st_uid;
}

/* Is there room for a store of @memory bytes?  0, the default: for what that was when the room was made. */
static bool is_prepared(const char *spool, uint64_t memory)
{
    char directory[PLACES_NAME_MAX], size[PLACES_NAME_MAX], path[PLACES_PATH_MAX];
    struct stat st;

    places_of_spool(spool, directory, size);
    snprintf(path, sizeof(path), PLACES_TMPFS "/%s", size);
    return lstat(path, &st) == 0 && (uint64_t)st.st_size >= wanted(memory);
}

bool runtime_is_own(const char *runtime)
{
    return strncmp(runtime, PLACES_TMPFS "/", strlen(PLACES_TMPFS "/")) == 0;
}

bool runtime_lacks(const char *spool, const char *runtime, uint64_t memory)
{
    return runtime_is_own(runtime) && !is_prepared(spool, memory);
}

void runtime_prepare_ahead(const char *spool, uint64_t memory)
{
    struct stat st;
    int saved = errno;

    if (!is_prepared(spool, memory) && stat(spool, &st) == 0)
        runtime_prepare(spool, &st, configuration_memory(memory));
    errno = saved;
}

/* SPDX-License-Identifier: MIT
 *
 * Mounting the view over the spool's directories, and taking it away.
 *
 * The happy path:
 *   - Three mount namespaces (struct mounts).  The file system is mounted once, in `work`.  A clone of its directory
 *     `input` is moved over SPOOL/input in the namespace of the starter; and so each other top directory.
 *   - When a server is dead, its view answers ENOTCONN to everybody.  The next view is mounted over it, and the
 *     first dead one stays below, as a guard: those between the two are taken away, and no user ever sees the disk's
 *     empty directory.
 *   - Nothing here waits for a server, but mounts_over() and what is done with the descriptor of mounts_view().  A
 *     path that ends at a mount point, an O_PATH descriptor of it, umount2(2) with MNT_DETACH and
 *     /proc/self/mountinfo send it no request.
 *
 * Failure modes:
 *   - The mail user owns the spool, and may put a symbolic link anywhere: no path is followed but one directory
 *     after the other, from a descriptor, and each has to be his or root's.  What is mounted has to be a directory
 *     of the view.
 *   - Somebody unmounts a view: mounts_is_over().
 *   - What is mounted can't be read, for want of descriptors or memory: that is an error, or nothing changes; it never
 *     counts as "nothing is mounted" or "gone".
 *   - A supervisor was killed: the next one finds its views by their type in mountinfo, and ends their connections.
 */
#include "mount/mounts.h"

#include "base/fd.h"
#include "base/mountinfo.h"
#include "base/places.h"
#include "plain/disk.h"
#include "spool/exim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define RETRIES 100 /* of umount, while others mount and unmount at the same place */

/* ---- paths ---- */

/* A place, not to be read: asks no file system. */
static int open_beneath(int directory, const char *path, uint64_t resolve)
{
    return disk_open_beneath(directory, path, O_PATH | O_DIRECTORY, resolve);
}

static bool is_trusted(const struct mounts *m, int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_uid == m->owner || st.st_uid == 0);
}

/* Does an open that failed so say that there is no such directory, or none for us? */
static bool is_absent(int error)
{
    return error == -ENOENT || error == -ENOTDIR || error == -ELOOP || error == -EXDEV || error == -EACCES;
}

/* Is @name a directory on the disk, and it and the one above it of the owner or root?  1 or 0; -errno: it can't be
 * said. */
static int is_on_disk(const struct mounts *m, const char *name)
{
    char queue[MOUNTS_NAME];
    int fd = open_beneath(m->disk, name, 0);

    if (fd < 0)
        return is_absent(fd) ? 0 : fd;
    bool trusted = is_trusted(m, fd);
    close(fd);
    snprintf(queue, sizeof(queue), "%s", name);
    char *slash = strrchr(queue, '/');
    if (!trusted || !slash)
        return trusted;
    *slash = '\0';
    return is_on_disk(m, queue);
}

/* Watch the directory @fd of the disk: there is one watch a directory, however often it is asked for.  Without one (too
 * many: fs.inotify.max_user_watches) the supervisor's look each second finds what is new. */
static void watch(const struct mounts *m, int fd)
{
    char path[FD_LINK_MAX];

    fd_link(fd, path);
    inotify_add_watch(m->changes, path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
}

bool mounts_have_changed(const struct mounts *m)
{
    char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    struct inotify_event event;
    bool made = false;
    ssize_t size = read(m->changes, events, sizeof(events));

    for (ssize_t at = 0; at < size; at += (ssize_t)(sizeof(event) + event.len)) {
        memcpy(&event, events + at, sizeof(event));
        made = made || (event.mask & (IN_ISDIR | IN_Q_OVERFLOW));
    }
    return made;
}

static int add_tops(const struct mounts *m, const char *queue, char (*names)[MOUNTS_NAME], int size);

/* Add @name to @names, or, of a queue, its top directories.  How many are added, or -errno. */
static int add_name(const struct mounts *m, const char *name, bool spool, char (*names)[MOUNTS_NAME], int size)
{
    if (exim_is_place(name) && size > 0) {
        int result = is_on_disk(m, name);
        if (result > 0)
            strcpy(names[0], name);
        return result;
    }
    return spool && exim_policy(name) == EXIM_DISK ? add_tops(m, name, names, size) : 0;
}

static int add_tops(const struct mounts *m, const char *queue, char (*names)[MOUNTS_NAME], int size)
{
    bool spool = strcmp(queue, ".") == 0;
    int count = 0, added = 0;
    int fd = openat(m->disk, queue, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (!directory) {
        int error = -errno;
        if (fd >= 0)
            close(fd);
        return is_absent(error) ? 0 : error;
    }
    watch(m, fd); /* before it is read: what comes later is told */
    for (struct dirent *entry; added >= 0 && (errno = 0, entry = readdir(directory));) {
        char name[MOUNTS_NAME];
        if (entry->d_name[0] == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) ||
            snprintf(name, sizeof(name), spool ? "%s%s" : "%s/%s", spool ? "" : queue, entry->d_name) >=
                (int)sizeof(name))
            continue;
        added = add_name(m, name, spool, names + count, size - count);
        count += added > 0 ? added : 0;
    }
    if (added >= 0 && errno != 0)
        added = -errno;
    closedir(directory);
    return added < 0 ? added : count;
}

int mounts_on_disk(const struct mounts *m, char (*names)[MOUNTS_NAME], int size)
{
    return add_tops(m, ".", names, size);
}

bool mounts_has_spool(const struct mounts *m)
{
    struct stat st;
    return fstat(m->disk, &st) < 0 ? errno != ESTALE : st.st_nlink > 0;
}

/* ---- layers ---- */

/* Mount @id, or the one that @id's error stands for.  1: it is in @found; 0: there is none in this namespace; -errno:
 * the list can't be read. */
static int find_layer(int id, struct mountinfo *found)
{
    FILE *file = id < 0 ? NULL : fopen("/proc/self/mountinfo", "re");
    int result = file ? 0 : id < 0 ? id : -errno;

    while (result == 0 && mountinfo_next(file, found))
        result = found->id == id;
    if (result == 0 && !feof(file))
        result = -EIO;
    if (file)
        fclose(file);
    return result;
}

/* The mount that descriptor @fd lies in, or -errno.  fdinfo says it, and asks no file system. */
static int mount_of(int fd)
{
    char path[64], line[128];
    int id = -EIO;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    while (fgets(line, sizeof(line), file))
        sscanf(line, "mnt_id: %d", &id);
    fclose(file);
    return id;
}

/* How many views are mounted at @fd, one on the other; -errno: it can't be said. */
static int count_layers(int fd)
{
    struct mountinfo layer;
    int count = 0, found;

    for (int id = mount_of(fd); (found = find_layer(id, &layer)) > 0 && layer.view; id = layer.parent)
        count++;
    return found < 0 ? found : count;
}

static int unmount(int fd)
{
    char path[FD_LINK_MAX];

    fd_link(fd, path);
    return umount2(path, MNT_DETACH) < 0 ? -errno : 0;
}

/* Unmount at @spool/@name until @keep layers are left.  The number that is left. */
static int leave_layers(int spool, const char *name, int keep)
{
    for (unsigned i = 0; i < RETRIES; i++) {
        int fd = open_beneath(spool, name, 0);
        if (fd < 0)
            return fd;
        int count = count_layers(fd);
        int result = count > keep ? unmount(fd) : count;
        close(fd);
        if (count <= keep || result < 0)
            return result;
    }
    return -EBUSY;
}

/* ---- superblocks ---- */

static int set(int context, const char *key, unsigned value, bool octal)
{
    char text[16];

    snprintf(text, sizeof(text), octal ? "%o" : "%u", value);
    return fsconfig(context, FSCONFIG_SET_STRING, key, text, 0);
}

static int configure(const struct mounts *m, int context, int fuse)
{
    if (fsconfig(context, FSCONFIG_SET_STRING, "source", "fastspool", 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "subtype", "fastspool", 0) < 0 ||
        set(context, "fd", (unsigned)fuse, false) < 0 || set(context, "rootmode", S_IFDIR | 0750, true) < 0 ||
        set(context, "user_id", m->owner, false) < 0 || set(context, "group_id", m->group, false) < 0 ||
        fsconfig(context, FSCONFIG_SET_FLAG, "default_permissions", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    return 0;
}

static int mount_fuse(const struct mounts *m, int fuse)
{
    int context = fsopen("fuse", FSOPEN_CLOEXEC), mount = -1;

    if (context < 0)
        return -errno;
    int result = configure(m, context, fuse);
    if (result == 0) {
        mount = fsmount(context, FSMOUNT_CLOEXEC,
                        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW);
        result = mount < 0 ? -errno : 0;
    }
    if (result == 0 && move_mount(mount, "", m->disk, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        result = -errno;
    close(context);
    if (result < 0 && mount >= 0)
        close(mount);
    return result < 0 ? result : mount;
}

int mounts_view(const struct mounts *m, int fuse, unsigned *connection)
{
    struct mountinfo layer;
    int view = mount_fuse(m, fuse);
    int found = view < 0 ? view : find_layer(mount_of(view), &layer);

    if (found > 0) {
        *connection = layer.minor;
        return view;
    }
    mounts_drop(view); /* it could not be ended by force */
    return found < 0 ? found : -ENOENT;
}

void mounts_drop(int view)
{
    if (view < 0)
        return;
    unmount(view);
    close(view);
}

int mounts_abort(unsigned connection)
{
    char path[32];
    int context = fsopen("fusectl", FSOPEN_CLOEXEC), control = -1, file = -1;

    if (context >= 0 && fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        control = fsmount(context, FSMOUNT_CLOEXEC, 0);
    snprintf(path, sizeof(path), "%u/abort", connection);
    if (control >= 0)
        file = openat(control, path, O_WRONLY | O_CLOEXEC);
    int result = file < 0 || write(file, "1", 1) != 1 ? -errno : 0;
    for (int *fd = (int[]){file, control, context, -1}, *end = fd + 3; fd < end; fd++) {
        if (*fd >= 0)
            close(*fd);
    }
    return result;
}

/* ---- namespaces ---- */

static int enter(int namespace)
{
    return setns(namespace, CLONE_NEWNS) < 0 ? -errno : 0;
}

int mounts_enter_clean(const struct mounts *m)
{
    return enter(m->clean);
}

static int open_namespace(void)
{
    int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A copy of the namespace, which shares no mount with any other from now on. */
static int copy_namespace(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    return open_namespace();
}

/* Every setns(2) leads to the root of a namespace, and so out of a chroot, where the spool is another directory, or
 * none: there is no view of it. */
static int check_root(const struct mounts *m)
{
    struct stat own, namespaces;
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int result = root < 0 || fstat(root, &own) < 0 ? -errno : enter(m->clean);

    if (result == 0 &&
        (stat("/", &namespaces) < 0 || own.st_dev != namespaces.st_dev || own.st_ino != namespaces.st_ino))
        result = -EINVAL;
    if (result == -EINVAL && (fchdir(root) < 0 || chroot(".") < 0))
        abort();
    if (root >= 0)
        close(root);
    return result;
}

static int open_spool(const char *spool)
{
    int fd = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Is @path below the spool? */
static bool is_ours(const struct mounts *m, const char *path)
{
    size_t length = strlen(m->path);
    return strncmp(path, m->path, length) == 0 && path[length] == '/';
}

/* Does a FUSE file system lie over a directory on the way to @path?  Its server is any user's, and may never answer. */
static bool is_behind_fuse(const char *path)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    struct mountinfo layer;
    bool behind = !file; /* a process that can't look doesn't go there */

    while (!behind && mountinfo_next(file, &layer)) {
        size_t length = strlen(layer.place);
        behind = layer.fuse && strncmp(path, layer.place, length) == 0 && path[length] == '/';
    }
    if (file)
        fclose(file);
    return behind;
}

/* Unmount the topmost mount at @path, if it is a view, and end its connection if it is one of this spool's. */
static int take_away(const struct mounts *m, int root, const char *path)
{
    struct mountinfo layer;
    int fd = open_beneath(root, path + 1, 0);
    int found = fd < 0 ? fd : find_layer(mount_of(fd), &layer);
    int result = found < 0 ? found : -EBUSY;

    if (found > 0 && layer.view) {
        if (is_ours(m, path))
            mounts_abort(layer.minor);
        result = unmount(fd);
    }
    if (fd >= 0)
        close(fd);
    return result;
}

/* In a new private namespace: take away every view, of an earlier supervisor or of another spool.  Any user may mount
 * what has our type in a place that root can't reach, or never would (fusermount3 -o subtype=fastspool).  So another
 * place may fail. */
static int clean(const struct mounts *m)
{
    struct mountinfo layer;
    int result = 0, root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    FILE *file = fopen("/proc/self/mountinfo", "re");

    if (!file || root < 0)
        result = -errno;
    while (result == 0 && mountinfo_next(file, &layer)) {
        if (!layer.view || (!is_ours(m, layer.place) && is_behind_fuse(layer.place)))
            continue;
        result = take_away(m, root, layer.place);
        if (result == 0)
            rewind(file);
        else if (!is_ours(m, layer.place))
            result = 0;
    }
    if (result == 0 && !feof(file))
        result = -EIO;
    if (file)
        fclose(file);
    if (root >= 0)
        close(root);
    return result;
}

static int find_path(struct mounts *m)
{
    char link[FD_LINK_MAX];

    fd_link(m->spool, link);
    ssize_t length = readlink(link, m->path, sizeof(m->path) - 1);
    m->path[length > 0 ? length : 0] = '\0';
    return length < 0 ? -errno : m->path[0] == '/' ? 0 : -ENOENT;
}

/* In @namespace: if the spool is the same directory here, this is where the view is mounted. */
static int prefer_here(struct mounts *m, const struct stat *spool, int namespace)
{
    struct stat st;
    int fd = open_spool(m->path);

    if (fd < 0)
        return is_absent(fd) ? 0 : fd;
    int result = fstat(fd, &st) < 0 ? -errno : 0;
    if (result == 0 && st.st_dev == spool->st_dev && st.st_ino == spool->st_ino &&
        (dup3(fd, m->spool, O_CLOEXEC) < 0 || dup3(namespace, m->starter, O_CLOEXEC) < 0))
        result = -errno;
    close(fd);
    return result;
}

/* A service with private mounts (PrivateTmp= of systemd) has started this process: mount in the namespace of process 1,
 * if the spool is the same directory there.  From there the view reaches all services, and every user.  Where this
 * process may not look there, in a container, a line says so.  -errno: it can't be said. */
static int prefer_first(struct mounts *m, const struct stat *spool)
{
    int namespace = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
    int result = namespace < 0 ? -errno : enter(namespace);

    if (result == 0) {
        result = prefer_here(m, spool, namespace);
        if (enter(m->clean) < 0)
            abort();
    } else if (result == -EACCES || result == -EPERM || result == -ENOENT) {
        syslog(
            LOG_MAIL | LOG_WARNING,
            "%s: view: can't look whether process 1 sees this spool (%s): the view is mounted for those who share the "
            "mounts of the process that started it; others may see the disk's directory",
            m->path, strerrordesc_np(-result));
        result = 0;
    }
    if (namespace >= 0)
        close(namespace);
    return result;
}

/* Open the list of the starter's mounts.  A descriptor of it belongs to the namespace in which it was opened. */
static int watch_starter(struct mounts *m)
{
    int result = enter(m->starter);

    if (result < 0)
        return result;
    m->mountinfo = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    result = m->mountinfo < 0 ? -errno : 0;
    if (enter(m->work) < 0)
        abort();
    return result;
}

int mounts_find(struct mounts *m, const char *spool, const char **step)
{
    struct stat st;

    *step = "open the spool";
    m->spool = open_spool(spool);
    if (m->spool < 0 || fstat(m->spool, &st) < 0)
        return m->spool < 0 ? m->spool : -errno;
    m->owner = st.st_uid;
    m->group = st.st_gid;
    int result = find_path(m);
    if (result < 0)
        return result;
    *step = "make a mount namespace";
    m->starter = open_namespace();
    m->clean = m->starter < 0 ? m->starter : copy_namespace();
    result = m->clean < 0 ? m->clean : check_root(m);
    if (result < 0)
        return result;
    *step = "look into the mount namespace of process 1";
    return prefer_first(m, &st);
}

/* A sandbox may have a /run of its own, or one to be read only: the lock is that of those who see the view. */
int mounts_open_lock(const struct mounts *m)
{
    char name[PLACES_NAME_MAX], path[PLACES_PATH_MAX];
    int result = enter(m->starter);

    if (result < 0)
        return result;
    places_view_of_spool(m->path, name);
    places_in_state(PLACES_REGISTRY, name, path);
    if (mkdir(PLACES_REGISTRY, 0755) == 0)
        chmod(PLACES_REGISTRY, 0755); /* whatever the umask is */
    int fd = openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    result = fd < 0 || fchown(fd, 0, 0) < 0 ? -errno : fd; /* an earlier version gave it to the spool's owner */
    if (result < 0 && fd >= 0)
        close(fd);
    if (enter(m->clean) < 0)
        abort();
    return result;
}

int mounts_begin(struct mounts *m, const char *spool, const char **step)
{
    *step = "take away the mounts of an earlier view";
    m->disk = open_spool(spool);
    int result = m->disk < 0 ? m->disk : clean(m);
    if (result < 0)
        return result;
    close(m->disk);
    *step = "make a mount namespace";
    m->work = copy_namespace();
    m->disk = m->work < 0 ? m->work : open_spool(spool);
    if (m->disk < 0)
        return m->disk;
    m->changes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return watch_starter(m);
}

/* ---- over the spool ---- */

/* A clone of @name of @mount, mounted nowhere.  Waits for the server. */
static int clone_of(int mount, const char *name)
{
    int fd = open_beneath(mount, name, RESOLVE_NO_XDEV);
    if (fd < 0)
        return fd;
    int result = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (result < 0)
        result = -errno;
    close(fd);
    return result;
}

/* In the starter's namespace: move @mount over @name. */
static int move_over(const struct mounts *m, int mount, const char *name)
{
    int fd = open_beneath(m->spool, name, 0);
    if (fd < 0)
        return fd;
    int result = move_mount(mount, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
    close(fd);
    return result;
}

int mounts_over(const struct mounts *m, int view, const char *name)
{
    int there = is_on_disk(m, name);
    if (there <= 0)
        return there < 0 ? there : -ENOENT;
    int directory = clone_of(view, name);
    if (directory < 0)
        return directory;
    int result = enter(m->starter);
    if (result == 0) {
        result = leave_layers(m->spool, name, 1);
        result = result < 0 ? result : move_over(m, directory, name);
        if (enter(m->work) < 0)
            abort(); /* in no other namespace may this process go on */
    }
    close(directory);
    return result;
}

int mounts_remove(const struct mounts *m, const char *name)
{
    int result = enter(m->starter);

    if (result < 0)
        return result;
    result = leave_layers(m->spool, name, 0);
    if (enter(m->work) < 0)
        abort();
    return result;
}

bool mounts_is_over(const struct mounts *m, unsigned connection, const char *name)
{
    struct mountinfo layer;
    bool found = false;
    int fd = dup(m->mountinfo);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

    if (!file) {
        if (fd >= 0)
            close(fd);
        return true;
    }
    rewind(file);
    while (!found && mountinfo_next(file, &layer))
        found = layer.view && layer.minor == connection && strcmp(layer.root + 1, name) == 0;
    found = found || !feof(file);
    fclose(file);
    return found;
}

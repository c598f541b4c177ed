/* SPDX-License-Identifier: MIT
 *
 * Launching the mirror and the view: does one live, and how a process starts one.
 *
 * The happy path:
 *   - A mirror holds the flock of STATE/mirror.lock for its whole life, and a view that of STATE/view.lock.  A process
 *     that asks tries that lock.
 *   - Only processes of root's or the owner's start them, and none that an ordinary user has started.
 *   - The start takes two forks, so that the mirror is not a child of the program.  The path of the mirror's image is
 *     absolute and compiled in.
 *   - The view is started by a root process that root or the owner started, in its mount namespace.
 *
 * Failure modes:
 *   - The starter lives in a sandbox: the mirror goes to process 1's mounts, if the spool is there (shed_mounts()).
 *   - The state directory was moved, and another one is in its place: no mirror there is this store's (keeps()).
 *   - Many waiters find no mirror at once: one of them starts it (header.mirror.starting).
 *   - The mirror does not come up: a waiter starts it again after LAUNCH_TIME.  If the command is missing, a line in
 *     syslog says so each time.
 *   - The starting program has limits, priorities, signals, descriptors or a control group that would harm the mirror:
 *     shed_inheritance() gives them up, as far as the process may.
 *   - It can't be said whether a mirror lives (no descriptor is left): a start does no harm, as the lock decides, and a
 *     waiter waits on.  No view is started then.
 *   - The view can't be mounted on this machine: one line in syslog, and another try every VIEW_TRY_AGAIN.
 *   - The view of another state of the spool lives, as `state` was changed or mistyped: the same, but it is tried at
 *     each attach.  Two views would hide each other's mail.
 */
#include "spool/launch.h"

#include "base/cgroup.h"
#include "base/child.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/listed.h"
#include "base/namespace.h"
#include "base/places.h"
#include "base/rights.h"
#include "base/unconst.h"
#include "config.h"
#include "spool/configuration.h"
#include "spool/memory.h"
#include "spool/presence.h"
#include "spool/runtime.h"
#include "store/await.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#define FILES_OPEN     4096            /* descriptors of the mirror and the view */
#define VIEW_TRY_AGAIN (60 * NS_PER_S) /* where no view could be mounted */
#define LOOK_EVERY     (20 * NS_PER_MS)

/* Open the lock file @name of the state directory.  -ENOENT: there is none, or a link, so nobody holds it. */
static int open_lock(const char *state, const char *name)
{
    char path[PLACES_PATH_MAX];

    places_in_state(state, name, path);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 ? fd : errno == ENOTDIR || errno == ELOOP ? -ENOENT : -errno;
}

/* Is the lock file @name of the state directory held?  1 or 0; -errno: it can't be said. */
static int is_held(const char *state, const char *name)
{
    int saved = errno, fd = open_lock(state, name);
    int result = fd == -ENOENT ? 0 : fd;

    if (fd >= 0) {
        result = flock(fd, LOCK_SH | LOCK_NB) == 0 ? 0 : errno == EWOULDBLOCK ? 1 : -errno;
        close(fd);
    }
    errno = saved;
    return result;
}

int launch_lives(struct fastspool *fs)
{
    return launch_mirror_lives(fs->state);
}

int launch_mirror_lives(const char *state)
{
    return is_held(state, PLACES_MIRROR_LOCK);
}

int launch_view_lives(const char *state)
{
    return is_held(state, PLACES_VIEW_LOCK);
}

/* The same of a file that only root can open: a process that can open it could hold the lock. */
static int is_listed(const char *directory, const char *name)
{
    char path[PLACES_PATH_MAX];
    struct stat st;
    int saved = errno, result;

    places_in_state(directory, name, path);
    if (stat(path, &st) < 0) {
        result = errno == ENOENT ? 0 : -errno;
    } else {
        pid_t locker = listed_locker(&st);
        result = locker > 0 || locker == LISTED_NO_PROCESS ? 1 : (int)locker;
    }
    errno = saved;
    return result;
}

int launch_place_viewed(const char *spool)
{
    char name[PLACES_NAME_MAX];

    places_view_of_spool(spool, name);
    return geteuid() == 0 ? is_held(PLACES_REGISTRY, name) : is_listed(PLACES_REGISTRY, name);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t ignored = write(fd, text, strlen(text));
        (void)ignored;
        close(fd);
    }
}

/* The limit of @resource, as far as this process may lift it: without CAP_SYS_RESOURCE up to the hard limit. */
static void shed_limit(int resource, rlim_t wanted)
{
    struct rlimit limit = {wanted, RLIM_INFINITY};

    if (setrlimit((__rlimit_resource_t)resource, &limit) == 0 || getrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    setrlimit((__rlimit_resource_t)resource, &limit);
}

static void shed_limits(void)
{
    for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
        switch (resource) {
        case RLIMIT_NICE:
        case RLIMIT_RTPRIO: /* what the process may take, and doesn't */
            break;
        case RLIMIT_CORE: /* holds mail */
            shed_limit(resource, 0);
            break;
        case RLIMIT_NOFILE: /* can't be unlimited */
            shed_limit(resource, FILES_OPEN);
            break;
        case RLIMIT_STACK: /* of each thread */
            shed_limit(resource, 8 << 20);
            break;
        default:
            shed_limit(resource, RLIM_INFINITY);
        }
    }
}

/* All processors that there are, no priority, as a process of the system's own begins. */
static void shed_scheduling(void)
{
    const struct sched_param normal = {0};
    cpu_set_t all;

    syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &normal);
    syscall(SYS_setpriority, PRIO_PROCESS, 0, 0);
    memset(&all, 0xff, sizeof(all));
    syscall(SYS_sched_setaffinity, 0, sizeof(all), &all);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0));
    syscall(SYS_prctl, PR_SET_TIMERSLACK, 50000UL); /* ns, as init has */
    write_text("/proc/self/oom_score_adj", "0");
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), size = strlen(end);
    return length >= size && strcmp(text + length - size, end) == 0;
}

/* A service of the system's, not one that a user's own systemd has started. */
static int is_service(const struct cgroup *group, void *context)
{
    (void)context;
    return ends_with(group->path, ".service") && strncmp(group->path, "/user.slice/", 12) != 0;
}

/* The group at the top of the hierarchy, of a container or of the machine. */
static int leave_group(const struct cgroup *group, void *context)
{
    char path[PATH_MAX];

    (void)context;
    if (strcmp(group->path, "/") != 0 && snprintf(path, sizeof(path), "%s/cgroup.procs", group->hierarchy) > 0)
        write_text(path, "0");
    return 0;
}

/* A session's group may be frozen, and ends with the session.  A service's is the administrator's wish. */
static void shed_groups(void)
{
    if (!cgroup_any(is_service, NULL))
        cgroup_any(leave_group, NULL);
}

/* Signals that others send to each process whose name or command line has "exim" in it, as exiwhat does, are ignored:
 * this process has that name still, and later the path of the spool. */
static void shed_signals(void)
{
    static const int stray[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE};
    sigset_t none;

    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        signal(signal_number, SIG_DFL);
    for (size_t i = 0; i < sizeof(stray) / sizeof(*stray); i++)
        signal(stray[i], SIG_IGN);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* In the grandchild: undo what the mirror would inherit.  The program that starts it may have any limits, and a
 * service's sandbox. */
static void shed_inheritance(void)
{
    shed_signals();
    shed_limits();
    shed_scheduling();
    shed_groups();
    if (geteuid() == 0)
        syscall(SYS_setgroups, 0, NULL);
    umask(077);
    if (chdir("/") < 0)
        _exit(127);
}

static void become_tool(char *const *arguments)
{
    char *const environment[] = {NULL};
    uid_t uid = geteuid();
    gid_t gid = getegid();

    shed_inheritance();
    if (syscall(SYS_setresgid, gid, gid, gid) < 0 || rights_settle(uid) < 0)
        _exit(127);
    fd_close_range(0, ~0U);
    /* Descriptors 0 to 2 must not become the database's.  Where /dev/null can't be opened, "/" will do. */
    if ((open("/dev/null", O_RDWR) != 0 && open("/", O_PATH) != 0) || dup(0) != 1 || dup(0) != 2)
        _exit(127);
    execve(FASTSPOOL_TOOL, arguments, environment);
    _exit(127);
}

static bool sees_all(const void *context)
{
    const struct fastspool *fs = context;
    struct stat spool, runtime;

    return fstat(fs->spool_fd, &spool) == 0 && fstat(fs->runtime_fd, &runtime) == 0 &&
           namespace_sees(fs->spool, &spool) && namespace_sees(fs->runtime, &runtime) &&
           access(FASTSPOOL_TOOL, X_OK) == 0;
}

/* A service's sandbox may show the spool read-only (ProtectSystem=strict), or end with the service.  If process 1 sees
 * the same spool, the same memory and the command, the mirror lives there. */
static void shed_mounts(const struct fastspool *fs)
{
    namespace_enter_first(sees_all, fs);
}

static void become_mirror(const struct fastspool *fs)
{
    char bytes[24];
    char *const arguments[] = {UNCONST("fastspool"), UNCONST("mirror"),
                               UNCONST("--state"),   UNCONST(fs->state),
                               UNCONST("--memory"),  bytes,
                               UNCONST(fs->spool),   NULL};

    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)memory_wanted(fs));
    shed_mounts(fs);
    become_tool(arguments);
}

static void become_view(const struct fastspool *fs)
{
    char *const arguments[] = {UNCONST("fastspool"), UNCONST("view"),    UNCONST("--state"),
                               UNCONST(fs->state),   UNCONST(fs->spool), NULL};

    become_tool(arguments);
}

struct start {
    const struct fastspool *fs;
    void (*become)(const struct fastspool *fs);
};

static void detach(void *context)
{
    const struct start *start = context;

    syscall(SYS_setsid);
    if (child_fork() == 0)
        start->become(start->fs);
}

/* Start the process that @become turns a child into.  0 or -errno; keeps errno. */
static int start(const struct fastspool *fs, void (*become)(const struct fastspool *fs))
{
    struct start start = {fs, become};
    return child_run(detach, &start);
}

/* Of many processes that find nobody at once, one starts it: the one that moves @starting, after @time. */
static bool is_starter(const uint64_t *starting, uint64_t time)
{
    uint64_t now = clock_monotonic();
    uint64_t before = LOAD(*starting);

    return (!before || now - before >= time) &&
           __atomic_compare_exchange_n(&ATOMIC(*starting), &before, now, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

bool launch_is_young(const uint64_t *starting)
{
    uint64_t at = LOAD(*starting);

    return at && clock_monotonic() - at < LAUNCH_TIME;
}

void launch_settle(const uint64_t *starting, int (*lives)(const char *state), const char *state)
{
    uint64_t began = clock_monotonic();

    while (lives(state) == 0 && launch_is_young(starting) && clock_monotonic() - began < LAUNCH_TIME)
        clock_sleep(LOOK_EVERY);
}

/* Root has room made where `memory` has grown since the store was made. */
static void make_room(const struct fastspool *fs)
{
    uint64_t memory = configuration_memory(fs->memory);
    struct stat spool;

    if (geteuid() == 0 && runtime_lacks(fs->spool, fs->runtime, memory) && fstat(fs->spool_fd, &spool) == 0)
        runtime_prepare(fs->spool, &spool, memory);
}

/* Is what is at the state directory's path the one of this store?  Where there is nothing no mirror lives either. */
static bool is_in_place(const struct fastspool *fs)
{
    int saved = errno, state_fd = open(fs->state, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool is = state_fd < 0 || presence_is_valid(fs->presence_fd, state_fd);

    if (state_fd >= 0)
        close(state_fd);
    errno = saved;
    return is;
}

/* For a waiter: a mirror of the store that was made in place of its own never wakes it. */
static int keeps(struct fastspool *fs)
{
    int lives = launch_lives(fs);

    return lives > 0 && !is_in_place(fs) ? 0 : lives;
}

int launch_start(struct fastspool *fs)
{
    if ((geteuid() != 0 && geteuid() != fs->owner) || (getuid() != 0 && getuid() != fs->owner))
        return 0; /* only root and the owner have a right to the disk's part: other users wait for a mirror of theirs */
    if (!is_starter(&fs->header->mirror.starting, LAUNCH_TIME) || !is_in_place(fs))
        return 0;
    if (access(FASTSPOOL_TOOL, X_OK) < 0)
        syslog(LOG_MAIL | LOG_ERR,
               "fastspool: %s: no mirror can be started, and mail waits: %s can't be executed (%s); install it again",
               fs->spool, FASTSPOOL_TOOL, strerrordesc_np(errno));
    make_room(fs);
    return start(fs, become_mirror);
}

/* ---- the view ---- */

void launch_view_unavailable(struct fastspool *fs, enum view_obstacle obstacle, int error)
{
    uint32_t before = LOAD(fs->header->view.unavailable);

    STORE(fs->header->view.obstacle, obstacle);
    STORE(fs->header->view.unavailable, error);
    if (before != (uint32_t)error)
        syslog(LOG_MAIL | LOG_WARNING,
               "fastspool: %s: no view can be mounted (%s: %s): programs without the library do not see the store",
               fs->spool, launch_view_obstacle(obstacle), strerrordesc_np(error));
}

const char *launch_view_obstacle(uint32_t obstacle)
{
    return obstacle == VIEW_NO_DEVICE  ? "/dev/fuse"
           : obstacle == VIEW_NO_RIGHT ? "CAP_SYS_ADMIN"
           : obstacle == VIEW_OTHER    ? "the view of another state is mounted"
                                       : "mount";
}

int launch_view_obstructed(enum view_obstacle *obstacle)
{
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    *obstacle = fuse < 0 ? VIEW_NO_DEVICE : VIEW_NO_RIGHT;
    if (fuse < 0)
        return errno;
    close(fuse);
    return rights_may_mount() ? 0 : EPERM;
}

void launch_view(struct fastspool *fs)
{
    int saved = errno;
    bool lasts = LOAD(fs->header->view.unavailable) && LOAD(fs->header->view.obstacle) != VIEW_OTHER;

    if (fs->starts_view && launch_view_lives(fs->state) == 0 &&
        is_starter(&fs->header->view.starting, lasts ? VIEW_TRY_AGAIN : LAUNCH_TIME)) {
        enum view_obstacle obstacle;
        int error = launch_view_obstructed(&obstacle);
        bool other = !error && launch_place_viewed(fs->spool) > 0;
        if (other) {
            obstacle = VIEW_OTHER;
            error = EBUSY;
        }
        if (!error)
            start(fs, become_view);
        else if (!other || !launch_view_serves(fs->state)) /* else its lock was removed, which it sees in a moment */
            launch_view_unavailable(fs, obstacle, error);
    }
    errno = saved;
}

/* An upgrade may have removed the file that it runs.  In a sandbox with a mount of /usr of its own that file's path
 * begins below there. */
bool launch_is_tool(pid_t pid)
{
    static const char deleted[] = FASTSPOOL_TOOL " (deleted)";
    char link[32], path[sizeof(deleted) + 1];
    struct stat image, tool;

    snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
    if (stat(link, &image) == 0 && stat(FASTSPOOL_TOOL, &tool) == 0 && image.st_dev == tool.st_dev &&
        image.st_ino == tool.st_ino)
        return true;
    ssize_t length = readlink(link, path, sizeof(path)), most = sizeof(deleted) - 1;
    return length > 0 && length <= most && path[0] == '/' && memcmp(path, deleted + most - length, (size_t)length) == 0;
}

/* The process that has a record lock of the file @name of the state directory.  0: none, or none of this PID namespace;
 * -errno: it can't be said. */
static pid_t holder_of(const char *state, const char *name)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open_lock(state, name);

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    pid_t result = fcntl(fd, F_GETLK, &lock) < 0 ? -errno : lock.l_type != F_UNLCK && lock.l_pid > 0 ? lock.l_pid : 0;
    close(fd);
    return result;
}

pid_t launch_view_holder(const char *state)
{
    pid_t pid = holder_of(state, PLACES_VIEW_LOCK);

    return pid <= 0 || launch_is_tool(pid) ? pid : 0;
}

bool launch_view_serves(const char *state)
{
    pid_t pid = holder_of(state, PLACES_SERVER_LOCK);

    return pid > 0 && launch_is_tool(pid);
}

const struct keeper launch_keeper = {keeps, launch_start};

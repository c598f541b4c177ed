/* SPDX-License-Identifier: MIT
 *
 * Launching the mirror: does one live, and how a process starts one.
 *
 * The happy path:
 *   - A mirror holds the flock of STATE/mirror.lock for its whole life.  A process that asks tries that lock.
 *   - The start takes two forks, so that the mirror is not a child of the program.  The path of the mirror's image is
 *     absolute and compiled in.
 *
 * Failure modes:
 *   - Many waiters find no mirror at once: one of them starts it (header.mirror.starting).
 *   - The mirror does not come up: a waiter starts it again after START_TIME.
 *   - The starting program has limits, signals or descriptors that would harm the mirror: shed_inheritance().
 */
#include "spool/launch.h"

#include "base/clock.h"
#include "base/places.h"
#include "base/unconst.h"
#include "config.h"
#include "store/await.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIME (2 * NS_PER_S) /* time for a new mirror to take its lock */

bool launch_lives(struct fastspool *fs)
{
    char path[PLACES_PATH_MAX];
    int saved = errno;

    places_in_state(fs->state, PLACES_MIRROR_LOCK, path);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool lives = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return lives;
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

/* In the grandchild: undo what the mirror would inherit.  The program that starts it may be any user's sendmail. */
static void shed_inheritance(void)
{
    static const int limits[] = {RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_MEMLOCK, RLIMIT_STACK};
    sigset_t none;

    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        signal(signal_number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (geteuid() == 0) {
        const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY}, stack = {8 << 20, RLIM_INFINITY};
        for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++)
            setrlimit((__rlimit_resource_t)limits[i], limits[i] == RLIMIT_STACK ? &stack : &unlimited);
        setpriority(PRIO_PROCESS, 0, 0);
        write_text("/sys/fs/cgroup/memory/cgroup.procs", "0"); /* version 1 */
        write_text("/sys/fs/cgroup/cgroup.procs", "0");        /* version 2 */
    }
    umask(077);
    if (chdir("/") < 0)
        _exit(127);
}

static void become_mirror(const char *spool, const char *state, uint64_t memory)
{
    char bytes[24];
    char *const arguments[] = {UNCONST("fastspool"), UNCONST("mirror"),
                               UNCONST("--state"),   UNCONST(state),
                               UNCONST("--memory"),  bytes,
                               UNCONST(spool),       NULL};
    char *const environment[] = {NULL};
    uid_t uid = geteuid();
    gid_t gid = getegid();

    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)memory);
    shed_inheritance();
    if (syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
        _exit(127);
    syscall(SYS_close_range, 0, ~0U, 0);
    /* Descriptors 0 to 2 must not become the database's.  Where /dev/null can't be opened, "/" will do. */
    if ((open("/dev/null", O_RDWR) != 0 && open("/", O_PATH) != 0) || dup(0) != 1 || dup(0) != 2)
        _exit(127);
    execve(FASTSPOOL_TOOL, arguments, environment);
    _exit(127);
}

/* Fork a child that sends no signal when it ends: the program's SIGCHLD handler and wait() do not see it. */
static pid_t quiet_fork(void)
{
    return (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
}

int launch_start(struct fastspool *fs)
{
    uint64_t now = clock_monotonic();
    uint64_t before = LOAD(fs->header->mirror.starting);
    sigset_t all, old;
    int saved = errno;

    if (before && now - before < START_TIME)
        return 0;
    if (geteuid() != 0 && geteuid() != fs->owner)
        return 0; /* only root and the owner have a right to the disk's part: other users wait for a mirror of theirs */
    if (!__atomic_compare_exchange_n(&ATOMIC(fs->header->mirror.starting), &before, now, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return 0;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old); /* no handler of the program may run in the child */
    pid_t child = quiet_fork();
    if (child == 0) {
        setsid();
        if (quiet_fork() == 0)
            become_mirror(fs->spool, fs->state, fs->memory);
        _exit(0);
    }
    int result = child < 0 ? -errno : 0;
    while (child > 0 && waitpid(child, NULL, __WCLONE) < 0 && errno == EINTR)
        ;
    sigprocmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return result;
}

const struct keeper launch_keeper = {launch_lives, launch_start};

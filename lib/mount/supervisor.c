/* SPDX-License-Identifier: MIT
 *
 * The supervisor of the view: mounts it, starts its server, and starts it again when it is dead or hangs.
 *
 * The happy path:
 *   - Take the locks that say "a view lives", of this state, and of the spool, for life.  Make the mount namespaces
 *     (mounts.h).
 *   - Mount a FUSE file system where nobody sees it.  Start the server, which runs as the spool's owner, and the
 *     hand.
 *   - The server imports what lies on the disk and names each directory; the hand mounts it for all to see.  A service
 *     manager is told that the view is ready.
 *   - A top directory is new on the disk (of a new queue): the server adopts it.  inotify(7) tells of it, of the
 *     disk's directories alone; and every second the supervisor looks itself.
 *   - Every two seconds: ask the server by way of the hand whether it still answers.
 *   - SIGTERM: end the hand, unmount, then let the server end in order.
 *
 * Failure modes:
 *   - The server dies: what is mounted answers ENOTCONN, until the next server's view is mounted over it.  The first
 *     server is started at once, the next ones after a pause that doubles.
 *   - A service's servers all end with an error for GIVE_UP, and none was ever mounted, as where the store is damaged:
 *     the supervisor ends, too.  The service manager, whose other services wait for this one, starts it again.
 *   - The server doesn't answer for ANSWER_TIME: it is killed.  It isn't gone KILL_TIME later (it waits for itself
 *     in the kernel): its connection is ended in fusectl.
 *   - All are stopped, or the machine is: when the supervisor goes on the others do, and the server has its time anew.
 *   - The supervisor is killed: the kernel kills server and hand (PR_SET_PDEATHSIG).  What is mounted answers
 *     ENOTCONN.
 *   - The view of another state of the spool lives: the supervisor ends, before it mounts anything.  So no view ever
 *     hides a living one, and two never fight.  An attach starts it again (spool/launch.c).
 *   - A process that is no view has the lock, as each of the mail user's can: it is named, and the supervisor ends.
 *   - Nothing can be mounted on this machine: the store's header and syslog say so, and the supervisor ends.
 *
 * The supervisor never asks the view anything: it would wait for a server that only itself can kill.  It never maps the
 * store, which the mail user can write.
 */
#include "mount/supervisor.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/places.h"
#include "base/rights.h"
#include "fastspool.h"
#include "mount/control.h"
#include "mount/hand.h"
#include "mount/mounts.h"
#include "mount/notify.h"
#include "mount/server.h"
#include "mount/tops.h"
#include "mount/viewlock.h"
#include "spool/attach.h"
#include "spool/exim.h"
#include "spool/launch.h"
#include "spool/locker.h"
#include "spool/owned.h"
#include "spool/runtime.h"
#include "spool/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#define TICK         NS_PER_S
#define PROBE_EVERY  (2 * NS_PER_S)
#define ANSWER_TIME  (5 * NS_PER_S)
#define AWAY         (3 * NS_PER_S)  /* between two ticks: the supervisor was stopped, or the machine was */
#define KILL_TIME    (2 * NS_PER_S)  /* for a killed server to be gone */
#define END_TIME     (5 * NS_PER_S)  /* for a server to end in order */
#define LONG_LIFE    (30 * NS_PER_S) /* a server that lived this long is started again without a pause */
#define PAUSE_MAX    (8 * NS_PER_S)
#define GIVE_UP      (20 * NS_PER_S) /* for the first mount of a service, while its servers end with an error */
#define SERVER_FILES (1 << 17)       /* descriptors of the server: one an open file, and one a lock owner (shares.c) */
#define ORDERS_MAX   32              /* that the hand has not answered: more fill its socket */
#define REPLACE_TIME (60 * NS_PER_S) /* for another view to end */

struct supervisor {
    struct mounts mounts;
    const char *state;
    int signals; /* signalfd */
    int fuse;    /* the server's device, while it is started; -1: none */
    int view;    /* mount; -1: none */
    unsigned connection;
    int server; /* sockets; -1: none */
    int hand;
    pid_t server_pid; /* 0: none */
    pid_t hand_pid;
    unsigned asked;    /* orders that the hand has not answered */
    uint64_t heard;    /* when it last answered, or got its first order */
    uint64_t probed;   /* when it was last asked */
    uint64_t ticked;   /* when the last tick was */
    uint64_t began;    /* when the first server was started */
    uint64_t started;  /* when the server was */
    uint64_t killed;   /* when the server was, 0: not */
    uint64_t start_at; /* no server runs: when the next one will be started */
    uint64_t pause;    /* before the next start */
    bool up;           /* the server was told that all is mounted */
    bool mounted;      /* some server was */
    bool changed;      /* something was mounted or unmounted */
    bool ending;
    bool failed; /* the service has */
    bool second; /* the view of another state has the spool's lock */
    struct tops tops;
};

static int complain(const char *spool, const char *what, int error)
{
    syslog(LOG_MAIL | LOG_ERR, "%s: view: %s: %s", spool, what, strerrordesc_np(-error));
    fprintf(stderr, "fastspool: %s: view: %s: %s\n", spool, what, strerrordesc_np(-error));
    return 1;
}

/* ---- the children ---- */

static int become_owner(const struct mounts *m)
{
    int result = rights_become(m->owner, m->group);

    prctl(PR_SET_DUMPABLE, 0); /* a core dump would have mails in it */
    return result;
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* In a child: keep @keep alone, besides the standard streams. */
static void close_others(int *keep, size_t count)
{
    int most = STDERR_FILENO;

    closelog();
    qsort(keep, count, sizeof(*keep), by_number);
    for (size_t i = 0; i < count; i++) {
        if (keep[i] > most + 1)
            fd_close_range((unsigned)most + 1, (unsigned)keep[i] - 1);
        most = keep[i] > most ? keep[i] : most;
    }
    fd_close_range((unsigned)most + 1, ~0U);
    openlog("fastspool", LOG_PID, LOG_MAIL);
}

/* Die with the supervisor, whose pid was @parent.  Before that: get rid of what it has blocked. */
static void follow(pid_t parent)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

/* The server is the mail user's: it gets neither the terminal and environment nor the limits of the root's shell that
 * may have started the view. */
static void shed_inheritance(const int keep[2])
{
    const struct rlimit files = {SERVER_FILES, SERVER_FILES}, unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setsid();
    clearenv();
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_NPROC, &unlimited); /* threads are counted, too */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fd != keep[0] && fd != keep[1] && (null < 0 || (null != fd && dup2(null, fd) < 0)))
            _exit(1);
    }
}

static void run_server(const struct supervisor *s, pid_t parent, int control)
{
    int keep[] = {s->fuse, control};

    shed_inheritance(keep);
    if (mounts_enter_clean(&s->mounts) < 0 || become_owner(&s->mounts) < 0)
        _exit(1);
    follow(parent); /* a change of the uid clears the signal of the parent's death */
    close_others(keep, 2);
    _exit(server_run(s->mounts.path, s->state, s->fuse, control, s->mounted));
}

static void run_hand(const struct supervisor *s, pid_t parent, int control)
{
    int keep[] = {s->mounts.starter, s->mounts.work, s->mounts.spool, s->mounts.disk, s->view, control};

    follow(parent);
    close_others(keep, sizeof(keep) / sizeof(*keep));
    _exit(hand_run(&s->mounts, s->view, control));
}

/* Start a child that does @run.  @control, *@pid: our side of its socket, and its pid. */
static int start_child(const struct supervisor *s, void (*run)(const struct supervisor *, pid_t, int), int *control,
                       pid_t *pid)
{
    int sockets[2];
    pid_t parent = getpid();
    int result = control_pair(sockets);

    if (result < 0)
        return result;
    pid_t child = fork();
    if (child == 0)
        run(s, parent, sockets[1]);
    result = child < 0 ? -errno : 0;
    *pid = child < 0 ? 0 : child;
    *control = sockets[0];
    close(sockets[1]);
    fcntl(*control, F_SETFL, O_NONBLOCK);
    return result;
}

/* ---- a server's life ---- */

static void kill_children(struct supervisor *s)
{
    if (s->server_pid > 0)
        kill(s->server_pid, SIGKILL);
    if (s->hand_pid > 0)
        kill(s->hand_pid, SIGKILL);
    if (!s->killed)
        s->killed = clock_monotonic();
}

static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int start_server(struct supervisor *s)
{
    s->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (s->fuse < 0)
        return -errno;
    int result = s->view = mounts_view(&s->mounts, s->fuse, &s->connection);
    if (result >= 0)
        result = start_child(s, run_server, &s->server, &s->server_pid);
    drop(&s->fuse); /* before the hand is started: with the server's death the connection has to end */
    if (result >= 0)
        result = start_child(s, run_hand, &s->hand, &s->hand_pid);
    s->started = clock_monotonic();
    s->began = s->began ? s->began : s->started;
    s->killed = 0;
    s->asked = 0;
    s->up = false;
    tops_forget(&s->tops);
    return result;
}

/* Both children are gone. */
static void end_server(struct supervisor *s)
{
    uint64_t now = clock_monotonic();

    drop(&s->server);
    drop(&s->hand);
    if (s->view >= 0)
        mounts_abort(s->connection); /* a child of the server's may live on, and hold the device */
    mounts_drop(s->view);
    s->view = -1;
    s->pause = now - s->started > LONG_LIFE ? 0 : s->pause ? 2 * s->pause : NS_PER_S / 4;
    if (s->pause > PAUSE_MAX)
        s->pause = PAUSE_MAX;
    s->start_at = now + s->pause;
}

/* ---- messages ---- */

static void order(struct supervisor *s, enum control_kind kind, const char *name)
{
    if (control_send(s->hand, kind, 0, name) < 0) {
        kill_children(s);
        return;
    }
    if (s->asked++ == 0)
        s->heard = clock_monotonic();
    s->probed = clock_monotonic();
}

/* The server is the mail user's process: only top directories are mounted. */
static void obey(struct supervisor *s, const struct control *message)
{
    struct top *top = NULL;

    if (message->kind == CONTROL_MOUNT && exim_is_place(message->name))
        top = tops_find(&s->tops, message->name);
    if (top)
        top->known = true;
    if (top || message->kind == CONTROL_READY)
        order(s, (enum control_kind)message->kind, message->name);
}

static void from_server(struct supervisor *s)
{
    struct control message;
    int result = 1;

    while (s->asked < ORDERS_MAX && (result = control_receive(s->server, &message)) > 0)
        obey(s, &message);
    if (result <= 0 && result != -EAGAIN)
        kill_children(s); /* the end of the socket: it is dying */
}

/* ---- top directories ---- */

/* Note what lies on the disk, if that can be said.  What finds no place stays the disk's, and a line says so once. */
static void look_for_tops(struct supervisor *s)
{
    static char names[TOPS_MAX + 1][MOUNTS_NAME];
    static bool told;

    int count = mounts_on_disk(&s->mounts, names, TOPS_MAX + 1);
    if (count >= 0 && !tops_present(&s->tops, names, (size_t)count) && !told) {
        syslog(LOG_MAIL | LOG_ERR, "%s: view: more than %d directories to mount over: the others stay the disk's",
               s->mounts.path, TOPS_MAX);
        told = true;
    }
}

static void tell_of_tops(struct supervisor *s)
{
    look_for_tops(s);
    for (size_t i = 0; i < s->tops.count; i++) {
        struct top *top = &s->tops.top[i];
        if (top->present && !top->known)
            top->known = control_send(s->server, CONTROL_ADOPT, 0, top->name) == 0;
    }
}

static void from_hand(struct supervisor *s)
{
    struct control answer;
    int result;

    while ((result = control_receive(s->hand, &answer)) > 0) {
        s->asked -= s->asked > 0;
        s->heard = clock_monotonic();
        if (answer.kind == CONTROL_MOUNT && answer.error && answer.error != -ENOENT) {
            complain(s->mounts.path, answer.name, answer.error);
            kill_children(s); /* half a view is none: try again */
        }
        struct top *top = answer.kind == CONTROL_MOUNT && !answer.error ? tops_find(&s->tops, answer.name) : NULL;
        if (top)
            top->mounted = true;
        if (answer.kind == CONTROL_READY || (s->up && top))
            control_send(s->server, CONTROL_UP, 0, NULL);
        if (answer.kind == CONTROL_READY) {
            s->up = s->mounted = true;
            tell_of_tops(s);
            notify("READY=1");
            syslog(LOG_MAIL | LOG_INFO, "%s: view: mounted", s->mounts.path);
        }
    }
    if (result != -EAGAIN)
        kill_children(s);
}

/* Somebody has mounted or unmounted something: mount what was unmounted.  (`fastspool stop` is how the view ends.) */
static void look_for_mounts(struct supervisor *s)
{
    for (size_t i = 0; i < s->tops.count && s->asked < ORDERS_MAX; i++) {
        struct top *top = &s->tops.top[i];
        if (top->mounted && !mounts_is_over(&s->mounts, s->connection, top->name)) {
            syslog(LOG_MAIL | LOG_WARNING, "%s: view: %s was unmounted: it is mounted again", s->mounts.path,
                   top->name);
            top->mounted = false;
            top->known = false; /* so that the server imports what was written on the disk meanwhile */
            order(s, CONTROL_MOUNT, top->name);
        }
    }
    s->changed = false;
}

static void watch(struct supervisor *s, uint64_t now)
{
    if (s->killed && now - s->killed > KILL_TIME) {
        syslog(LOG_MAIL | LOG_ERR, "%s: view: the killed server is still there: its connection %u is ended",
               s->mounts.path, s->connection);
        mounts_abort(s->connection);
        s->killed = now;
    } else if (s->killed) {
        return;
    } else if (s->asked && now - s->heard > ANSWER_TIME) {
        syslog(LOG_MAIL | LOG_ERR, "%s: view: server %ld does not answer: it is killed", s->mounts.path,
               (long)s->server_pid);
        kill_children(s);
    } else if (!s->asked && s->up && now - s->probed >= PROBE_EVERY) {
        order(s, CONTROL_PROBE, NULL);
    }
}

/* What was not heard meanwhile is no silence of the server's.  Who says "go on" says it to the supervisor alone. */
static void come_back(struct supervisor *s, uint64_t now)
{
    if (s->server_pid > 0)
        kill(s->server_pid, SIGCONT);
    if (s->hand_pid > 0)
        kill(s->hand_pid, SIGCONT);
    s->heard = now;
}

static void tick(struct supervisor *s)
{
    uint64_t now = clock_monotonic();

    if (s->ticked && now - s->ticked > AWAY)
        come_back(s, now);
    s->ticked = now;
    if (!mounts_has_spool(&s->mounts))
        s->ending = true;
    viewlock_keep(s->mounts.owner, s->mounts.group);
    if (s->server_pid || s->hand_pid) {
        watch(s, now);
        if (s->up && !s->killed)
            tell_of_tops(s);
        if (s->up && !s->killed && s->changed)
            look_for_mounts(s);
    } else if (now >= s->start_at) {
        int result = start_server(s);
        if (result < 0) {
            complain(s->mounts.path, "start", result);
            kill_children(s);
        }
        if (!s->server_pid && !s->hand_pid)
            end_server(s);
    }
}

/* ---- signals ---- */

/* The server, which has said why, if it was by itself. */
static void server_ended(struct supervisor *s, int status)
{
    bool failed = WIFEXITED(status) && WEXITSTATUS(status) != 0 && !s->mounted && notify_is_awaited() &&
                  clock_monotonic() - s->began > GIVE_UP;

    if (!s->ending)
        syslog(LOG_MAIL | LOG_ERR, "%s: view: server %ld has ended with %s %d: %s", s->mounts.path, (long)s->server_pid,
               WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
               failed ? "the service ends" : "it is started again");
    s->failed = s->failed || (failed && !s->ending);
    s->ending = s->ending || failed;
    s->server_pid = 0;
}

static void reap(struct supervisor *s)
{
    int status;

    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == s->server_pid) {
            server_ended(s, status);
        } else if (pid == s->hand_pid) {
            s->hand_pid = 0;
        }
        if (!s->ending)
            kill_children(s); /* one does not go on without the other */
        if (!s->server_pid && !s->hand_pid)
            end_server(s);
    }
}

static void from_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap(s);
        else
            s->ending = true;
    }
}

static int take_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN); /* exiwhat takes this process for an Exim: the spool's path is in its command line */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

/* ---- the loop ---- */

static int until_tick(const struct supervisor *s, uint64_t next)
{
    uint64_t now = clock_monotonic(), at = next;

    if (!s->server_pid && !s->hand_pid && s->start_at < at)
        at = s->start_at;
    return at <= now ? 0 : (int)((at - now) / NS_PER_MS) + 1;
}

/* Wait for messages and signals, at most @timeout milliseconds, and see to them. */
static void wait_for_news(struct supervisor *s, int timeout)
{
    struct pollfd news[] = {{s->signals, POLLIN, 0},
                            {s->server, POLLIN, 0},
                            {s->hand, POLLIN, 0},
                            {s->mounts.mountinfo, POLLPRI, 0},
                            {s->mounts.changes, POLLIN, 0}};

    if (s->killed) /* nothing more is wanted of them but their end */
        news[1].fd = news[2].fd = -1;
    if (s->asked >= ORDERS_MAX)
        news[1].fd = -1;
    if (poll(news, sizeof(news) / sizeof(*news), timeout) <= 0)
        return;
    if (news[1].revents)
        from_server(s);
    if (news[2].revents)
        from_hand(s);
    if (news[3].revents)
        s->changed = true;
    if (news[4].revents && mounts_have_changed(&s->mounts) && s->up && !s->killed)
        tell_of_tops(s);
    if (news[0].revents)
        from_signals(s);
}

static void serve(struct supervisor *s)
{
    uint64_t next = 0;

    while (!s->ending) {
        wait_for_news(s, until_tick(s, next));
        if (clock_monotonic() >= next || (!s->server_pid && !s->hand_pid)) {
            tick(s);
            next = clock_monotonic() + TICK;
        }
    }
}

/* Wait for a signal, a tenth of a second at most. */
static void wait_for_signal(struct supervisor *s)
{
    poll(&(struct pollfd){s->signals, POLLIN, 0}, 1, 100);
    from_signals(s);
}

/* Orders that it has not followed yet would be mounted after what is unmounted here. */
static void end_hand(struct supervisor *s)
{
    uint64_t since = clock_monotonic();

    if (s->hand_pid)
        kill(s->hand_pid, SIGKILL);
    while (s->hand_pid && clock_monotonic() - since < 2 * KILL_TIME) {
        wait_for_signal(s);
        if (clock_monotonic() - since > KILL_TIME)
            mounts_abort(s->connection); /* it waits for a server that does not answer */
    }
}

/* Unmount before the server ends: one that has ended in order has left the header saying that the disk counts again. */
static void end(struct supervisor *s)
{
    end_hand(s);
    look_for_tops(s);
    for (size_t i = 0; i < s->tops.count; i++) {
        const char *name = s->tops.top[i].name;
        int result = mounts_remove(&s->mounts, name);
        if (result < 0 && result != -ENOENT)
            complain(s->mounts.path, name, result);
    }
    if (s->server_pid && shutdown(s->server, SHUT_WR) == 0) {
        for (uint64_t since = clock_monotonic(); s->server_pid && clock_monotonic() - since < END_TIME;)
            wait_for_signal(s);
    }
    for (uint64_t since = clock_monotonic(); s->server_pid || s->hand_pid;) {
        kill_children(s);
        wait_for_signal(s);
        if (clock_monotonic() - since > KILL_TIME)
            mounts_abort(s->connection);
        if (clock_monotonic() - since > 2 * KILL_TIME)
            break;
    }
    syslog(LOG_MAIL | LOG_INFO, "%s: view: unmounted", s->mounts.path);
}

/* ---- start ---- */

/* End the view that runs, as often as an Exim starts another one between its end and the lock. */
static int replace(const char *state, const struct stat *spool)
{
    uint64_t start = clock_monotonic();
    pid_t signalled = 0;
    int result;

    while ((result = viewlock_take(state, spool)) == -EWOULDBLOCK && clock_monotonic() - start < REPLACE_TIME) {
        pid_t pid = launch_view_holder(state);
        if (pid > 0 && pid != signalled && kill(pid, SIGTERM) < 0 && errno != ESRCH)
            return -errno;
        signalled = pid;
    }
    return result;
}

/* Note in the store's header that there can be no view.  As the owner, in a child: see the head. */
static void tell_unavailable(const char *spool, const struct stat *st, const char *state, int error)
{
    pid_t child = fork();

    if (child == 0) {
        struct fastspool_config config = {0};
        struct fastspool *fs;
        char sentence[FASTSPOOL_ERROR_MAX];
        struct mounts m = {.owner = st->st_uid, .group = st->st_gid};
        snprintf(config.state, sizeof(config.state), "%s", state);
        if (become_owner(&m) == 0 && attach_open(spool, &config, &fs, sentence) == 0)
            launch_view_unavailable(fs, VIEW_NO_MOUNT, -error); /* says it once */
        else
            syslog(LOG_MAIL | LOG_WARNING, "%s: view: it can't be mounted: %s", spool, strerrordesc_np(-error));
        _exit(0);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
}

/* One view a spool, of whichever state, for life.  Where no lock can be kept there is none. */
static int take_place(const struct supervisor *s)
{
    int fd = mounts_open_lock(&s->mounts);

    return fd < 0 ? 0 : viewlock_whole(fd);
}

/* The view of another state lives. */
static int give_way(const char *spool, const char *state)
{
    syslog(LOG_MAIL | LOG_WARNING, "%s: view: that of another state is mounted: the one of %s is not", spool, state);
    fprintf(stderr, "fastspool: %s: view: that of another state is mounted; `fastspool status` says which\n", spool);
    return SUPERVISOR_SECOND;
}

static int complain_of_lock(const char *spool, const char *sentence)
{
    syslog(LOG_MAIL | LOG_ERR, "%s: view: %s", spool, sentence);
    fprintf(stderr, "fastspool: %s: view: %s\n", spool, sentence);
    return 1;
}

/* The lock can't be opened, or not be locked. */
static int refuse_lock(const char *spool, const struct stat *st, const char *state, int error)
{
    char sentence[FASTSPOOL_ERROR_MAX], path[PLACES_PATH_MAX], what[2 * PLACES_PATH_MAX + 128];

    struct rights rights = rights_of_owner(st->st_uid, st->st_gid);
    bool known = owned_check_view(spool, st, state, sentence) < 0;
    rights_back(rights);
    if (known)
        return complain_of_lock(spool, sentence);
    places_in_state(state, PLACES_VIEW_LOCK, path);
    if (error == -EROFS)
        snprintf(what, sizeof(what), "open %s to be written, for which a service's sandbox needs `ReadWritePaths=%s`",
                 path, spool);
    else
        snprintf(what, sizeof(what), "take the lock %s", path);
    return complain(spool, what, error);
}

/* The view of this state lives, or any process of the mail user's has its lock. */
static int give_up(const char *spool, const char *state)
{
    char locker[LOCKER_SENTENCE];

    if (locker_find(state, PLACES_VIEW_LOCK, "view", locker))
        return complain_of_lock(spool, locker);
    fprintf(stderr, "fastspool: %s: another view runs\n", spool);
    return SUPERVISOR_SECOND;
}

/* Is state directory @state missing, and is it not to be made? */
static bool is_mistyped(const char *spool, const struct stat *st, const char *state)
{
    char error[FASTSPOOL_ERROR_MAX], real[PATH_MAX];
    struct stat found;

    if (!realpath(spool, real))
        return false;
    struct rights rights = rights_of_owner(st->st_uid, st->st_gid);
    bool is = stat(state, &found) < 0 && errno == ENOENT && state_check_new(real, state, error) == -EBUSY;
    rights_back(rights);
    return is;
}

/* Whether it can be mounted at all shows the first time. */
static int begin(struct supervisor *s, const char *spool)
{
    const char *step;
    int result = mounts_find(&s->mounts, spool, &step);

    if (result == 0) {
        step = "take the lock of the spool's view";
        result = take_place(s);
        s->second = result == -EWOULDBLOCK; /* a fork that fails has the same number */
    }
    if (result == 0)
        result = mounts_begin(&s->mounts, spool, &step);
    if (result == 0) {
        step = "start";
        result = s->signals = take_signals();
    }
    if (result >= 0) {
        step = "mount a FUSE file system";
        result = start_server(s);
    }
    if (result < 0 && !s->second)
        fprintf(stderr, "fastspool: %s: view: %s: %s\n", spool, step, strerrordesc_np(-result));
    return result;
}

/* The server is the owner, and can't mount; and it sees the mounts that are there when its namespace is made. */
static void prepare_memory(const char *spool, const struct stat *st, uint64_t memory)
{
    char real[PATH_MAX];

    if (realpath(spool, real))
        runtime_prepare(real, st, memory);
}

int supervisor_run(const char *spool, const char *state, uint64_t memory, bool replaces)
{
    static struct supervisor s = {.fuse = -1, .view = -1, .server = -1, .hand = -1};
    char path[PLACES_PATH_MAX];
    struct stat st;

    openlog("fastspool", LOG_PID, LOG_MAIL);
    umask(077);
    if (stat(spool, &st) < 0)
        return complain(spool, "find the spool", -errno);
    places_in_state(spool, PLACES_STATE, path);
    s.state = state ? state : path;
    if (is_mistyped(spool, &st, s.state))
        return give_way(spool, s.state);
    int result = replaces ? replace(s.state, &st) : viewlock_take(s.state, &st);
    if (result == -EWOULDBLOCK)
        return give_up(spool, s.state);
    if (result < 0)
        return refuse_lock(spool, &st, s.state, result);
    prepare_memory(spool, &st, memory);
    result = begin(&s, spool);
    if (s.second)
        return give_way(spool, s.state);
    if (result < 0) {
        tell_unavailable(spool, &st, s.state, result);
        return SUPERVISOR_UNAVAILABLE;
    }
    serve(&s);
    notify("STOPPING=1");
    end(&s);
    return s.failed;
}

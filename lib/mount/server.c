/* SPDX-License-Identifier: MIT
 *
 * The view's server: the process that answers the kernel's requests.  It is the spool's owner.
 *
 * Happy path:
 *   - Attach the store, and answer requests in as many threads as there are callers.
 *   - Beside them one thread, the director, imports what lies on the disk, a directory at a time, and asks the
 *     supervisor to mount each.  When all are mounted it imports once more, for what came meanwhile.  Then it says
 *     in the segment that everything is in the store: from now on no process with the library looks at the disk.
 *     A second later it imports again: a call that resolved its path before the mount may end after it.
 *   - A directory that is made later (a named queue) is imported and mounted in the same way.
 *   - The disk below is looked at each minute: at what the import has left, and for what came since.  A process in a
 *     mount namespace of its own may see no view: Exim there puts mail on the disk.
 *
 * Failure modes:
 *   - The server is killed: the kernel answers its callers with ENOTCONN, and the supervisor starts another.  The
 *     segment goes on saying that all is in the store, which is true: below the view lies a guard (mounts.h).
 *   - An Exim has a message of the disk locked: nothing is mounted until it lets go, because its next call by path
 *     would meet the view.  A line says so.  Before the first mount nothing is moved either, because a program
 *     without the library sees the disk alone.
 *   - The store has no room for what lies on the disk: the same.
 *   - The store is gone (its segment was removed, or another one made), or FAILED: the server ends, and the
 *     supervisor starts one that attaches to what there is then.
 *   - The supervisor is killed, and the kernel kills this process, which may be in a call that takes long: the next
 *     supervisor's server waits until it is gone.
 *   - This process never touches the view that it serves: it would wait for itself, for ever.
 */
#include "mount/server.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/places.h"
#include "fastspool.h"
#include "mount/control.h"
#include "plain/import.h"
#include "spool/exim.h"
#include "spool/loss.h"
#include "spool/owned.h"
#include "spool/registry.h"
#include "store/inside.h"
#include "view/requests.h"
#include "view/shares.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define WHOLE_MAX  (3600 * NS_PER_S) /* for an instant in which no message of the disk is locked */
#define LOOK_SOON  (10 * NS_PER_MS)  /* at first */
#define LOOK_AGAIN NS_PER_S          /* at the store, and at what an Exim has locked */
#define LOOK_BELOW (60 * NS_PER_S)   /* at the disk below the view */
#define SILENCE    (10 * NS_PER_S)   /* before a line says what is waited for */

struct server {
    struct fastspool *fs;
    int spool; /* descriptor of the spool directory, in a namespace without a view */
    int control;
    enum fastspool_durability durability;
    struct import_result imported;
    uint64_t looked;  /* the last pass */
    bool late;        /* a call that resolved its path before the mount may have ended since the last pass */
    bool again;       /* an earlier server's view lies over the disk */
    bool told;        /* what is waited for, or why an import fails */
    uint64_t failing; /* since the first look below the view that could import nothing; 0: the last one could */
};

static int complain(const char *spool, const char *what, const char *why)
{
    syslog(LOG_MAIL | LOG_ERR, "%s: view: %s: %s", spool, what, why);
    return 1;
}

/* ---- the store ---- */

static bool is_configured(const struct fastspool_config *config, const char *spool)
{
    for (size_t i = 0; i < config->spools; i++) {
        if (strcmp(config->spool[i], spool) == 0)
            return true;
    }
    return false;
}

static int lock_whole(int fd, int command)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(fd, command, &whole) < 0 ? -errno : 0;
}

/* Wait until an earlier server is gone, and keep the next one waiting for this one.  A killed process ends the call
 * that it is in: where its supervisor was killed before it, it may still rename a file of the disk, after a new import
 * has decided what the names mean.  A record lock, which no child inherits. */
static int take_turn(const char *spool, const char *state)
{
    char path[PLACES_PATH_MAX];
    uint64_t start = clock_monotonic();

    places_in_state(state, PLACES_SERVER_LOCK, path);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600); /* for life */
    int result = fd < 0 ? -errno : lock_whole(fd, F_SETLK);
    while (result == -EAGAIN && clock_monotonic() - start < SILENCE) {
        clock_sleep(LOOK_SOON);
        result = lock_whole(fd, F_SETLK);
    }
    if (result != -EAGAIN)
        return result;
    complain(spool, "not mounted yet",
             "another process has the lock " PLACES_SERVER_LOCK
             ": an earlier server, whose disk does not answer, or what `fastspool status` names");
    return lock_whole(fd, F_SETLKW);
}

/* The lock can't be opened, or not be locked. */
static int refuse_turn(const char *spool, const char *state, int error)
{
    char why[FASTSPOOL_ERROR_MAX];
    struct stat st;
    bool known = stat(spool, &st) == 0 && owned_check_view(spool, &st, state, why) < 0;

    return complain(spool, known ? "not mounted" : "wait for an earlier server", known ? why : strerrordesc_np(-error));
}

static int attach(struct server *server, const char *spool, const char *state)
{
    struct fastspool_config config, registered;
    char error[FASTSPOOL_ERROR_MAX];
    int result = fastspool_config_load(&config, NULL, false, error);

    int found = result == 0 && !is_configured(&config, spool) ? registry_find(spool, &registered) : 0;
    if (found > 0)
        config = registered;
    if (found < 0)
        result = error_set(error, found, "can't look into " PLACES_REGISTRY ": %s", strerrordesc_np(-found));
    if (result == 0)
        snprintf(config.state, sizeof(config.state), "%s", state);
    if (result == 0)
        result = fastspool_attach(spool, &config, &server->fs, error);
    server->durability = config.durability;
    if (result == 0)
        inside_write_for_others(server->fs);
    if (result < 0)
        syslog(LOG_MAIL | LOG_ERR, "view: %s", error); /* it names the spool */
    return result < 0;
}

/* ---- the director ---- */

/* Say once why the disk's messages can't be imported, if they couldn't for long. */
static void tell_of_error(struct server *server, uint64_t since)
{
    if (server->told || clock_monotonic() - since < SILENCE)
        return;
    server->told = true;
    complain(inside_spool(server->fs), "import", server->imported.error);
}

/* Say once what keeps the disk's messages there, before the first mount. */
static void tell_of_wait(struct server *server, int error, bool whole, uint64_t since)
{
    const struct import_result *result = &server->imported;

    if (error < 0) {
        tell_of_error(server, since);
    } else if (!server->told && (whole || clock_monotonic() - since >= SILENCE)) {
        server->told = true;
        syslog(LOG_MAIL | LOG_NOTICE, "%s: view: not mounted yet: a process works on %u of the messages on the disk%s",
               inside_spool(server->fs), result->locked, whole ? "; nothing is moved until it ends" : "");
    }
}

/* Import everything, or, if @whole, all or nothing.  0: done.  1: other processes have messages locked.  -errno: the
 * import's error says why. */
static int import_all(struct server *server, bool whole)
{
    struct import_result *result = &server->imported;
    uint64_t before = result->files;

    server->looked = clock_monotonic();
    int error = import_run(server->fs, server->spool, whole, result);
    if (result->files > before)
        syslog(LOG_MAIL | LOG_INFO, "%s: view: imported %llu message%s in %llu file%s from the disk",
               inside_spool(server->fs), (unsigned long long)result->messages, result->messages == 1 ? "" : "s",
               (unsigned long long)result->files, result->files == 1 ? "" : "s");
    inside_set_left(server->fs, result->locked, result->conflicts, result->left);
    return error < 0 ? error : result->locked > 0;
}

/* Wait for a message of the supervisor, @pause nanoseconds at most.  Is there one?  Ends the process with the
 * supervisor, and with the store. */
static bool wait_for(const struct server *server, short events, uint64_t pause)
{
    char lost[FASTSPOOL_ERROR_MAX] = "";
    struct pollfd poll_for = {.fd = server->control, .events = (short)(events | POLLRDHUP)};

    if (loss_look(server->fs, lost) != LOSS_NOTHING || inside_failed(server->fs)) {
        complain(inside_spool(server->fs), "the store is gone, or failed", lost);
        _exit(1);
    }
    poll(&poll_for, 1, (int)(pause / NS_PER_MS));
    if (poll_for.revents & POLLHUP) /* it is dead, and has unmounted nothing */
        _exit(1);
    if (poll_for.revents & POLLRDHUP) { /* it has unmounted everything */
        inside_set_view(server->fs, false);
        inside_set_left(server->fs, 0, 0, 0);
        _exit(0);
    }
    return poll_for.revents & POLLIN;
}

/* The next message, 0: there is none. */
static uint32_t listen_for(const struct server *server, struct control *message)
{
    return wait_for(server, POLLIN, LOOK_AGAIN) && control_receive(server->control, message) > 0 ? message->kind : 0;
}

/* Import until nothing is left on the disk.  @whole: all or nothing; but where runners of a large queue hold one lock
 * after another, that instant never comes.  A reception that began before a mount ends after it: its -H file is in the
 * view then, and its -D file on the disk until it is imported.  So the first looks follow closely. */
static void import_until_done(struct server *server, bool whole)
{
    uint64_t since = clock_monotonic(), pause = LOOK_SOON;
    bool all = whole;

    for (int left; (left = import_all(server, all)) != 0; all = whole && clock_monotonic() - since < WHOLE_MAX) {
        tell_of_wait(server, left, all, since);
        wait_for(server, 0, pause);
        pause = pause * 2 < LOOK_AGAIN ? pause * 2 : LOOK_AGAIN;
    }
    server->told = false;
}

/* The directory @name is in the store: make it on the disk, as a place to mount at, and ask for its mount. */
static void mount(const struct server *server, const char *name)
{
    struct stat st;

    if (fastspool_stat(server->fs, name, &st) < 0 || !S_ISDIR(st.st_mode))
        return;
    char *queue = strdup(name), *slash = queue ? strchr(queue, '/') : NULL;
    if (slash) {
        *slash = '\0';
        mkdirat(server->spool, queue, 0750);
    }
    free(queue);
    if (mkdirat(server->spool, name, st.st_mode & 07777) < 0 && errno != EEXIST)
        complain(inside_spool(server->fs), name, strerrordesc_np(errno));
    control_send(server->control, CONTROL_MOUNT, 0, name);
}

/* Call mount() for each top directory below directory @path, which is the spool or a queue. */
static void mount_below(const struct server *server, const char *path)
{
    struct fastspool_entry entry;
    int d = fastspool_open(server->fs, path, O_RDONLY | O_DIRECTORY, 0);

    for (uint64_t after = 0; d >= 0 && fastspool_list(server->fs, d, after, &entry, 1) == 1; after = entry.position) {
        char name[sizeof(entry.name) * 2];
        snprintf(name, sizeof(name), "%s%s%s", path, *path ? "/" : "", entry.name);
        if (entry.type != DT_DIR)
            continue;
        if (exim_is_place(name))
            mount(server, name);
        else if (!*path)
            mount_below(server, name);
    }
    if (d >= 0)
        fastspool_close(server->fs, d);
}

/* In a new spool: the directories that Exim would make, so that whoever comes first finds the view there. */
static void make_directories(const struct server *server)
{
    static const char *const names[] = {"input", "msglog"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        int result = fastspool_mkdir(server->fs, names[i], 0750);
        if (result < 0 && result != -EEXIST)
            complain(inside_spool(server->fs), names[i], strerrordesc_np(-result));
    }
}

/* All that was asked for is mounted. */
static void follow_mount(struct server *server)
{
    import_until_done(server, false);
    inside_set_view(server->fs, true);
    server->late = true;
}

/* Once a minute, and once after a mount: is there anything on the disk?  The operator may have seen to what can't be
 * imported. */
static void look_below(struct server *server)
{
    uint64_t now = clock_monotonic();

    if (!server->late && now - server->looked < LOOK_BELOW)
        return;
    server->late = false;
    if (import_all(server, false) >= 0) {
        server->failing = 0;
        server->told = false;
        return;
    }
    server->failing = server->failing ? server->failing : now;
    tell_of_error(server, server->failing);
}

static void *direct(void *argument)
{
    struct server *server = argument;
    struct control message;

    import_until_done(server, !server->again);
    make_directories(server);
    mount_below(server, "");
    control_send(server->control, CONTROL_READY, 0, NULL);
    for (;;) {
        uint32_t kind = listen_for(server, &message);
        if (kind == CONTROL_UP) {
            follow_mount(server);
        } else if (kind == CONTROL_ADOPT) {
            import_until_done(server, false);
            mount(server, message.name);
        } else {
            look_below(server);
        }
    }
    return NULL;
}

/* ---- the start ---- */

static int serve(struct server *server, int fuse)
{
    const struct requests requests = {server->fs, geteuid(), server->durability};
    pthread_t director;

    int result = -pthread_create(&director, NULL, direct, server);
    if (result == 0)
        result = requests_serve(&requests, fuse);
    return result < 0 ? complain(inside_spool(server->fs), "serve", strerrordesc_np(-result)) : 0;
}

int server_run(const char *spool, const char *state, int fuse, int control, bool again)
{
    struct server server = {
        .spool = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .control = control, .again = again};
    struct rlimit files;

    openlog("fastspool", LOG_PID, LOG_MAIL);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* each open file takes one */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    shares_begin();
    if (server.spool < 0)
        return complain(spool, "open the spool", strerrordesc_np(errno));
    int result = take_turn(spool, state);
    if (result < 0)
        return refuse_turn(spool, state, result);
    if (attach(&server, spool, state) != 0)
        return 1;
    if (again) /* also for a new store: the disk is hidden, and was imported before */
        inside_set_view(server.fs, true);
    return serve(&server, fuse);
}

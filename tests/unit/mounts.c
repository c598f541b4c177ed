/* SPDX-License-Identifier: MIT
 *
 * Mounting the view, without a server: what is found on the disk, a connection that is ended by force, and what an
 * earlier supervisor has left.
 *
 * Nothing here is mounted where others see it.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <syslog.h>

static int first_fails; /* the error of an open of process 1's mount namespace */
static bool list_fails; /* the list of mounts can't be opened */
static unsigned lines;  /* in syslog */
static char said[512];

static inline int play_open(const char *path, int flags);
static inline FILE *play_fopen(const char *path, const char *mode);
static inline void __attribute__((format(printf, 2, 3))) play_syslog(int priority, const char *line, ...);

#define open(path, flags) play_open(path, flags)
#define fopen             play_fopen
#define syslog            play_syslog
#include "../../lib/mount/mounts.c"
#undef open
#undef fopen
#undef syslog

#include "../asleep.h"
#include "base/namespace.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWNER 1234

static inline int play_open(const char *path, int flags)
{
    if (first_fails && strcmp(path, "/proc/1/ns/mnt") == 0) {
        errno = first_fails;
        return -1;
    }
    return open(path, flags);
}

static inline FILE *play_fopen(const char *path, const char *mode)
{
    if (list_fails && strcmp(path, "/proc/self/mountinfo") == 0) {
        errno = EMFILE;
        return NULL;
    }
    return fopen(path, mode);
}

static inline void play_syslog(int priority, const char *line, ...)
{
    va_list arguments;

    va_start(arguments, line);
    vsnprintf(said, sizeof(said), line, arguments);
    va_end(arguments);
    lines += priority == (LOG_MAIL | LOG_WARNING) && strstr(said, "process 1");
}

static char spool[] = "/tmp/fastspool-mounts-XXXXXX";

static void make(const char *name, uid_t owner)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", spool, name);
    cr_assert(mkdir(path, 0755) == 0 && chown(path, owner, owner) == 0);
}

static void set_up(void)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert(mkdtemp(spool) && chown(spool, OWNER, OWNER) == 0);
}

static void tear_down(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", spool);
    cr_assert_eq(system(command), 0);
}

TestSuite(mounts, .init = set_up, .fini = tear_down, .timeout = 60);

static void begin(struct mounts *m)
{
    const char *step;
    int result = mounts_find(m, spool, &step);

    result = result < 0 ? result : mounts_begin(m, spool, &step);
    cr_assert_eq(result, 0, "%s: %s", step, strerror(-result));
}

static bool is_found(char (*names)[MOUNTS_NAME], size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

/* The server is the mail user's: it names each place in one way, so that none is mounted over twice. */
Test(mounts, names)
{
    static const char *const places[] = {"input", "msglog", "q/input", "q.1/Finput", "msglog.OLD"};
    static const char *const others[] = {"./input",   "/input",    "input/",   "input/.",  "q//input", "q/./input",
                                         "q/input/",  "./q/input", "../input", ".q/input", "db",       "q",
                                         "q/input/a", "",          "//",       "input/.."};

    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
        cr_assert(exim_is_place(places[i]), "%s is none", places[i]);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        cr_assert(!exim_is_place(others[i]), "%s is one", others[i]);
}

/* Top directories of the spool and of queues are found: the owner's and root's, and what no link leads to. */
Test(mounts, on_disk)
{
    char names[16][MOUNTS_NAME], link[128], target[128];
    struct mounts m;

    make("input", OWNER);
    make("msglog", 0);
    make("db", OWNER);
    make("q", OWNER);
    make("q/input", OWNER);
    make("q/msglog", OWNER + 1);
    make("foreign", OWNER + 1);
    make("foreign/input", OWNER);
    snprintf(link, sizeof(link), "%s/link", spool);
    snprintf(target, sizeof(target), "%s/q", spool);
    cr_assert_eq(symlink(target, link), 0);
    begin(&m);
    int count = mounts_on_disk(&m, names, 16);
    cr_assert_eq(count, 3, "%d are found", count);
    cr_assert(is_found(names, 3, "input") && is_found(names, 3, "msglog") && is_found(names, 3, "q/input"));
    cr_assert_eq(mounts_on_disk(&m, names, 2), 2);
}

/* A server that never answers: who asks waits, and gets an error when the connection is ended.  Then the mount answers
 * ENOTCONN for ever. */
Test(mounts, abort_connection)
{
    struct mounts m;
    struct statfs st;
    unsigned connection;

    make("input", OWNER);
    begin(&m);
    int fuse = open("/dev/fuse", O_RDWR);
    if (fuse < 0)
        cr_skip_test("needs /dev/fuse");
    int view = mounts_view(&m, fuse, &connection);
    cr_assert(view >= 0 && connection > 0, "mount: %s", strerror(-view));
    pid_t asks = fork();
    if (asks == 0)
        _exit(fstatfs(view, &st) == 0 ? 0 : errno);
    cr_assert_eq(poll(NULL, 0, 300), 0);
    cr_assert_eq(waitpid(asks, NULL, WNOHANG), 0, "who asks does not wait");
    cr_assert_eq(mounts_abort(connection), 0);
    int status;
    cr_assert_eq(waitpid(asks, &status, 0), asks);
    cr_assert(WIFEXITED(status) && (WEXITSTATUS(status) == ECONNABORTED || WEXITSTATUS(status) == ENOTCONN));
    cr_assert(fstatfs(view, &st) < 0 && errno == ENOTCONN);
    cr_assert_eq(mounts_over(&m, view, "input"), -ENOTCONN);
    mounts_drop(view);
    cr_assert(mounts_abort(connection) < 0, "the connection is still there");
}

/* The spool is watched by its directory, not by its name. */
Test(mounts, removed_spool)
{
    struct mounts m;

    begin(&m);
    cr_assert(mounts_has_spool(&m));
    cr_assert_eq(rmdir(spool), 0);
    cr_assert(!mounts_has_spool(&m));
}

/* ---- what can't be known ---- */

static void limit_descriptors(rlim_t most)
{
    const struct rlimit limit = {most, 4096};

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Without a descriptor nothing is gone, not mounted, or taken away. */
Test(mounts, without_descriptors)
{
    char names[4][MOUNTS_NAME];
    struct mounts m;

    make("input", OWNER);
    begin(&m);
    cr_assert_eq(mounts_on_disk(&m, names, 4), 1);
    cr_assert_eq(mounts_remove(&m, "input"), 0);
    cr_assert(!mounts_is_over(&m, 1, "input"));
    limit_descriptors(0);
    int found = mounts_on_disk(&m, names, 4), removed = mounts_remove(&m, "input"), layers = count_layers(m.spool);
    bool over = mounts_is_over(&m, 1, "input"), behind = is_behind_fuse("/tmp");
    limit_descriptors(1024);
    cr_assert_eq(found, -EMFILE, "%d directories are found", found);
    cr_assert_eq(removed, -EMFILE, "%d layers are left", removed);
    cr_assert_eq(layers, -EMFILE, "%d layers are counted", layers);
    cr_assert(over && behind, "over %d, behind %d", over, behind);
    int disk = m.disk;
    m.disk = -1;
    cr_assert(mounts_has_spool(&m), "the spool is taken for gone");
    m.disk = disk;
}

/* A queue's directory that the kernel has no memory or descriptor for is not taken for none. */
Test(mounts, some_descriptors)
{
    char names[4][MOUNTS_NAME];
    struct mounts m;

    make("q", OWNER);
    make("q/input", OWNER);
    begin(&m);
    cr_assert_eq(mounts_on_disk(&m, names, 4), 1);
    int next = dup(m.disk);
    close(next);
    for (rlim_t left = 0; left < 3; left++) { /* the spool's, the queue's, that of q/input */
        limit_descriptors((rlim_t)next + left);
        int found = mounts_on_disk(&m, names, 4);
        limit_descriptors(1024);
        cr_assert_eq(found, -EMFILE, "with %u descriptors %d", (unsigned)left, found);
    }
}

/* Who may not look at process 1's mounts, in a container, says so and goes on; who can't, for now, does not. */
Test(mounts, first_process)
{
    const int refused[] = {EACCES, EPERM, ENOENT}, failed[] = {ENFILE, EMFILE, ENOMEM};
    struct mounts m;
    const char *step;

    begin(&m);
    lines = 0; /* where the test runs, process 1 may be hidden */
    for (unsigned i = 0; i < 3; i++) {
        first_fails = refused[i];
        begin(&m);
        cr_assert_eq(lines, i + 1);
        first_fails = failed[i];
        cr_assert_eq(mounts_find(&m, spool, &step), -failed[i]);
        cr_assert_not_null(strstr(step, "process 1"));
    }
}

/* ---- what was left ---- */

static int open_fuse(void)
{
    int fuse = open("/dev/fuse", O_RDWR);

    if (fuse < 0)
        cr_skip_test("needs /dev/fuse");
    return fuse;
}

/* How many views are mounted in this namespace. */
static int views(void)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    struct mountinfo layer;
    int count = 0;

    while (mountinfo_next(file, &layer))
        count += layer.view;
    fclose(file);
    return count;
}

/* A mount that can't be found again could not be ended by force: it goes. */
Test(mounts, view_without_a_number)
{
    unsigned connection;
    struct mounts m;

    begin(&m);
    int before = views(), fuse = open_fuse();
    list_fails = true;
    int view = mounts_view(&m, fuse, &connection);
    list_fails = false;
    cr_assert_eq(view, -EMFILE, "%d", view);
    cr_assert_eq(views(), before);
}

/* A view over @path, whose server never answers. */
static int view_at(const struct mounts *m, const char *path, unsigned *connection)
{
    struct mounts there = *m;
    struct mountinfo layer;

    there.disk = open(path, O_PATH | O_DIRECTORY);
    int view = mount_fuse(&there, open_fuse());
    cr_assert(view >= 0 && find_layer(mount_of(view), &layer) == 1, "%s: %s", path, strerror(-view));
    *connection = layer.minor;
    return view;
}

/* Does who asks get an error?  Else it waits for a server, of which there is none. */
static bool has_ended(int view)
{
    struct statfs st;
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(!(fstatfs(view, &st) < 0 && errno == ENOTCONN));
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (asleep_in(child, SYS_fstatfs))
            kill(child, SIGKILL);
        usleep(1000);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Views of an earlier supervisor go, and their connections end.  Another spool's goes, and lives on elsewhere.  One
 * behind a FUSE file system, whose server may never answer, is let alone, and nobody waits for it. */
Test(mounts, clean)
{
    char path[160], options[96], other[] = "/tmp/fastspool-other-XXXXXX";
    unsigned ours, theirs, hidden;
    struct mounts m;

    make("input", OWNER);
    begin(&m);
    int before = views();
    cr_assert(mkdtemp(other));
    snprintf(path, sizeof(path), "%s/hidden", other);
    cr_assert_eq(mkdir(path, 0755), 0);
    int fuse = open_fuse();
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    strcat(path, "/x");
    cr_assert_eq(mkdir(path, 0755), 0);
    view_at(&m, path, &hidden);
    path[strlen(path) - 2] = '\0';
    cr_assert_eq(mount("any", path, "fuse", 0, options), 0);
    snprintf(path, sizeof(path), "%s/y", other);
    cr_assert_eq(mkdir(path, 0755), 0);
    int of_theirs = view_at(&m, path, &theirs);
    snprintf(path, sizeof(path), "%s/input", spool);
    int of_ours[2] = {view_at(&m, path, &ours), view_at(&m, path, &ours)};
    cr_assert_eq(views(), before + 4);
    list_fails = true;
    cr_assert_eq(clean(&m), -EMFILE, "a list that can't be read has no views");
    list_fails = false;
    cr_assert_eq(clean(&m), 0);
    cr_assert_eq(views(), before + 1, "%d views, and %d before", views(), before);
    cr_assert(has_ended(of_ours[0]) && has_ended(of_ours[1]), "a connection has not ended");
    cr_assert(!has_ended(of_theirs), "another spool's connection has ended");
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(mounts_abort(i ? theirs : hidden), 0);
    snprintf(path, sizeof(path), "umount -l %s/hidden; umount -l %s/hidden/x; rm -rf %s", other, other, other);
    cr_assert_eq(system(path), 0);
}

static bool refuses(const void *context)
{
    struct stat *seen = (struct stat *)(uintptr_t)context;

    cr_assert_eq(stat(spool, seen), 0);
    return false;
}

/* Who doesn't accept what process 1 sees is back where it was. */
Test(mounts, back_from_process_1)
{
    struct stat before, there, after;

    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("own", spool, "tmpfs", 0, NULL), 0);
    cr_assert_eq(stat(spool, &before), 0);
    cr_assert(!namespace_enter_first(refuses, &there));
    cr_assert_eq(stat(spool, &after), 0);
    cr_assert_neq(there.st_dev, before.st_dev, "process 1 has the same");
    cr_assert(after.st_dev == before.st_dev && after.st_ino == before.st_ino, "it has stayed there");
    cr_assert_eq(umount2(spool, MNT_DETACH), 0);
}

/* The kernel lets this process into no namespace any more. */
static bool refuses_for_good(const void *context)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setns, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof(program) / sizeof(*program), program};

    (void)context;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        _exit(1);
    return false;
}

static void go_there_and_back(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        _exit(2);
    namespace_enter_first(refuses_for_good, NULL);
    _exit(3); /* it goes on, where others' files are */
}

/* The exit status of @run in a child, which then is @run's own. */
static void run_in_child(void (*run)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0)
        run();
    _exit(waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* With a process 1 of its own: not every one lets others look at its namespace. */
static void be_process_1(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("own", "/proc", "proc", 0, NULL) < 0)
        _exit(1);
    run_in_child(go_there_and_back);
}

/* ---- in a chroot ---- */

static bool says(const void *context)
{
    return *(const bool *)context;
}

static void must(bool well)
{
    if (!well)
        _exit(1);
}

/* @root is a mount point, as that of a container of an unshare with chroot(8), or a plain directory. */
static void enter_chroot(bool mounted)
{
    char root[PATH_MAX + 8], proc[PATH_MAX + 16];

    snprintf(root, sizeof(root), "%s/root", spool);
    snprintf(proc, sizeof(proc), "%s/proc", root);
    must(mkdir(root, 0755) == 0 && (!mounted || mount(root, root, NULL, MS_BIND, NULL) == 0));
    must(mkdir(proc, 0755) == 0 && mount("own", proc, "proc", 0, NULL) == 0);
    must(chroot(root) == 0 && chdir("/") == 0);
}

/* Whether @accept is said or not, the root of who goes to process 1 is the same chroot: process 1 lives in it, too. */
static void go_from_a_chroot(void)
{
    struct stat before, after;

    must(unshare(CLONE_NEWNS) == 0 && stat("/", &before) == 0);
    for (int accept = 0; accept < 2; accept++) {
        bool answer = accept;
        must(namespace_enter_first(says, &answer) == answer && stat("/", &after) == 0);
        must(before.st_dev == after.st_dev && before.st_ino == after.st_ino);
    }
    _exit(0);
}

static void be_process_1_in_a_chroot(void)
{
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    enter_chroot(false);
    run_in_child(go_from_a_chroot);
}

/* A view would be mounted outside.  It is not, and the process is still where it was. */
static void look_for_the_spool_in_a_chroot(void)
{
    struct mounts m = {.starter = -1, .clean = -1, .work = -1};
    struct stat before, after;
    const char *step;

    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    enter_chroot(true);
    must(stat("/", &before) == 0 && mounts_find(&m, "/proc", &step) == -EINVAL && stat("/", &after) == 0);
    must(before.st_dev == after.st_dev && before.st_ino == after.st_ino);
    _exit(0);
}

/* The status of a process 1 of a new PID namespace. */
static int status_of_process_1(void (*run)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0 && unshare(CLONE_NEWNS | CLONE_NEWPID) == 0)
        run_in_child(run);
    if (child == 0)
        _exit(1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    return status;
}

/* Nobody leaves a chroot by the way to process 1. */
Test(mounts, to_process_1_from_a_chroot)
{
    cr_assert_eq(status_of_process_1(be_process_1_in_a_chroot), 0);
}

Test(mounts, no_view_from_a_chroot)
{
    cr_assert_eq(status_of_process_1(look_for_the_spool_in_a_chroot), 0);
}

/* Who has no way back does nothing more. */
Test(mounts, no_way_back_from_process_1)
{
    int status = status_of_process_1(be_process_1);

    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 127, "status %x", (unsigned)status);
}

/* SPDX-License-Identifier: MIT
 *
 * A process uses a name, while another one puts new files and directories in its place all the time.
 *
 *      replaced DIRECTORY kernel|library|both SEED COUNT [--spoil]
 *
 * Happy path: in each scene one process replaces the file (or directory) `name` in one way, and another one makes calls
 * on that name, at random, until it has made COUNT and has seen as many replacements.  `both`: the first has the
 * library, the second goes through the kernel.  A call gets what the name had at some instant within it, so it may fail
 * only as on a disk: not at all where the name always exists, and never with ESTALE.  An open file has the content of
 * one file.  Nothing is printed if all is right.
 *
 * Failure modes: each call that fails otherwise is printed, with its error and how often, and the status is 1.  --spoil
 * leaves an instant without the name where there may be none.
 */
#include "../random.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT   "0123456789"
#define LENGTH 10
#define ERRORS 134 /* more than there are */
#define USER   23104
#define SHARED 9 /* descriptor of the memory that both processes have */

static uint64_t state;
static int problems;
static uint64_t *replaced; /* how often, by the other process */

static unsigned some(unsigned below)
{
    return (unsigned)(random_next(&state) % below);
}

/* ---- the process that replaces ---- */

static void make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);

    if (fd < 0 || write(fd, TEXT, LENGTH) != LENGTH)
        _exit(7);
    close(fd);
}

/* The other process may have made the name. */
static void expect(int result)
{
    if (result < 0 && errno != EEXIST && errno != ENOENT)
        _exit(7);
}

static void rename_over(void)
{
    make("new");
    expect(rename("new", "name"));
}

static void rename_spoiled(void)
{
    make("new");
    unlink("name");
    sched_yield();
    expect(rename("new", "name"));
}

static void unlink_and_create(void)
{
    unlink("name");
    make("name");
}

/* A file of the other process's user, which he may not write to. */
static void unlink_and_protect(void)
{
    make("new");
    expect(chown("new", USER, USER));
    expect(chmod("new", 0400));
    unlink("name");
    expect(rename("new", "name"));
}

static void unlink_and_link(void)
{
    make("new");
    unlink("name");
    expect(link("new", "name"));
    unlink("new");
}

static void rmdir_and_mkdir(void)
{
    rmdir("name");
    expect(mkdir("name", 0700));
}

/* One of the names becomes anything, or nothing. */
static int change_one(void)
{
    static const char *const names[] = {"name", "other", "below/name"};
    const char *one = names[some(3)];

    switch (some(8)) {
    case 0:
    case 1:
        return close(open(one, O_WRONLY | O_CREAT, 0600));
    case 2:
        return unlink(one);
    case 3:
        return mkdir(one, 0700);
    case 4:
        return rmdir(one);
    case 5:
        return link("name", one);
    case 6:
        return rename(one, names[some(3)]);
    default:
        return mkdir("below", 0700) < 0 ? rmdir("below") : 0;
    }
}

static void change(void)
{
    change_one();
}

static void remove_at_once(void)
{
    if (unlink("name") < 0)
        rmdir("name");
}

/* ---- the process that uses the name ---- */

static int use(int fd)
{
    char text[2 * LENGTH];

    if (fd < 0)
        return -1;
    ssize_t got = read(fd, text, sizeof(text));
    if (got != 0 && got != LENGTH)
        problems++, printf("a file of %zd bytes\n", got);
    close(fd);
    return 0;
}

static int do_close(int fd)
{
    return fd < 0 ? -1 : close(fd);
}

static int do_read(void)
{
    return use(open("name", O_RDONLY));
}

static int do_open_for_writing(void)
{
    return do_close(open("name", O_WRONLY));
}

static int do_append(void)
{
    return use(open("name", O_RDWR | O_APPEND));
}

static int do_create(void)
{
    return use(open("name", O_RDWR | O_CREAT, 0600));
}

static int do_creat(void)
{
    struct stat st;
    int fd = creat("name", 0600);

    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_size != 0))
        problems++, printf("a file is not truncated\n");
    return do_close(fd);
}

static int do_empty(void)
{
    struct stat st;
    int fd = open("name", O_RDONLY | O_CREAT | O_TRUNC, 0600);

    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_size != 0))
        problems++, printf("a file is not truncated\n");
    return do_close(fd);
}

/* As a user who may make files here, but not open the other process's for writing. */
static int do_create_own(void)
{
    struct stat st;
    int fd = open("name", O_RDWR | O_CREAT, 0600);

    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != USER || (st.st_mode & 0777) != 0600))
        problems++, printf("a protected file is opened\n");
    return do_close(fd);
}

static int do_create_new(void)
{
    return do_close(open("name", O_RDWR | O_CREAT | O_EXCL, 0600));
}

static int do_stat(void)
{
    struct stat st;
    return stat("name", &st);
}

static int do_statx(void)
{
    struct statx st;
    return statx(AT_FDCWD, "name", AT_STATX_FORCE_SYNC, STATX_ALL, &st);
}

static int do_access(void)
{
    return access("name", R_OK | W_OK);
}

static int do_chmod(void)
{
    return chmod("name", 0700);
}

static int do_chown(void)
{
    return chown("name", getuid(), getgid());
}

static int do_utimes(void)
{
    return utimensat(AT_FDCWD, "name", NULL, 0);
}

static int do_truncate(void)
{
    return truncate("name", LENGTH);
}

static int do_link(void)
{
    int result = link("name", "other");

    if (result == 0)
        unlink("other");
    return result;
}

static int do_open_directory(void)
{
    return do_close(open("name", O_RDONLY | O_DIRECTORY));
}

static int do_open_below(void)
{
    return do_close(open("name/file", O_RDONLY));
}

static int do_unlink(void)
{
    return unlink("name");
}

static int do_mkdir(void)
{
    return mkdir("name", 0700);
}

static int do_rmdir(void)
{
    return rmdir("name");
}

/* The library has no mknod. */
static int do_mknod(void)
{
    int result = mknod("name", S_IFREG | 0600, 0);
    return result < 0 && errno == EPERM && getenv("LD_PRELOAD") ? 0 : result;
}

static int do_make_link(void)
{
    return link("stays", "name");
}

static int do_link_other(void)
{
    return link("other", "name");
}

static int do_rename(void)
{
    return rename("name", "other");
}

static int do_rename_back(void)
{
    return rename("other", "name");
}

static int do_rename_new(void)
{
    return renameat2(AT_FDCWD, "other", AT_FDCWD, "name", RENAME_NOREPLACE);
}

static int do_rename_below(void)
{
    return rename("name", "below/name");
}

static int do_create_below(void)
{
    return do_close(open("below/name", O_RDWR | O_CREAT, 0600));
}

static const struct call {
    const char *name;
    int (*run)(void);
    enum { ON_FILE = 1, ON_DIRECTORY = 2, ON_WHOLE = 4, AS_USER = 8, CHANGES = 16 } when;
    int may[4]; /* the errors that it gives also where the name always exists */
} calls[] = {
    {"open", do_read, ON_FILE, {0}},
    {"open, O_WRONLY", do_open_for_writing, ON_FILE, {0}},
    {"open, O_RDWR | O_APPEND", do_append, ON_FILE, {0}},
    {"open, O_CREAT", do_create, ON_FILE, {0}},
    {"creat", do_creat, ON_WHOLE, {0}},
    {"open, O_RDONLY | O_CREAT | O_TRUNC", do_empty, ON_WHOLE, {0}},
    {"open, O_CREAT | O_EXCL", do_create_new, ON_FILE, {EEXIST}},
    {"stat", do_stat, ON_FILE | ON_DIRECTORY, {0}},
    {"statx", do_statx, ON_FILE | ON_DIRECTORY, {0}},
    {"access", do_access, ON_FILE | ON_DIRECTORY, {0}},
    {"chmod", do_chmod, ON_FILE | ON_DIRECTORY, {0}},
    {"chown", do_chown, ON_FILE | ON_DIRECTORY, {0}},
    {"utimensat", do_utimes, ON_FILE | ON_DIRECTORY, {0}},
    {"truncate", do_truncate, ON_FILE, {0}},
    {"link", do_link, ON_FILE, {ENOENT}},
    {"open, O_CREAT, as a user", do_create_own, AS_USER, {EACCES}},
    {"open, O_DIRECTORY", do_open_directory, ON_DIRECTORY, {0}},
    {"open of a file below", do_open_below, ON_DIRECTORY, {ENOENT}},
    {"unlink", do_unlink, CHANGES, {ENOENT, EISDIR}},
    {"mkdir", do_mkdir, CHANGES, {EEXIST}},
    {"rmdir", do_rmdir, CHANGES, {ENOENT, ENOTDIR, ENOTEMPTY}},
    {"mknod", do_mknod, CHANGES, {EEXIST}},
    {"open, O_CREAT", do_create, CHANGES, {EISDIR}},
    {"open, O_CREAT | O_EXCL", do_create_new, CHANGES, {EEXIST}},
    {"link", do_make_link, CHANGES, {EEXIST}},
    {"link of what may go", do_link_other, CHANGES, {EEXIST, ENOENT, EPERM}},
    {"rename", do_rename, CHANGES, {ENOENT, EISDIR, ENOTDIR}},
    {"rename back", do_rename_back, CHANGES, {ENOENT, EISDIR, ENOTDIR}},
    {"rename, RENAME_NOREPLACE", do_rename_new, CHANGES, {ENOENT, EEXIST}},
    {"rename to a directory", do_rename_below, CHANGES, {ENOENT, EISDIR, ENOTDIR}},
    {"open, O_CREAT, in a directory", do_create_below, CHANGES, {ENOENT, EISDIR}},
    {"open, O_DIRECTORY", do_open_directory, CHANGES, {ENOENT, ENOTDIR}},
    {"stat", do_stat, CHANGES, {ENOENT}},
};
#define CALLS ((int)(sizeof(calls) / sizeof(calls[0])))

static const struct scene {
    const char *name;
    void (*replace)(void);
    int when;    /* of the calls that are made; ON_WHOLE: nobody writes to the file any more */
    bool always; /* does the name always exist? */
} scenes[] = {
    {"rename over it", rename_over, ON_FILE | ON_WHOLE, true},
    {"unlink, create", unlink_and_create, ON_FILE, false},
    {"unlink, link", unlink_and_link, ON_FILE | ON_WHOLE, false},
    {"rmdir, mkdir", rmdir_and_mkdir, ON_DIRECTORY, false},
    {"unlink, create, another user", unlink_and_create, AS_USER, false},
    {"unlink, rename, protected", unlink_and_protect, AS_USER, false},
    {"anything", change, CHANGES, true},
    {"removed at once", remove_at_once, CHANGES, true},
    {"rename over it, spoiled", rename_spoiled, ON_FILE, true},
};
#define SCENES 8

/* The kernel fails so before it asks the view, as docs/limits.md says. */
static bool by_kernel(const struct call *call, int error)
{
    return (call->run == do_make_link && error == ENOENT) || (call->run == do_rename_below && error == ESTALE);
}

static bool may_fail(const struct scene *scene, const struct call *call, int error)
{
    if (call->run == do_create_own && error == ESTALE)
        return true; /* as docs/limits.md says */
    if (!getenv("LD_PRELOAD") && by_kernel(call, error))
        return true;
    for (int i = 0; i < 4; i++) {
        if (error == call->may[i])
            return true;
    }
    return error == ENOENT && !scene->always && call->run != do_create && call->run != do_creat &&
           call->run != do_empty;
}

static void use_name(const struct scene *scene, uint64_t count)
{
    uint64_t failed[CALLS][ERRORS] = {0}, end = __atomic_load_n(replaced, __ATOMIC_RELAXED) + count;

    for (uint64_t made = 0; made < count || __atomic_load_n(replaced, __ATOMIC_RELAXED) < end; made++) {
        int i = (int)some(CALLS);
        if (!(calls[i].when & scene->when))
            continue;
        errno = 0;
        if (calls[i].run() < 0 && !may_fail(scene, &calls[i], errno))
            failed[i][errno]++;
    }
    for (int i = 0; i < CALLS; i++) {
        for (int error = 0; error < ERRORS; error++) {
            if (failed[i][error])
                problems++, printf("%s: %s: %llu times %s\n", scene->name, calls[i].name,
                                   (unsigned long long)failed[i][error], strerror(error));
        }
    }
}

/* ---- the program ---- */

static int live(const char *number, const char *seed, const char *count)
{
    const struct scene *scene = &scenes[atoi(number)];

    replaced = mmap(NULL, sizeof(*replaced), PROT_READ | PROT_WRITE, MAP_SHARED, SHARED, 0);
    if (replaced == MAP_FAILED)
        return 9;
    state = strtoull(seed, NULL, 10);
    if (state && scene->when == AS_USER && (setgroups(0, NULL) < 0 || setgid(USER) < 0 || setuid(USER) < 0))
        return 9;
    if (state)
        use_name(scene, strtoull(count, NULL, 10));
    for (bool replaces = state == 0; replaces;) {
        scene->replace();
        __atomic_add_fetch(replaced, 1, __ATOMIC_RELAXED);
    }
    return problems != 0;
}

/* Execute @program for @scene.  @seed: of the process that uses the name; "0" is the one that replaces it. */
static pid_t start(const char *program, bool library, int scene, const char *seed, const char *count)
{
    char number[16];

    sprintf(number, "%d", scene);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (library)
            setenv("LD_PRELOAD", "libfastspool.so", 1);
        execl(program, program, "--process", number, seed, count, (char *)NULL);
        _exit(8);
    }
    return pid;
}

static void play(const char *program, const char *kind, int scene, const char *seed, const char *count)
{
    bool library = strcmp(kind, "library") == 0 && scenes[scene].when != AS_USER; /* who becomes a user leaves it */
    static const char *const left[] = {"name", "new", "other", "stays", "below/name", "below"};
    int status;

    make("stays");
    if (scenes[scene].when == ON_DIRECTORY)
        mkdir("name", 0700);
    else
        make("name");
    chmod(".", scenes[scene].when == AS_USER ? 0777 : 0755);
    pid_t replaces = start(program, strcmp(kind, "kernel") != 0, scene, "0", count);
    pid_t uses = start(program, library, scene, seed, count);
    if (waitpid(uses, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        problems++;
    kill(replaces, SIGKILL);
    if (waitpid(replaces, &status, 0) < 0 || !WIFSIGNALED(status)) /* it has ended by itself */
        problems++, printf("%s: nobody replaces it\n", scenes[scene].name);
    for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
        if (unlink(left[i]) < 0)
            rmdir(left[i]);
    }
}

/* The view holds files for its clients for a second or two (pins.c). */
static void wait_for_free_files(const struct statvfs *before)
{
    struct statvfs now;

    for (int tries = 0; statvfs(".", &now) == 0 && now.f_ffree != before->f_ffree; tries++) {
        if (tries == 300) {
            problems++, printf("files are missing\n");
            return;
        }
        usleep(100000);
    }
}

int main(int argc, char **argv)
{
    char program[PATH_MAX] = "";
    struct statvfs before;

    if (argc == 5 && strcmp(argv[1], "--process") == 0)
        return live(argv[2], argv[3], argv[4]);
    if (argc < 5 || readlink("/proc/self/exe", program, sizeof(program) - 1) < 0 || chdir(argv[1]) < 0) {
        fprintf(stderr, "usage: replaced DIRECTORY kernel|library|both SEED COUNT [--spoil]\n");
        return 2;
    }
    int fd = memfd_create("replaced", 0);
    if (ftruncate(fd, sizeof(*replaced)) < 0 || dup2(fd, SHARED) < 0)
        return 2;
    statvfs(".", &before);
    for (int scene = argc > 5 ? SCENES : 0; scene < SCENES + (argc > 5); scene++)
        play(program, argv[2], scene, argv[3], argv[4]);
    wait_for_free_files(&before);
    return problems != 0;
}

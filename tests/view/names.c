/* SPDX-License-Identifier: MIT
 *
 * Four processes make, link, rename, list and remove names in one tree, at random and at once.
 *
 *      names DIRECTORY kernel|library|both SEED COUNT [--spoil]
 *
 * Happy path: each process makes COUNT random calls on names that all share.  `both`: two go through the kernel, two
 * have the library.  Each file holds its own inode number, which it had when it was made, and each call may fail only
 * as such calls do when others are at work.  Then the tree is compared with itself, through the kernel: a file has as
 * many names as links, a directory as many links as directories and two, each listed name exists and is listed once,
 * and content and inode number agree.  In the end all is removed, and the file system has as many free files as before.
 * Nothing is printed if all is right.
 *
 * Before that, a process uses a directory that another one has removed.
 *
 * Failure modes: what is wrong is printed, and the status is 1.  --spoil expects one link too many.
 */
#include "../random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 4
#define FILES     12 /* names in a directory */
#define MANY      4096

static uint64_t state;
static int problems;

static unsigned some(unsigned below)
{
    return (unsigned)(random_next(&state) % below);
}

/* Say what is wrong, a few times. */
static void wrong(const char *what, const char *path, const char *why)
{
    if (problems++ < 10)
        printf("%s %s: %s\n", what, path, why);
}

/* ---- a process ---- */

static void some_directory(char *path)
{
    static const char *const directories[] = {".", "d0", "d1", "d2", "d0/e0", "d1/e0", "d1/e1"};
    strcpy(path, directories[some(7)]);
}

static void some_name(char *path)
{
    some_directory(path);
    sprintf(path + strlen(path), "/f%u", some(FILES));
}

/* A result is right if it is none, or one of @allowed. */
static void expect(long result, const char *what, const char *path, const int *allowed)
{
    if (result >= 0)
        return;
    for (int error = errno; *allowed; allowed++) {
        if (*allowed == error)
            return;
    }
    wrong(what, path, strerror(errno));
}

#define EXPECT(result, what, path, ...) expect(result, what, path, (const int[]){__VA_ARGS__, 0})

static void make_file(const char *path)
{
    char text[40] = "";
    struct stat found;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

    EXPECT(fd, "open", path, EEXIST, ENOENT);
    if (fd < 0)
        return;
    if (fstat(fd, &found) < 0)
        wrong("fstat", path, strerror(errno));
    sprintf(text, "%llu", (unsigned long long)found.st_ino);
    if (write(fd, text, sizeof(text)) != sizeof(text))
        wrong("write", path, strerror(errno));
    if (some(20) == 0 && fsync(fd) < 0)
        wrong("fsync", path, strerror(errno));
    close(fd);
}

/* A file that others may not have filled yet is empty. */
static void read_file(const char *path)
{
    char text[40] = "";
    struct stat found;
    int fd = open(path, O_RDONLY);

    EXPECT(fd, "open", path, ENOENT);
    if (fd < 0)
        return;
    if (fstat(fd, &found) < 0)
        wrong("fstat", path, strerror(errno));
    ssize_t got = read(fd, text, sizeof(text));
    if (got != 0 && got != sizeof(text))
        wrong("read", path, "a part of a write");
    else if (got > 0 && strtoull(text, NULL, 10) != found.st_ino)
        wrong("read", path, "the content of another file");
    close(fd);
}

static void list(const char *path)
{
    DIR *directory = opendir(path);

    EXPECT(directory ? 0 : -1, "opendir", path, ENOENT);
    if (!directory)
        return;
    for (int count = 0; errno = 0, readdir(directory); count++) {
        if (count > 10 * MANY) {
            wrong("readdir", path, "it never ends");
            break;
        }
    }
    if (errno)
        wrong("readdir", path, strerror(errno));
    closedir(directory);
}

static void act(void)
{
    char one[100], other[100];
    struct stat found;

    some_name(one);
    some_name(other);
    switch (some(12)) {
    case 0:
    case 1:
    case 2:
        make_file(one);
        break;
    case 3:
        EXPECT(unlink(one), "unlink", one, ENOENT);
        break;
    case 4:
    case 5:
        EXPECT(rename(one, other), "rename", one, ENOENT);
        break;
    case 6:
        EXPECT(link(one, other), "link", one, ENOENT, EEXIST);
        break;
    case 7:
        read_file(one);
        break;
    case 8:
        some_directory(one);
        list(one);
        break;
    case 9:
        EXPECT(stat(one, &found), "stat", one, ENOENT);
        break;
    case 10:
        some_directory(one);
        if (some(2))
            EXPECT(rmdir(one), "rmdir", one, ENOENT, ENOTEMPTY, EINVAL, EEXIST);
        else
            EXPECT(mkdir(one, 0700), "mkdir", one, ENOENT, EEXIST);
        break;
    default:
        some_directory(one);
        some_directory(other);
        EXPECT(rename(one, other), "rename", one, ENOENT, ENOTEMPTY, EINVAL, EEXIST, EBUSY);
    }
}

/* ---- afterwards ---- */

static struct name {
    uint64_t inode, links, names;
    char path[200];
} found_files[MANY];
static int found_count;

static void count_name(const char *path, const struct stat *about)
{
    int i = 0;

    while (i < found_count && found_files[i].inode != about->st_ino)
        i++;
    if (i == found_count) {
        found_files[found_count++] = (struct name){.inode = about->st_ino, .links = about->st_nlink};
        snprintf(found_files[i].path, sizeof(found_files[i].path), "%s", path);
    }
    found_files[i].names++;
}

static int inspect(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)place;
    if (kind == FTW_NS || kind == FTW_DNR)
        wrong("listed", path, "it can't be looked at");
    else if (S_ISDIR(about->st_mode))
        count_name(path, &(struct stat){.st_ino = about->st_ino, .st_nlink = 1});
    else
        count_name(path, about);
    if (S_ISREG(about->st_mode))
        read_file(path);
    return 0;
}

/* A directory has a link of its parent, its own, and one of each directory in it. */
static void inspect_directory(const char *path)
{
    char below[PATH_MAX];
    struct stat about;
    struct dirent *entry;
    uint64_t directories = 0;
    DIR *directory = opendir(path);

    if (!directory || stat(path, &about) < 0) {
        wrong("opendir", path, strerror(errno));
        return;
    }
    while ((entry = readdir(directory))) {
        snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (entry->d_type == DT_DIR) {
            directories++;
            inspect_directory(below);
        }
        if (entry->d_ino == 0)
            wrong("readdir", below, "no inode number");
    }
    if (about.st_nlink != directories + 2)
        wrong("directory", path, "its links are not its directories and two");
    closedir(directory);
}

static int clear_name(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    (void)kind;
    if (place->level > 0 && (S_ISDIR(about->st_mode) ? rmdir(path) : unlink(path)) < 0)
        wrong("removal", path, strerror(errno));
    return 0;
}

static void inspect_all(bool spoil)
{
    nftw(".", inspect, 16, FTW_PHYS);
    inspect_directory(".");
    for (int i = 0; i < found_count; i++) {
        if (found_files[i].links != found_files[i].names + (spoil && i == 0))
            wrong("file", found_files[i].path, "it has not as many names as links");
    }
    nftw(".", clear_name, 16, FTW_PHYS | FTW_DEPTH);
}

/* ---- the program ---- */

static int live(const char *seed, long count)
{
    state = strtoull(seed, NULL, 10);
    for (long i = 0; i < count && problems < 10; i++)
        act();
    return problems != 0;
}

/* Execute @program, with up to three arguments. */
static void start(const char *program, bool library, const char *one, const char *two, const char *three)
{
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (library)
            setenv("LD_PRELOAD", "libfastspool.so", 1);
        execl(program, program, one, two, three, (char *)NULL);
        _exit(8);
    }
}

static void start_process(const char *program, const char *seed, const char *count, int number, bool library)
{
    char own[40];

    snprintf(own, sizeof(own), "%llu", strtoull(seed, NULL, 10) * 1000 + (unsigned)number);
    start(program, library, "--process", own, count);
}

/* ---- a directory that another process has removed ---- */

static void expect_gone(int result, const char *what)
{
    if (result >= 0 || errno != ENOENT)
        wrong(what, "in a removed directory", result >= 0 ? "it is done" : strerror(errno));
}

static void use_removed(int at)
{
    expect_gone(openat(at, "new", O_WRONLY | O_CREAT, 0600), "open");
    expect_gone(openat(at, "new", O_WRONLY | O_CREAT | O_EXCL, 0600), "open, O_EXCL");
    expect_gone(mkdirat(at, "new", 0700), "mkdir");
    expect_gone(mknodat(at, "new", S_IFREG | 0600, 0), "mknod");
    expect_gone(linkat(AT_FDCWD, "file", at, "new", 0), "link");
    expect_gone(renameat(AT_FDCWD, "file", at, "new"), "rename to");
    expect_gone(renameat(at, "file", AT_FDCWD, "new"), "rename from");
    expect_gone(unlinkat(at, "file", 0), "unlink");
    expect_gone(unlinkat(at, "file", AT_REMOVEDIR), "rmdir");
}

static void removed_by_other(const char *program, bool library)
{
    if (mkdir("removed", 0700) < 0 || close(open("file", O_WRONLY | O_CREAT, 0600)) < 0)
        wrong("mkdir", "removed", strerror(errno));
    int fd = open("removed", O_PATH | O_DIRECTORY);
    start(program, library, "--remove", "removed", NULL);
    if (wait(NULL) < 0 || access("removed", F_OK) == 0)
        wrong("rmdir", "removed", "it is there");
    use_removed(fd);
    close(fd);
    unlink("file");
}

int main(int argc, char **argv)
{
    char program[PATH_MAX] = "";
    struct statvfs before, after;
    int status;

    if (argc == 4 && strcmp(argv[1], "--process") == 0)
        return live(argv[2], atol(argv[3]));
    if (argc == 3 && strcmp(argv[1], "--remove") == 0)
        return rmdir(argv[2]) < 0;
    if (argc < 5 || readlink("/proc/self/exe", program, sizeof(program) - 1) < 0 || chdir(argv[1]) < 0) {
        fprintf(stderr, "usage: names DIRECTORY kernel|library|both SEED COUNT [--spoil]\n");
        return 2;
    }
    statvfs(".", &before);
    removed_by_other(program, strcmp(argv[2], "kernel") != 0);
    for (int i = 0; i < PROCESSES; i++)
        start_process(program, argv[3], argv[4], i,
                      strcmp(argv[2], "library") == 0 || (strcmp(argv[2], "both") == 0 && i % 2));
    for (int i = 0; i < PROCESSES; i++) {
        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            wrong("process", "", "it found something wrong, or died");
    }
    inspect_all(argc > 5);
    for (int tries = 0; statvfs(".", &after) == 0 && before.f_ffree != after.f_ffree; tries++) {
        if (tries == 300) {
            wrong("statvfs", argv[1], "files are missing");
            break;
        }
        usleep(100000); /* the view holds files for its clients for a second or two (pins.c) */
    }
    return problems != 0;
}

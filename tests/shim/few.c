/* SPDX-License-Identifier: MIT
 *
 * What few.py counts the system calls of, in steps:
 *
 *      few SPOOL OWNER
 *
 * Run it as root, with the library, on a spool of user number OWNER.  Each step begins with a call that names it.
 */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char spool[200];

static void step(const char *name)
{
    char path[100];

    snprintf(path, sizeof(path), "/step/%s", name);
    access(path, F_OK);
}

static int in_input(const char *name, int flags)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/input/%s", spool, name);
    return open(path, flags | O_CLOEXEC, 0600);
}

static void pairs(void)
{
    int ends[2];

    step("pipe");
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    step("socketpair");
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
}

/* As systemd looks for a directory. */
static void name_by_name(void)
{
    step("name by name");
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int etc = openat(root, "etc", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    CHECK(root >= 0 && etc >= 0 && close(root) == 0);
    CHECK(faccessat(etc, "passwd", F_OK, 0) == 0 && close(etc) == 0);
}

/* What this process has been given. */
static void inherited(void)
{
    struct stat st;

    step("inherited");
    CHECK(fstat(STDIN_FILENO, &st) == 0 && fstat(STDIN_FILENO, &st) == 0);
    step("not open");
    CHECK(fstat(77, &st) < 0);
}

/* As Exim opens its hints, and comes back. */
static void another_user(uid_t owner)
{
    step("first file");
    int fd = in_input("file", O_RDWR | O_CREAT);

    CHECK(fd >= 0 && fchown(fd, owner, owner) == 0 && close(fd) == 0);
    inherited();
    step("owner");
    CHECK(setresgid(-1, owner, -1) == 0 && setresuid(-1, owner, -1) == 0);
    CHECK((fd = in_input("file", O_RDWR)) >= 0 && close(fd) == 0);
    step("root");
    CHECK(setresuid(-1, 0, -1) == 0 && setresgid(-1, 0, -1) == 0);
    CHECK((fd = in_input("file", O_RDWR)) >= 0 && close(fd) == 0);
    CHECK((fd = in_input("file", O_RDWR)) >= 0 && close(fd) == 0);
}

static void another_for_good(uid_t owner)
{
    int status = 1;

    step("fork");
    pid_t child = fork();

    if (child == 0) {
        step("for good");
        _exit(setuid(owner) == 0 ? 0 : 1);
    }
    step("parent");
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* As Exim becomes a recipient, with -D open. */
static void leaving(void)
{
    int status = 1, fd;

    step("before");
    fd = in_input("file", O_RDWR);
    pid_t child = fork();
    if (child == 0) {
        step("leaving");
        _exit(setuid(65534) == 0 ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(close(fd) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    snprintf(spool, sizeof(spool), "%s", argv[1]);
    uid_t owner = (uid_t)atoi(argv[2]);
    pairs();
    name_by_name();
    another_user(owner);
    another_for_good(owner);
    leaving();
    step("end");
    return failures != 0;
}

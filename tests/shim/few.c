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

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    snprintf(spool, sizeof(spool), "%s", argv[1]);
    pairs();
    step("end");
    return failures != 0;
}

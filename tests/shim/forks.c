/* SPDX-License-Identifier: MIT
 *
 * Children of a fork find no lock taken by a thread that they don't have; run with the library, in a private namespace:
 *
 *      forks SPOOL listings            a thread lists a directory all the time, the main one forks
 *      forks SPOOL first               a thread is the first to touch the spool while the main one forks
 *      forks SPOOL handler             children are born in signal handlers that interrupt listings
 *      forks SPOOL files               a thread makes files, the main one forks; a child's close is not the parent's
 *      forks SPOOL programs            the same, and the main one executes programs, each of which has a carrier
 *      forks SPOOL numbers             the same, and the numbers of the files become others' meanwhile
 *      forks SPOOL known               a child knows from its parent whether there is a controlling terminal
 *
 * Each child opens, lists and closes, within SECONDS; the last line counts those that hung.  Exit status 0: none.
 */
#include "../filter.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 30
#define ENOUGH  3 /* children that hang: more would only take time */

static char input[300];
static int children, hung, failed;
static volatile bool ending;

static bool list(void)
{
    DIR *directory = opendir(input);

    while (directory && readdir(directory))
        ;
    return directory && closedir(directory) == 0;
}

static void *lists(void *argument)
{
    while (!ending)
        list();
    return argument;
}

/* By the clock: a child that hangs may hold all signals off. */
static void count_child(pid_t child)
{
    const struct timespec step = {0, 200000};
    int status = 0;
    pid_t ended = child < 0 ? -1 : 0;

    for (int i = 0; ended == 0 && i < SECONDS * 5000; i++) {
        ended = waitpid(child, &status, WNOHANG);
        if (ended == 0)
            nanosleep(&step, NULL);
    }
    if (ended == 0) {
        hung++;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    } else {
        failed += ended != child || status != 0;
    }
    children++;
}

static void fork_once(pid_t (*by)(void))
{
    pid_t child = by();

    if (child == 0)
        _exit(!list());
    count_child(child);
}

static void beside_listings(void)
{
    pthread_t thread;

    mkdir(input, 0750);
    pthread_create(&thread, NULL, lists, NULL);
    for (int i = 0; i < 1000 && hung < ENOUGH; i++)
        fork_once(i % 2 ? fork : _Fork);
    ending = true;
    pthread_join(thread, NULL);
}

static void *touches(void *argument)
{
    int fd = open(input, O_RDONLY | O_DIRECTORY);

    close(fd);
    return argument;
}

/* The spool is untouched in this process: so the thread decides and attaches, at about the time of the forks. */
static void beside_the_first(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, touches, NULL);
    for (int i = 0; i < 20 && hung < ENOUGH; i++)
        fork_once(i % 2 ? fork : _Fork);
    pthread_join(thread, NULL);
}

static void on_alarm(int signal_number)
{
    struct stat st;
    pid_t child = signal_number ? fork() : -1;

    if (child == 0) {
        int fd = open(input, O_RDONLY | O_DIRECTORY);
        _exit(fd < 0 || fstat(fd, &st) < 0 || close(fd) < 0 || stat(input, &st) < 0);
    }
    count_child(child);
}

static void in_handlers(void)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    while (children < 500 && hung < ENOUGH && !failed)
        list();
    setitimer(ITIMER_REAL, &never, NULL);
}

/* Write a file, and look at it again by the same descriptor. */
static bool make_file(const char *path)
{
    char bytes[8] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    bool made = fd >= 0 && write(fd, "content", 8) == 8 && pread(fd, bytes, 8, 0) == 8 && strcmp(bytes, "content") == 0;

    return close(fd) == 0 && made;
}

static void *makes_files(void *argument)
{
    char path[320];

    snprintf(path, sizeof(path), "%s/file", input);
    while (!ending)
        failed += !make_file(path);
    return argument;
}

static void fork_and_close(int number)
{
    pid_t child = number % 2 ? fork() : _Fork();

    if (child == 0) {
        closefrom(3);
        _exit(0);
    }
    count_child(child);
}

static void execute(int number)
{
    char name[] = "true", *arguments[] = {name, NULL}, *none[] = {NULL};
    pid_t child = -1;

    (void)number;
    posix_spawn(&child, "/bin/true", NULL, NULL, arguments, none);
    count_child(child);
}

/* A program that is executed while the file is open gets something else by its number, which may be another
 * descriptor's when the number gets the file back. */
static void *takes_numbers(void *argument)
{
    char path[320];
    uint64_t count = 1;

    snprintf(path, sizeof(path), "%s/file", input);
    while (!ending) {
        int fd = open(path, O_WRONLY | O_CREAT, 0640);
        failed += fd < 0 || close(fd) != 0;
        fd = eventfd(0, 0);
        failed += write(fd, &count, sizeof(count)) != sizeof(count) || read(fd, &count, sizeof(count)) != sizeof(count);
        failed += close(fd) != 0;
    }
    return argument;
}

/* What was opened just before a fork is open in both, and the child's close is not the parent's. */
static void beside_files(void *(*uses_files)(void *argument), int times, void (*give_birth)(int number))
{
    char path[320];
    pthread_t thread;

    mkdir(input, 0750);
    snprintf(path, sizeof(path), "%s/output", input);
    int output = open(path, O_WRONLY | O_CREAT, 0640);
    pthread_create(&thread, NULL, uses_files, NULL);
    for (int i = 0; i < times && !failed; i++)
        give_birth(i);
    ending = true;
    pthread_join(thread, NULL);
    close(output);
}

/* The parent uses the store, but has had no critical section: its child has the first, and opens no /dev/tty. */
static void known_by_the_parent(void)
{
    char lock[320];
    struct stat st;

    snprintf(lock, sizeof(lock), "%s/lock", input);
    if (stat(input, &st) < 0)
        failed++;
    pid_t child = fork();
    if (child == 0)
        _exit(filter_forbid(SYS_openat) < 0 || mkdir(lock, 0700) < 0 || rmdir(lock) < 0);
    count_child(child);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    snprintf(input, sizeof(input), "%s/input", argv[1]);
    if (strcmp(argv[2], "listings") == 0)
        beside_listings();
    else if (strcmp(argv[2], "first") == 0)
        beside_the_first();
    else if (strcmp(argv[2], "files") == 0)
        beside_files(makes_files, 2000, fork_and_close);
    else if (strcmp(argv[2], "programs") == 0)
        beside_files(makes_files, 500, execute);
    else if (strcmp(argv[2], "numbers") == 0)
        beside_files(takes_numbers, 500, execute);
    else if (strcmp(argv[2], "known") == 0)
        known_by_the_parent();
    else
        in_handlers();
    printf("%s: %d of %d children hung, %d failed\n", argv[2], hung, children, failed);
    return hung != 0 || failed != 0 || children == 0;
}

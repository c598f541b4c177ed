/* SPDX-License-Identifier: MIT
 *
 * For the tests of import and export: their calls that change or ask disk or store are counted, and can fail or be the
 * last; and what lies on either side.  A store of fixture.h is `fs`.
 */
#ifndef FASTSPOOL_MOVING_H
#define FASTSPOOL_MOVING_H

#include "durable.h"
#include "fastspool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- counted calls ---- */

static unsigned steps, deadly;        /* the step before which the process dies; 0: none */
static unsigned flushes, flush_fails; /* the flush that fails; 0: none */
static bool commits;                  /* a flush is a commit */
static bool power_fails;              /* at the deadly step; the process lives */
static jmp_buf power;
static void (*meddle)(void), (*synced)(void);

static inline void step(void)
{
    if (++steps == deadly && power_fails)
        longjmp(power, 1);
    if (steps == deadly)
        kill(getpid(), SIGKILL);
}

/* A child does @run(@argument), and dies before its step @n.  Its status. */
static inline int die_before(unsigned n, int (*run)(const void *argument), const void *argument)
{
    int status;

    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        steps = 0;
        deadly = n;
        _exit(run(argument) != 0);
    }
    waitpid(pid, &status, 0);
    cr_assert_geq(descriptions_reap(fs), 0);
    return status;
}

static inline int play_flush(void)
{
    step();
    if (++flushes == flush_fails)
        return -EIO;
    if (commits)
        commit(0); /* the tests without power cuts have no mirror */
    return 0;
}

/* ---- both sides ---- */

#define A "1abcde-000001-AB"
#define B "1abcde-00000000002-ABCD"
#define C "1abcde-000003-AB"

static inline bool store_has(const char *path)
{
    struct stat st;

    return fastspool_stat(fs, path, &st) == 0;
}

static inline const char *on_disk(const char *path)
{
    static char whole[2][2 * PATH_MAX];
    static int turn;

    turn = !turn;
    snprintf(whole[turn], sizeof(whole[turn]), "%s/%s", fs->spool, path);
    return whole[turn];
}

static inline bool disk_has(const char *path)
{
    struct stat st;

    return lstat(on_disk(path), &st) == 0;
}

/* ---- asked to end, and telling ---- */

static unsigned asked; /* how often it goes on */

static inline bool has_ended(void)
{
    return asked == 0 || asked-- == 0;
}

static char told[256];

static inline void note_told(const char *path, const char *why)
{
    snprintf(told + strlen(told), sizeof(told) - strlen(told), "%s: %s;", path, why);
}

#endif

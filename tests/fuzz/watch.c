/* SPDX-License-Identifier: MIT
 *
 * Watched children.
 *
 * The happy path: the parent sleeps until SIGCHLD, or until its patience is over.
 *
 * Failure modes: a child that SIGTERM does not end is killed, and is a finding.
 */
#include "watch.h"

#include "base/clock.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define MEMORY_MAX (3L * 1024 * 1024) /* KiB: what all tables may have */

/* Has the child ended within @seconds? */
static bool ended(pid_t child, unsigned seconds, int *status, struct rusage *usage)
{
    const struct timespec patience = {.tv_sec = seconds};
    sigset_t set, before;
    pid_t got;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &before);
    while ((got = wait4(child, status, WNOHANG, usage)) == 0) {
        if (sigtimedwait(&set, NULL, &patience) < 0 && errno == EAGAIN) {
            got = wait4(child, status, WNOHANG, usage);
            break;
        }
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return got == child;
}

void watch_options(struct watch *watch, int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"count", required_argument, NULL, 'c'},
                                            {"seconds", required_argument, NULL, 't'},
                                            {"live", no_argument, NULL, 'l'},
                                            {0}};

    watch->seed = 1;
    watch->count = UINT64_MAX;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's')
            watch->seed = strtoull(optarg, NULL, 0);
        else if (option == 'c')
            watch->count = strtoull(optarg, NULL, 0);
        else if (option == 't')
            watch->until = clock_monotonic() + strtoull(optarg, NULL, 0) * NS_PER_S;
        else if (option == 'l')
            watch->live = true;
        else
            exit(2);
    }
    printf("%s: from seed %llu on\n", watch->what, (unsigned long long)watch->seed);
    fflush(stdout);
}

bool watch_next(struct watch *watch, uint64_t *seed)
{
    if (watch->count == 0 || (watch->until && clock_monotonic() >= watch->until))
        return false;
    watch->count--;
    *seed = watch->seed++;
    return true;
}

static double seconds_used(pid_t child)
{
    struct timespec used = {0};
    clockid_t clock;

    if (clock_getcpuclockid(child, &clock) == 0)
        clock_gettime(clock, &used);
    return (double)clock_nanoseconds(&used) / 1e9;
}

/* Does SIGTERM end the child?  On a machine that is busy it may take a while to get its seconds of a processor. */
static bool terminated(pid_t child, int *status, struct rusage *usage)
{
    double before = seconds_used(child);

    kill(child, SIGTERM);
    for (int waits = 0; waits < WATCH_WAITS && seconds_used(child) - before < WATCH_PATIENCE; waits++) {
        if (ended(child, WATCH_PATIENCE, status, usage))
            return true;
    }
    return false;
}

static void find(struct watch *watch, uint64_t seed, const char *how, const char *more)
{
    printf("%s: seed %llu: %s%s\n", watch->what, (unsigned long long)seed, how, more);
    fflush(stdout);
    watch->findings++;
}

void watch_child(struct watch *watch, pid_t child, uint64_t seed)
{
    struct rusage usage = {0};
    bool asked = false;
    int status = 0;

    if (child < 0) {
        perror("fork");
        exit(2);
    }
    watch->children++;
    if (!ended(child, WATCH_WORK, &status, &usage)) {
        asked = true;
        if (!terminated(child, &status, &usage)) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            find(watch, seed, "it waits, and SIGTERM does not end it", "");
            return;
        }
    }
    if (asked && (WIFEXITED(status) || WTERMSIG(status) == SIGTERM)) {
        watch->terminated++;
        return;
    }
    char number[32];
    snprintf(number, sizeof(number), " %d", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    if (WIFSIGNALED(status))
        find(watch, seed, "it died of signal", number);
    else if (WEXITSTATUS(status) == WATCH_TOLD)
        watch->told++;
    else if (WEXITSTATUS(status) != 0)
        find(watch, seed, "it ended with exit status", number);
    else if (usage.ru_maxrss > MEMORY_MAX)
        find(watch, seed, "it took more memory than the store has", "");
}

int watch_end(const struct watch *watch)
{
    printf("%s: %llu states, %llu findings; %llu ended by SIGTERM, %llu told of a damaged page\n", watch->what,
           (unsigned long long)watch->children, (unsigned long long)watch->findings,
           (unsigned long long)watch->terminated, (unsigned long long)watch->told);
    return watch->findings != 0;
}

/* SPDX-License-Identifier: MIT
 *
 * Kill at every step.  Each operation (operations.c) runs again and again on the same scene (scene.c).  The process is
 * killed at its 1st, 2nd, ... store into the segment, and at its 1st, 2nd, ... stop at a system call (victim.c), until
 * the operation completes.
 *
 * The happy path: after each death two other processes look, one that was attached before and one that attaches now.
 * They take turns in looking first, because the first one repairs.  The segment must be intact (store/check.h).  The
 * tree must be as before the operation or as after it; for the few operations of several sections it may be as between
 * two of them.  What the dead process had open must be freed.  Then the store is used, committed and emptied, and must
 * hold nothing.  All is repeated beside a third process that works all the time, except operations that involve the
 * mirror (commits, eviction) or need a new store.
 *
 * Failure modes: a message names the operation, the step, the process that looked, and what it found.  The operation
 * ends there, the others go on in a new store, and the exit status is 1.  An interrupt removes the store.
 *
 * A harness must be able to fail: the last part leaves out the rollback, an undo entry, or the reaping, and requires
 * that each mutation is found.
 *
 *      steps [--operation NAME] [--quick N] [--half 0|1]
 *
 * --quick: only every N-th step.  A huge file's operations, and all beside a working process, skip more steps, unless
 * --operation names one.  --half: every second operation, to use two processors.
 */
#include "base/findings.h"
#include "dump.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "operations.h"
#include "paging.h"
#include "store/blocks.h"
#include "store/check.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one death and what follows ---- */

enum mutation { SOUND, NO_ROLLBACK, LOSE_RECORD, NO_REAP, MUTATIONS };
static const char *const mutation_name[] = {"", "rollback", "the last undo entry", "reaping"};

typedef enum victim_end (*executioner)(struct fastspool *, const struct deed *, unsigned);

struct trial {
    const struct operation *operation;
    executioner kill;
    const char *steps; /* what `kill` counts */
    enum mutation mutation;
    bool company;     /* another process works beside it */
    char *allowed[8]; /* dumps of the tree that may be seen: before, after, in between */
    size_t states;
    const char *looker; /* the process that looks */
    char found[FASTSPOOL_ERROR_MAX + 200];
};

static void renew_store(void)
{
    fixture_teardown();
    fixture_setup();
}

static void scene_for(const struct operation *operation)
{
    if (operation->needs & FRESH)
        renew_store();
    scene_set(fs, operation->needs);
}

/* Take over as a new mirror does, and commit all that is dirty, without a disk. */
static int commit_all(void)
{
    struct capture all;
    int result = capture_reset(fs);

    if (result == 0)
        result = capture_take(fs, &all);
    if (result == 0 && all.count)
        result = capture_end(fs, &all, 0, 1);
    return result;
}

static bool complain(struct trial *trial, const char *what, const char *detail)
{
    snprintf(trial->found, sizeof(trial->found), "%s: %s: %.600s", trial->looker, what, detail);
    return false;
}

/* Report the first line that differs from the tree before. */
static bool complain_difference(struct trial *trial, const char *got)
{
    char detail[FASTSPOOL_ERROR_MAX];
    const char *want = trial->allowed[0];
    size_t i = 0, line = 0;

    for (; got[i] && got[i] == want[i]; i++) {
        if (got[i] == '\n')
            line = i + 1;
    }
    snprintf(detail, sizeof(detail), "before \"%.*s\", now \"%.*s\"", (int)strcspn(want + line, "\n"), want + line,
             (int)strcspn(got + line, "\n"), got + line);
    return complain(trial, "the tree is neither as before the operation nor as after it", detail);
}

static bool segment_intact(struct trial *trial, const char *what)
{
    static struct findings *findings;

    if (!findings && !(findings = findings_new(1)))
        abort();
    findings->count = 0;
    int result = check_segment(fs, findings);
    return result == 0 || complain(trial, what, result < 0 ? strerrordesc_np(-result) : findings->sentence[0]);
}

/* True: the store is as it must be after a death at any step. */
static bool intact(struct trial *trial)
{
    bool known = false;

    if (!segment_intact(trial, "the segment is damaged"))
        return false;
    if (trial->operation->needs & EVICT)
        paging_all(fs);
    char *now = dump_text(fs, "t");
    for (size_t i = 0; i < trial->states; i++)
        known = known || strcmp(now, trial->allowed[i]) == 0;
    if (!known)
        complain_difference(trial, now);
    free(now);
    return known && segment_intact(trial, "the segment is damaged after looking at the tree");
}

/* The same in a new process that attaches now. */
static bool intact_for_newcomer(struct trial *trial)
{
    int status, line[2];

    if (pipe(line) < 0)
        abort();
    fflush(NULL);
    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        alarm(60);
        fs = fixture_attach();
        bool good = intact(trial);
        if (!good && write(line[1], trial->found, sizeof(trial->found)) < 0)
            _exit(2);
        fixture_detach(fs);
        _exit(good ? 0 : 1);
    }
    close(line[1]);
    ssize_t got = read(line[0], trial->found, sizeof(trial->found));
    close(line[0]);
    waitpid(pid, &status, 0);
    if (status != 0 && got <= 0)
        return complain(trial, "a process that looked", "died");
    return status == 0;
}

static bool go_on(struct trial *trial)
{
    char error[FASTSPOOL_ERROR_MAX];
    int d = fastspool_open(fs, "t/afterwards", O_RDWR | O_CREAT | O_EXCL, 0600);
    int result = d < 0 ? d : (int)fastspool_write(fs, d, scene_bytes, FILE_SIZE);

    if (result >= 0)
        result = fastspool_close(fs, d);
    if (result >= 0)
        result = fastspool_rename(fs, "t/afterwards", "t/later", 0);
    if (result >= 0 && trial->mutation != NO_REAP)
        result = descriptions_reap(fs);
    if (result >= 0)
        result = trial->operation->needs & COMMIT ? scene_end_commit(fs) : commit_all();
    if (result >= 0)
        result = scene_remove(fs, "t");
    if (result >= 0)
        result = blocks_release_held(fs);
    if (result < 0)
        return complain(trial, "the store does not go on", strerrordesc_np(-result));
    if (!segment_intact(trial, "the segment is damaged after going on"))
        return false;
    const struct header *h = fs->header;
    if (!trial->company &&
        (h->tree.files != 0 || h->tables.inodes.count != 1 || h->tables.names.count != 0 || h->blocks.used != 0)) {
        snprintf(error, sizeof(error), "%llu files, %u inodes, %u names, %llu blocks",
                 (unsigned long long)h->tree.files, h->tables.inodes.count, h->tables.names.count,
                 (unsigned long long)h->blocks.used);
        return complain(trial, "something is left in an empty store", error);
    }
    return true;
}

static void mutate(enum mutation mutation)
{
    if (mutation == NO_ROLLBACK)
        STORE(fs->header->section.undo_count, 0);
    if (mutation == LOSE_RECORD && fs->header->section.undo_count > 0)
        STORE(fs->header->section.undo_count, fs->header->section.undo_count - 1);
}

/* The operation's process has died at @step: both processes look, then the store is used. */
static bool survive(struct trial *trial, unsigned step)
{
    bool newcomer_first = step % 2;

    mutate(trial->mutation);
    for (int turn = 0; turn < 2; turn++) {
        bool newcomer = (turn == 0) == newcomer_first;
        trial->looker = newcomer ? "a newcomer" : "a process that was there";
        if (!(newcomer ? intact_for_newcomer(trial) : intact(trial)))
            return false;
    }
    return go_on(trial);
}

/* ---- all deaths of an operation ---- */

static char *dump_tree(const struct operation *operation)
{
    if (operation->needs & EVICT)
        paging_all(fs);
    return dump_text(fs, "t");
}

/* Learn the trees that may be seen: before `run`, after it, and between the sections of the operation. */
static bool learn_states(struct trial *trial)
{
    const struct operation *operation = trial->operation;
    bool more = true;

    trial->states = 0;
    for (unsigned n = 0; more; n++) {
        scene_for(operation);
        if (n == 0) {
            if (victim_of_stores(fs, &(struct deed){operation->deed.prepare, NULL}, 0) != VICTIM_DONE)
                return complain(trial, "the preparation", "died by itself");
            trial->allowed[trial->states++] = dump_tree(operation);
            if (!go_on(trial))
                return false;
            scene_for(operation);
            if (victim_of_stores(fs, &operation->deed, 0) != VICTIM_DONE)
                return complain(trial, "the operation", "died by itself");
        } else {
            more = operation->between && operation->between(fs, n - 1);
        }
        if (more)
            trial->allowed[trial->states++] = dump_tree(operation);
        if (!go_on(trial))
            return false;
    }
    return true;
}

static void forget_states(struct trial *trial)
{
    while (trial->states > 0)
        free(trial->allowed[--trial->states]);
}

/* Kill at every @stride-th step.  How many kills; false in *@good: trial->found says what is wrong. */
static unsigned enumerate(struct trial *trial, unsigned stride, bool *good)
{
    unsigned steps = 0;

    trial->looker = "the first look";
    *good = learn_states(trial);
    for (unsigned step = 1; *good; step += stride) {
        scene_for(trial->operation);
        enum victim_end end = trial->kill(fs, &trial->operation->deed, step);
        if (end == VICTIM_LOST)
            *good = complain(trial, "the victim", "died of something else");
        else
            *good = survive(trial, step);
        if (!*good && trial->mutation == SOUND)
            fprintf(stderr, "FAILED %s, %s %u: %s\n", trial->operation->name, trial->steps, step, trial->found);
        if (end == VICTIM_DONE)
            break;
        steps++;
    }
    forget_states(trial);
    return steps;
}

/* ---- a process that works beside the operation ---- */

static volatile sig_atomic_t stop_working;

static void on_stop(int number)
{
    (void)number;
    stop_working = 1;
}

/* Make, fill, rename, read, list and remove a file, until stopped.  None of that may ever fail. */
static int work(void)
{
    char buffer[FILE_SIZE];
    struct fastspool_entry entry;
    int result = fastspool_mkdir(fs, "company", 0700);

    for (unsigned turn = 0; result >= 0 && !stop_working; turn++) {
        int d = fastspool_open(fs, "company/a", O_RDWR | O_CREAT | O_EXCL, 0600);
        if (d < 0)
            return d;
        size_t size = turn * 37 % FILE_SIZE + 1;
        result = (int)fastspool_write(fs, d, scene_bytes, size);
        if (result >= 0)
            result = fastspool_rename(fs, "company/a", "company/b", 0);
        if (result >= 0 &&
            (fastspool_pread(fs, d, buffer, size, 0) != (ssize_t)size || memcmp(buffer, scene_bytes, size) != 0))
            return -EILSEQ;
        if (result >= 0)
            result = fastspool_close(fs, d);
        d = fastspool_open(fs, "company", O_RDONLY | O_DIRECTORY, 0);
        if (d < 0 || fastspool_list(fs, d, 0, &entry, 1) != 1 || strcmp(entry.name, "b") != 0)
            return -ENOENT;
        fastspool_close(fs, d);
        if (turn % 3 == 0 && result >= 0)
            result = fastspool_unlink(fs, "company/b");
        if (turn % 7 == 0)
            usleep(20);
    }
    return result < 0 ? result : scene_remove(fs, "company");
}

static pid_t company_begin(void)
{
    fflush(NULL);
    descriptions_shared(fs);
    sighandler_t before = signal(SIGTERM, on_stop); /* it may be told to stop before it has begun */
    pid_t pid = fork();
    if (pid != 0) {
        signal(SIGTERM, before);
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fastspool_after_fork_child(fs);
    fs = fixture_attach();
    int result = work();
    if (result < 0)
        fprintf(stderr, "FAILED the process that works beside: %s\n", strerrordesc_np(-result));
    fixture_detach(fs);
    _exit(result < 0);
}

static bool company_end(pid_t pid)
{
    int status;
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    return status == 0;
}

/* ---- all operations ---- */

static unsigned long trial_of(const struct operation *operation, unsigned stride, bool company, bool *all_good)
{
    static const struct {
        executioner kill;
        const char *steps;
    } ways[] = {{victim_of_stores, "store"}, {victim_of_calls, "system call"}};
    unsigned long points = 0;

    for (int way = 0; way < 2; way++) {
        struct trial trial = {
            .operation = operation, .kill = ways[way].kill, .steps = ways[way].steps, .company = company};
        bool good;
        pid_t beside = company ? company_begin() : 0;
        unsigned steps = enumerate(&trial, stride, &good);
        if (company && !company_end(beside))
            good = false;
        printf("%-40s %s %5u %s\n", operation->name, company ? "contended " : "alone     ", steps,
               way == 0 ? "stores" : "stops at system calls");
        points += steps;
        if (!good) {
            fprintf(stderr, "FAILED %s: %s\n", operation->name,
                    trial.found[0] ? trial.found : "the process that works beside");
            *all_good = false;
            renew_store();
        }
    }
    return points;
}

/* Each mutation must be found by killing a rename at its stores. */
static bool mutations_are_found(void)
{
    bool all = true;

    for (int mutation = NO_ROLLBACK; mutation < MUTATIONS; mutation++) {
        bool good = true;
        struct trial trial;
        for (size_t i = 0; i < operations_count && good; i++) {
            trial = (struct trial){
                .operation = &operations[i], .kill = victim_of_stores, .steps = "store", .mutation = mutation};
            if (operations[i].needs == 0 && strncmp(operations[i].name, "rename", 6) == 0)
                enumerate(&trial, 5, &good);
        }
        printf("without %s: %s\n", mutation_name[mutation], good ? "NOT FOUND" : trial.found);
        all = all && !good;
        renew_store();
    }
    return all;
}

static void on_interrupt(int number)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", fixture_directory);
    _exit(system(command) == 0 ? 128 + number : 1);
}

/* To save time, only every so many steps.  A huge file's blocks come and go one by one, and all alike. */
static unsigned every(unsigned needs, bool company)
{
    if (needs & HUGE)
        return needs & EVICT ? 40 : company ? 36 : 12;
    return company ? 3 : 1;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *half = NULL;
    unsigned stride = 1;
    unsigned long points = 0;
    bool good = true;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--operation") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--quick") == 0)
            stride = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--half") == 0)
            half = argv[i + 1];
    }
    scene_fill_bytes();
    fixture_setup();
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    for (int company = 0; company < 2; company++) {
        for (size_t i = 0; i < operations_count; i++) {
            /* No process works beside operations that involve the mirror or need a new store. */
            bool lonely = operations[i].needs & (FRESH | COMMIT | EVICT | ALONE);
            bool other_half = half && i % 2 != (size_t)atoi(half);
            if ((only && strcmp(only, operations[i].name) != 0) || (company && lonely) || other_half)
                continue;
            points +=
                trial_of(&operations[i], only ? stride : stride * every(operations[i].needs, company), company, &good);
        }
    }
    printf("%lu deaths\n", points);
    if (!only && (!half || atoi(half) == 0))
        good = mutations_are_found() && good;
    fixture_teardown();
    printf("%s\n", good ? "passed" : "FAILED");
    return good ? 0 : 1;
}

/* SPDX-License-Identifier: MIT
 *
 * Random sequences of the calls that a mail server makes on its spool, with a trace of every result.
 *
 *      sequences DIRECTORY [--seed N] [--count N] [--steps N] [--mutate N] [--pause US] [--mixed PROGRAM]
 *
 * DIRECTORY is laid out like a spool (input/, msglog/).  The same seed must give the same trace on a real directory
 * without the library and on a spool with it.  compare.py runs both and compares.
 *
 * Happy path: this program is the master.  It makes each step from the seed and from earlier results (script.c), lets
 * one of up to ACTORS processes do it (actor.c, step.c), and waits for the answer.  After each sequence it dumps the
 * tree into the trace and removes it.  The output is the traces, each with a line "sequence SEED" before it.
 *
 * Not compared, because the store doesn't promise it:
 * - inode numbers, st_blocks, sizes of directories, the order of listings;
 * - times, except that a file has the time that it was given and that times do not run backwards;
 * - the time of last access, which the store sets as `noatime` does;
 * - SEEK_DATA and SEEK_HOLE;
 * - the position of a stream whose descriptor was moved by other means, which POSIX leaves open until the stream knows.
 *
 * --mutate N changes the result of step N of each sequence, which a comparison has to notice.
 * --pause US waits between two steps, so that the mirror can evict files meanwhile, and closes more often.
 * --mixed PROGRAM: odd actors run PROGRAM, a copy of this one.  One of the two is served by the library, the other is
 * on the view.  No name goes from input/ to msglog/, which are two mounts for the view, and one directory for the
 * library.
 *
 * Failure modes: if the set-up fails or an actor doesn't answer, the program exits with status 2.  Differences are for
 * compare.py to find.
 */
#include "actor.h"
#include "script.h"
#include "step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long mutated_step = -1;
static useconds_t pause_us; /* between two steps, for the mirror to evict files */
static const char *root;    /* the spool */

/* ---- a trace ---- */

static void print(long number, int a, const struct step *step, const struct answer *answer)
{
    const char *path = strncmp(step->path, root, strlen(root)) == 0 ? step->path + strlen(root) : step->path;
    const char *other = strncmp(step->other, root, strlen(root)) == 0 ? step->other + strlen(root) : step->other;
    const char *error = answer->error ? strerrorname_np(answer->error) : "";

    printf("%3ld actor %d %s fd %d to %d stream %d flags %lo offset %ld size %ld %s %s = %ld %s %s\n", number, a,
           step_name(step->operation), step->fd, step->to, step->stream, step->flags, step->offset, step->size, path,
           other, answer->result, error ? error : "?", answer->text);
}

static void dump_file(const char *path, bool directory)
{
    static char content[BUFFER];
    struct step step = {.operation = STAT};
    struct answer answer;

    snprintf(step.path, sizeof(step.path), "%s", path);
    step_do(&step, &answer);
    int fd = directory ? -1 : open(path, O_RDONLY);
    ssize_t got = fd < 0 ? 0 : read(fd, content, sizeof(content));
    if (fd >= 0)
        close(fd);
    printf("file %s: %s %016llx\n", path + strlen(root), answer.text,
           (unsigned long long)step_hash(content, got > 0 ? (size_t)got : 0));
}

/* Write the tree below @path to the trace, and remove it. */
static void dump(const char *path)
{
    struct step step = {.operation = LIST};
    struct answer answer;
    char listing[400], *rest = listing;

    snprintf(step.path, sizeof(step.path), "%s", path);
    step_do(&step, &answer);
    printf("tree %s: %ld %s\n", path + strlen(root), answer.result, answer.text);
    memcpy(listing, answer.text, sizeof(listing));
    for (const char *name; (name = strsep(&rest, " "));) {
        char below[PATH_SIZE];
        if (*name == '\0' || name[0] == '.')
            continue;
        snprintf(below, sizeof(below), "%.200s/%s", path, name);
        bool directory = below[strlen(below) - 1] == '/';
        dump_file(below, directory);
        if (directory) {
            below[strlen(below) - 1] = '\0';
            dump(below);
        }
        int gone = directory ? rmdir(below) : unlink(below);
        if (gone != 0)
            printf("file %s can't be removed: %s\n", below + strlen(root), strerrorname_np(errno));
    }
}

/* ---- a sequence ---- */

static void directories_of(uint64_t seed, char paths[2][200])
{
    snprintf(paths[0], 200, "%.150s/input/%llu", root, (unsigned long long)seed);
    snprintf(paths[1], 200, "%.150s/msglog/%llu", root, (unsigned long long)seed);
}

static void run_sequence(uint64_t seed, long steps)
{
    char paths[2][200];

    printf("sequence %llu\n", (unsigned long long)seed);
    directories_of(seed, paths);
    for (int p = 0; p < 2; p++)
        printf("mkdir %d\n", mkdir(paths[p], 0750));
    script_begin(root, seed);
    actor_begin();
    for (long number = 1; number <= steps; number++) {
        struct step step;
        struct answer answer;
        int actor = script_next(number, &step);
        if (actor < 0)
            continue;
        if (pause_us)
            usleep(pause_us);
        actor_play(actor, &step, &answer);
        script_learn(actor, &step, &answer);
        if (number == mutated_step)
            answer.result++;
        print(number, actor, &step, &answer);
    }
    for (int a = 0; a < ACTORS; a++) {
        if (script_alive(a))
            actor_dismiss(a, true);
    }
    for (int p = 0; p < 2; p++) {
        dump(paths[p]);
        printf("rmdir %d\n", rmdir(paths[p]));
    }
}

/* ---- the program ---- */

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    long count = 1, steps = 45;
    bool known = actor_find_program();

    if (argc == 5 && strcmp(argv[1], "--actor") == 0) {
        actor_use_programs(argv[3], argv[4]);
        actor_live(atoi(argv[2]));
    }
    if (argc < 2 || !known) {
        fprintf(stderr,
                "usage: sequences DIRECTORY [--seed N] [--count N] [--steps N] [--mutate N] [--pause US] "
                "[--mixed PROGRAM]\n");
        return 2;
    }
    root = argv[1];
    for (int i = 2; i + 1 < argc; i++) {
        seed = strcmp(argv[i], "--seed") == 0 ? strtoull(argv[i + 1], NULL, 10) : seed;
        count = strcmp(argv[i], "--count") == 0 ? atol(argv[i + 1]) : count;
        steps = strcmp(argv[i], "--steps") == 0 ? atol(argv[i + 1]) : steps;
        pause_us = strcmp(argv[i], "--pause") == 0 ? (useconds_t)atol(argv[i + 1]) : pause_us;
        if (strcmp(argv[i], "--mixed") == 0) {
            actor_use_programs(NULL, argv[i + 1]);
            script_mix();
        }
        mutated_step = strcmp(argv[i], "--mutate") == 0 ? atol(argv[i + 1]) : mutated_step;
    }
    if (pause_us)
        script_close_often();
    if (chdir(root) < 0) {
        perror(root);
        return 2;
    }
    umask(0);
    actor_make_pipes();
    for (; count > 0; count--, seed++)
        run_sequence(seed, steps);
    return 0;
}

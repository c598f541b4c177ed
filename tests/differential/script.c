/* SPDX-License-Identifier: MIT
 *
 * The script of a sequence: random steps, each chosen after the answers to the earlier ones.
 *
 * Happy path: one generator, started from the seed, chooses the actor, the operation and the arguments.  It uses what
 * the master knows of each actor: open descriptors and streams, and whether it holds locks.  The first steps are always
 * the same, so that there is something to work on.  Most calls can succeed.  The others have wrong names, descriptors
 * or offsets.
 *
 * Left out:
 * - Errors of the program itself: a stream used while it isn't open, a descriptor closed under a stream.
 * - An exec by an actor that holds record locks.  This is a deliberate deviation: an exec ends them, because it closes
 * the descriptor that holds them.  (Exim takes none across an exec.)
 *
 * Failure modes: if the library gives a different result than a real directory, what the master knows is wrong, and
 * later steps differ too.  Only the first difference counts.
 */
#include "script.h"
#include "../random.h"

#include "actor.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FDS 24 /* descriptors that the master remembers per actor */

/* Relative frequency of each operation. */
static unsigned weights[OPERATIONS] = {
    [OPEN] = 30,    [OPENAT] = 5,  [READ] = 10,     [PREAD] = 5,    [READV] = 2,    [WRITE] = 16,  [PWRITE] = 5,
    [WRITEV] = 2,   [LSEEK] = 8,   [FTRUNCATE] = 4, [TRUNCATE] = 3, [DUP] = 3,      [DUP2] = 3,    [DUPFD] = 3,
    [CLOSE] = 12,   [RENAME] = 10, [LINK] = 5,      [UNLINK] = 8,   [UNLINKAT] = 3, [MKDIR] = 4,   [RMDIR] = 4,
    [STAT] = 8,     [LSTAT] = 2,   [FSTAT] = 8,     [FSTATAT] = 3,  [ACCESS] = 3,   [CHMOD] = 3,   [FCHMOD] = 3,
    [CHOWN] = 2,    [FCHOWN] = 2,  [UMASK] = 1,     [GETFD] = 3,    [SETFD] = 3,    [GETFL] = 3,   [SETFL] = 2,
    [SETLK] = 8,    [GETLK] = 4,   [LIST] = 4,      [LISTAT] = 3,   [SYNC] = 3,     [STATVFS] = 1, [UTIMENS] = 2,
    [SENDFILE] = 2, [FOPEN] = 14,  [FDOPEN] = 5,    [FPRINTF] = 24, [FGETS] = 18,   [FREAD] = 9,   [UNGETC] = 8,
    [FSEEK] = 12,   [REWIND] = 6,  [FTELL] = 6,     [FFLUSH] = 12,  [FCLOSE] = 14,  [FORK] = 6,    [EXEC] = 3,
    [EXIT] = 3,
};

/* What the master knows of an actor. */
struct knowledge {
    bool alive;
    int fds[FDS];
    int count;
    int directory; /* descriptor of a directory, or 0 */
    bool locks;    /* has taken record locks */
    bool stream[STREAMS];
    int owned[STREAMS]; /* descriptor of each stream, or of its last one */
};

static struct knowledge known[ACTORS];
static const char *root;  /* the spool */
static uint64_t sequence; /* its seed */
static uint64_t state;    /* the generator's */
static bool apart;        /* names stay in input/ or in msglog/ */

/* ---- random choices ---- */

static uint32_t some(uint32_t below)
{
    return (uint32_t)(random_next(&state) % below);
}

static bool once_in(uint32_t n)
{
    return some(n) == 0;
}

/* Names in the directory of a sequence. */
static const char *const names[] = {"1abcde-000001-AB-D",
                                    "1abcde-000001-AB-H",
                                    "hdr.1abcde-000001-AB",
                                    "1abcde-000001-AB-J",
                                    "f",
                                    "g",
                                    "d",
                                    "d/f",
                                    "d/g",
                                    "d/e",
                                    "d/e/f",
                                    "e",
                                    "e/f"};
#define NAMES (sizeof(names) / sizeof(names[0]))

/* @tree: "input" or "msglog"; NULL: either. */
static void some_path(char *path, const char *tree, bool one_of_two)
{
    static const char *const before[] = {"", "/", "./", "d/../", "e/./../", "./////", "../@/", "nothere/../"};
    char number[24];
    const char *name = names[some(once_in(3) ? NAMES : 6)];
    const char *prefix = once_in(4) ? before[some(8)] : "";
    const char *tail = once_in(20) ? "/" : once_in(30) ? "/." : once_in(60) ? "/.." : "";
    char with[64];

    snprintf(number, sizeof(number), "%llu", (unsigned long long)sequence);
    if (strcmp(prefix, "../@/") == 0) {
        snprintf(with, sizeof(with), "../%s/", number);
        prefix = with;
    }
    if (!one_of_two && once_in(60)) { /* with two bad paths, either error is right */
        static char too_long[257];
        memset(too_long, 'n', 255 + some(2));
        name = too_long;
        prefix = "";
        tail = "";
        too_long[255 + some(2)] = '\0';
    }
    tree = tree ? tree : once_in(12) ? "msglog" : "input";
    if (once_in(5)) /* relative to the spool */
        snprintf(path, PATH_SIZE, "%s/%s/%s%s%s", tree, number, prefix, name, tail);
    else
        snprintf(path, PATH_SIZE, "%s%s%s/%s/%s%s%s", root, once_in(5) ? "//" : "/", tree, number, prefix, name, tail);
}

static long some_flags(void)
{
    static const int ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
    static const int more[] = {O_CREAT,     O_CREAT,   O_CREAT | O_EXCL, O_TRUNC,   O_APPEND,
                               O_DIRECTORY, O_CLOEXEC, O_NOFOLLOW,       O_NONBLOCK};
    int flags = ways[some(4)];

    for (uint32_t i = some(4); i > 0; i--)
        flags |= more[some(9)];
    if ((flags & O_CREAT) && (flags & O_DIRECTORY))
        flags &= ~O_DIRECTORY; /* kernels disagree about the combination */
    if (once_in(8))
        flags = O_RDONLY | O_DIRECTORY;
    return flags;
}

static int some_fd(const struct knowledge *actor)
{
    return actor->count == 0 || once_in(40) ? (int)some(12) + 3 : actor->fds[some((uint32_t)actor->count)];
}

static long some_offset(void)
{
    static const long offsets[] = {0, 0, 1, 19, 100, 4095, 4096, 4097, 8192, 10000, 16384, 70000, -1, -20, 1000000};
    return once_in(2) ? (long)some(9000) : offsets[some(15)];
}

static int choose_operation(void)
{
    unsigned total = 0, pick;

    for (int i = 0; i < OPERATIONS; i++)
        total += weights[i];
    pick = some(total);
    for (int i = 0; i < OPERATIONS; i++) {
        if (pick < weights[i])
            return i;
        pick -= weights[i];
    }
    return OPEN;
}

/* True if the actor is in a state that allows the step: a stream is open (or free to be opened), an actor is free. */
static bool possible(const struct step *step, const struct knowledge *actor, int alive)
{
    switch (step->operation) {
    case FOPEN:
    case FDOPEN:
        return !actor->stream[step->stream];
    case FORK:
        return alive < ACTORS;
    case EXIT:
        return alive > 1;
    case EXEC:
        return !actor->locks;
    default:
        if (step_takes_stream(step->operation))
            return actor->stream[step->stream];
        return step_takes_path(step->operation) || actor->count > 0 || once_in(10);
    }
}

static bool takes_directory(int operation)
{
    return operation == OPENAT || operation == UNLINKAT || operation == FSTATAT || operation == LISTAT;
}

/* Every sequence begins with something to work on. */
static const int prologue[] = {MKDIR, OPEN, WRITE, OPEN, WRITE, OPEN, WRITE, FORK};
#define PROLOGUE (long)(sizeof(prologue) / sizeof(prologue[0]))

static const mode_t file_modes[] = {0640, 0600, 0400, 0777, 0};

static void make_opening(struct step *step, long number)
{
    step->flags = some_flags();
    step->size = step->operation == MKDIR ? 0750 : file_modes[some(5)];
    if (step->operation == OPEN && (step->flags & O_DIRECTORY))
        snprintf(step->path, sizeof(step->path), "%s/input/%llu%s", root, (unsigned long long)sequence,
                 once_in(3)   ? "/d"
                 : once_in(3) ? "/."
                              : "");
    if (number <= PROLOGUE) {
        bool directory = step->operation == MKDIR;
        snprintf(step->path, sizeof(step->path), "%s/input/%llu/%s", root, (unsigned long long)sequence,
                 names[directory ? NAMES - 7 : some(6)]);
        step->flags = O_RDWR | O_CREAT | (once_in(4) ? O_APPEND : 0) | (once_in(3) ? O_CLOEXEC : 0);
    }
}

/* Set the arguments that need special values for this operation. */
static void make_special(struct step *step, long number)
{
    if (step->operation == OPEN || step->operation == OPENAT || step->operation == MKDIR) {
        make_opening(step, number);
    } else if (step->operation == CHMOD || step->operation == FCHMOD) {
        step->flags = file_modes[some(5)] | (once_in(5) ? 0700 : 0);
    } else if (step->operation == CHOWN || step->operation == FCHOWN) {
        step->offset = once_in(4) ? -1 : (long)some(3);
        step->size = once_in(4) ? -1 : (long)some(3);
    } else if (step->operation == UMASK) {
        step->flags = once_in(2) ? 0 : 027;
    } else if (step->operation == LSEEK || step->operation == FSEEK) {
        step->flags = (long)some(once_in(20) ? 7 : 3);
        step->flags = step->flags == SEEK_DATA || step->flags == SEEK_HOLE ? 9 : step->flags;
    } else if (step->operation == SETLK || step->operation == GETLK) {
        step->offset = (long)some(3) * 10;
        step->size = once_in(4) ? 0 : 19;
    } else if (step->operation == FPRINTF || step->operation == FGETS || step->operation == FREAD) {
        step->size %= 900;
    } else if (step->operation == ACCESS && apart) {
        step->flags &= ~(long)X_OK; /* the view is mounted noexec */
    }
}

static void make_up(struct step *step, const struct knowledge *actor, int alive, long number)
{
    memset(step, 0, sizeof(*step));
    do {
        step->operation = number <= PROLOGUE ? prologue[number - 1] : choose_operation();
        step->stream = (int)some(STREAMS);
    } while (!possible(step, actor, alive));
    step->fd = some_fd(actor);
    step->to = 3 + (int)some(12);
    step->salt = some(1000);
    step->offset = some_offset();
    step->size = once_in(3) ? (long)some(BUFFER - 1) : (long)some(700);
    step->flags = (long)some(24);
    if (step_takes_path(step->operation) || step->operation == FOPEN)
        some_path(step->path, NULL, step->operation == RENAME || step->operation == LINK);
    if (step->operation == RENAME || step->operation == LINK)
        some_path(step->other, !apart ? NULL : strstr(step->path, "msglog/") ? "msglog" : "input", true);
    if (step->operation == OPENAT || step->operation == UNLINKAT || step->operation == FSTATAT)
        snprintf(step->path, sizeof(step->path), "%s", names[some(once_in(3) ? NAMES : 6)]);
    if (takes_directory(step->operation) && actor->directory && !once_in(5))
        step->fd = actor->directory;
    make_special(step, number);
}

/* A stream owns its descriptor.  Closing that under the stream is the program's error, and the result depends on what
 * opens next.  So a sequence closes it only by fclose. */
static bool is_improper(const struct step *step, const struct knowledge *actor)
{
    int fd = step->operation == CLOSE ? step->fd : step->operation == DUP2 ? step->to : -1;

    for (int s = 0; s < STREAMS; s++) {
        if (actor->stream[s] && (actor->owned[s] == fd || (step->operation == FDOPEN && actor->owned[s] == step->fd)))
            return true;
    }
    return step->operation == DUP2 && step->fd == step->to && !(step->flags % 2);
}

int script_next(long number, struct step *step)
{
    int alive = 0, actor, free_slot = 0;

    for (int a = 0; a < ACTORS; a++)
        alive += known[a].alive;
    do
        actor = (int)some(ACTORS);
    while (!known[actor].alive);
    make_up(step, &known[actor], alive, number);
    while (free_slot < ACTORS - 1 && known[free_slot].alive)
        free_slot++;
    if (step->operation == FORK)
        step->to = free_slot;
    return is_improper(step, &known[actor]) ? -1 : actor;
}

/* ---- what the master learns from an answer ---- */

static void remember(struct knowledge *actor, int fd)
{
    for (int i = 0; i < actor->count; i++) {
        if (actor->fds[i] == fd)
            return;
    }
    if (actor->count < FDS)
        actor->fds[actor->count++] = fd;
}

static void forget(struct knowledge *actor, int fd)
{
    for (int i = 0; i < actor->count; i++) {
        if (actor->fds[i] == fd)
            actor->fds[i--] = actor->fds[--actor->count];
    }
}

void script_learn(int actor, const struct step *step, const struct answer *answer)
{
    struct knowledge *knowledge = &known[actor];

    switch (step->operation) {
    case OPEN:
    case OPENAT:
    case DUP:
    case DUP2:
    case DUPFD:
        if (answer->result < 0)
            break;
        remember(knowledge, (int)answer->result);
        if (step->operation == OPEN && (step->flags & O_DIRECTORY))
            knowledge->directory = (int)answer->result;
        break;
    case CLOSE:
        forget(knowledge, step->fd);
        knowledge->directory = knowledge->directory == step->fd ? 0 : knowledge->directory;
        break;
    case FOPEN:
    case FDOPEN:
        if (answer->result < 0)
            break;
        knowledge->stream[step->stream] = true;
        knowledge->owned[step->stream] = (int)answer->result;
        remember(knowledge, (int)answer->result);
        break;
    case FCLOSE:
        knowledge->stream[step->stream] = false;
        forget(knowledge, knowledge->owned[step->stream]);
        break;
    case SETLK:
        knowledge->locks = knowledge->locks || answer->result == 0;
        break;
    case FORK:
        known[step->to] = actor_of_other_kind(actor, step->to) ? (struct knowledge){.alive = true} : *knowledge;
        known[step->to].locks = false;
        break;
    case EXEC:
        memset(knowledge->stream, 0, sizeof(knowledge->stream));
        break;
    case EXIT:
        knowledge->alive = false;
        break;
    default:
        break;
    }
}

bool script_alive(int actor)
{
    return known[actor].alive;
}

/* ---- a sequence ---- */

void script_begin(const char *spool, uint64_t seed)
{
    root = spool;
    sequence = seed;
    state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    memset(known, 0, sizeof(known));
    known[0].alive = true;
}

void script_close_often(void)
{
    weights[CLOSE] *= 8;
    weights[FCLOSE] *= 4;
}

void script_mix(void)
{
    apart = true;
}

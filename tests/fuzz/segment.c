/* SPDX-License-Identifier: MIT
 *
 * The fuzzer of the segment: a store that real operations have made, with words that a user who can write it has
 * changed; every operation, the listings, `verify`, `dump segment` and the mirror's work meet that.
 *
 *     segment [--seed N] [--count N] [--seconds N] [--live]
 *
 * The happy path, for each seed:
 *   1. The segment becomes what it was at first.
 *   2. Some words are changed; one seed in fifty, or with --live each, has a process that goes on changing them.
 *   3. A child works: as a user's program, as the mirror, as one that looks, or all of these.  It sets the state to
 * READY again after each operation, as the user might, so that one damage does not hide the next.
 *
 * Failure modes: see watch.h.  The same --seed with --count 1 does the same again, but for --live.
 */
#include "base/clock.h"
#include "base/findings.h"
#include "base/guard.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/checkpoint.h"
#include "mirror/compaction.h"
#include "mirror/database.h"
#include "mirror/dump.h"
#include "mirror/evictor.h"
#include "mirror/format.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/pager.h"
#include "mutate.h"
#include "scene.h"
#include "store/await.h"
#include "store/blocks.h"
#include "store/check.h"
#include "store/names.h"
#include "store/orphans.h"
#include "store/residency.h"
#include "store/snapshot.h"
#include "store/walk.h"
#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

#define FILES   60
#define DEPTH   12         /* of a listing: the tree of the scene is less deep */
#define VISITS  3000       /* names that a listing visits */
#define READ    (1u << 18) /* bytes of a file that are read */
#define EXTENTS 64
#define BURST   50 /* words that an attacker changes between two pauses */

static int open_file, open_directory, open_large; /* descriptions from before the damage */
static struct shared_database database;
static FILE *nowhere;

/* ---- the scene ---- */

static char bytes[100000];

/* With two levels of index blocks, and blocks at both ends alone. */
static void put_large(void)
{
    int d = fastspool_open(fs, "input/large", O_RDWR | O_CREAT, 0640);

    must(d, "input/large");
    must(fastspool_write(fs, d, bytes, 50000), "input/large");
    must(fastspool_pwrite(fs, d, bytes, 100000, 4400000), "input/large");
    must(fastspool_close(fs, d), "input/large");
}

static void path_of(int i, const char *end, char path[400])
{
    static const char *const directories[] = {"input", "input/8", "msglog", "queue/input"};
    snprintf(path, 400, "%s/1abcde-%06d-AB%s", directories[i % 4], i, end);
}

static void make_files(void)
{
    char path[400], other[400];

    for (int i = 0; i < FILES; i++) {
        path_of(i, "-D", path);
        scene_put(path, bytes, (size_t)i * 137);
        path_of(i, "-H", path);
        scene_put(path, bytes, 700);
        if (i % 9 == 0) {
            path_of(i, "-J", other);
            must(fastspool_link(fs, path, other), other);
        }
    }
    for (int i = 0; i < FILES; i += 4) {
        path_of(i, "-H", path);
        must(fastspool_unlink(fs, path), path);
    }
    memset(path, 'n', sizeof(path));
    memcpy(path, "input/", 6);
    for (int i = 40; i < 250; i += 50) {
        path[i] = '\0';
        scene_put(path, bytes, 100);
        path[i] = 'n';
    }
}

/* Everything to the database, and some of it out of memory. */
static void commit_and_evict(void)
{
    static struct journal journal;
    struct database *open;
    static char path[PATH_MAX]; /* the database's, as long as it lives */
    char error[FASTSPOOL_ERROR_MAX];
    bool unready;

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    shared_database_init(&database, path);
    must(journal_open(&journal, fs, 8 * JOURNAL_FILE_MIN, error), error);
    scene_commit(&journal);
    must(shared_database_enter(&database, &open, error), error);
    must(checkpoint_run(open, &journal, error), error);
    shared_database_leave(&database, false);
    shared_database_end(&database); /* a child opens it anew */
    STORE(fs->header->residency.checkpointed, fs->header->tickets.durable);
    must(evictor_run(fs, residency_in_use(fs->header) / 2, 0, &unready), "evict");
}

static void make_scene(void)
{
    static const char *const directories[] = {"input", "input/8", "msglog", "queue", "queue/input"};

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 31 + i / 251);
    for (size_t i = 0; i < sizeof(directories) / sizeof(*directories); i++)
        must(fastspool_mkdir(fs, directories[i], 0750), directories[i]);
    make_files();
    put_large();
    commit_and_evict();
    scene_put("input/8/new", bytes, 30000);
    open_file = fastspool_open(fs, "input/8/new", O_RDWR, 0);
    open_large = fastspool_open(fs, "input/large", O_RDWR, 0);
    open_directory = fastspool_open(fs, "input", O_RDONLY | O_DIRECTORY, 0);
    fastspool_unlink(fs, "input/8/new");
}

/* ---- the segment as it was ---- */

static struct extent {
    off_t at;
    size_t size;
    char *copy;
} extents[EXTENTS];
static int extent_count;

static void remember(void)
{
    off_t end = 0;

    for (;;) {
        off_t at = lseek(fs->segment_fd, end, SEEK_DATA);
        if (at < 0)
            return;
        end = lseek(fs->segment_fd, at, SEEK_HOLE);
        struct extent *extent = &extents[extent_count++];
        if (extent_count > EXTENTS)
            fixture_fail("remember the segment", "it is in too many pieces");
        *extent = (struct extent){at, (size_t)(end - at), malloc((size_t)(end - at))};
        memcpy(extent->copy, fs->base + at, extent->size);
    }
}

static void restore(void)
{
    off_t behind = 0;

    for (int i = 0; i <= extent_count; i++) {
        off_t at = i < extent_count ? extents[i].at : (off_t)SEGMENT_SIZE;
        if (at > behind)
            fallocate(fs->segment_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, at - behind);
        if (i == extent_count)
            return;
        memcpy(&WRITABLE(fs->base[at]), extents[i].copy, extents[i].size);
        behind = at + (off_t)extents[i].size;
    }
}

/* ---- what a child does ---- */

static void again(void)
{
    STORE(fs->header->state, SEGMENT_READY);
}

static void read_all(const char *path)
{
    static char buffer[65536];
    int d = fastspool_open(fs, path, O_RDONLY, 0);
    ssize_t got = 1;

    for (off_t at = 0; d >= 0 && got > 0 && at < READ; at += got)
        got = fastspool_pread(fs, d, buffer, sizeof(buffer), at);
    if (d >= 0)
        fastspool_close(fs, d);
}

static void use_file(const char *path, struct dice *dice)
{
    static const struct timespec times[2] = {{.tv_sec = 1}, {.tv_nsec = UTIME_NOW}};
    char other[PATH_MAX];
    struct stat st;

    path_of((int)dice_below(dice, FILES), "-N", other);
    switch (dice_below(dice, 12)) {
    case 0:
        fastspool_unlink(fs, path);
        break;
    case 1:
        fastspool_rename(fs, path, other, 0);
        break;
    case 2:
        fastspool_link(fs, path, other);
        break;
    case 3:
        fastspool_truncate(fs, path, (off_t)dice_below(dice, 100000));
        break;
    case 4:
        fastspool_truncate(fs, path, 0);
        break;
    case 5:
        fastspool_chmod(fs, path, (mode_t)dice_roll(dice));
        break;
    case 6:
        fastspool_chown(fs, path, 1, 1);
        break;
    case 7:
        fastspool_utimens(fs, path, times);
        break;
    case 8:
        fastspool_stat(fs, path, &st);
        fastspool_access(fs, path, R_OK | W_OK, true);
        break;
    default:
        read_all(path);
    }
}

/* As `ls` and `find -delete` do: what a listing says is what is used. */
static void visit(const char *path, struct dice *dice, int depth, int *visits)
{
    struct fastspool_entry entries[16];
    char below[PATH_MAX];
    uint64_t after = 0;
    ssize_t count;
    int d = depth < DEPTH ? fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0) : -ELOOP;

    while (d >= 0 && (count = fastspool_list(fs, d, after, entries, 16)) > 0 && *visits < VISITS) {
        for (ssize_t i = 0; i < count; i++) {
            const char *name = entries[i].name;
            if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
                printf("a name leaves the store: \"%s\"\n", name);
                _exit(3);
            }
            if ((size_t)snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", name) >= sizeof(below))
                continue;
            (*visits)++;
            if (entries[i].type == 4)
                visit(below, dice, depth + 1, visits);
            else
                use_file(below, dice);
        }
        after = entries[count - 1].position;
    }
    if (d >= 0)
        fastspool_close(fs, d);
}

static void use_descriptions(struct dice *dice)
{
    static char buffer[200000];
    char path[PATH_MAX];
    struct stat st;
    off_t at = (off_t)dice_below(dice, 5000000);

    fastspool_fstat(fs, open_file, &st);
    fastspool_pread(fs, open_large, buffer, sizeof(buffer), at);
    again();
    fastspool_read(fs, open_file, buffer, sizeof(buffer));
    fastspool_pwrite(fs, open_large, buffer, dice_below(dice, sizeof(buffer)), at);
    again();
    fastspool_write(fs, open_file, buffer, dice_below(dice, 70000));
    fastspool_append(fs, open_large, buffer, 5000);
    again();
    fastspool_ftruncate(fs, open_large, (off_t)dice_below(dice, 5000000));
    again();
    fastspool_allocate(fs, open_file, 0, (off_t)dice_below(dice, 100000));
    fastspool_lseek(fs, open_file, at, SEEK_END);
    walk_path(fs, (uint32_t)dice_below(dice, 300), path, sizeof(path));
    again();
    fastspool_close(fs, open_large);
}

static void be_program(struct dice *dice)
{
    struct statvfs room;
    struct fastspool_status status;
    char path[400];
    int visits = 0;

    use_descriptions(dice);
    for (int i = 0; i < 20; i++) {
        again();
        path_of((int)dice_below(dice, FILES), dice_below(dice, 2) ? "-D" : "-H", path);
        use_file(path, dice);
        again();
        path_of((int)dice_below(dice, FILES), "-X", path);
        int d = fastspool_open(fs, path, O_RDWR | O_CREAT | O_EXCL, 0640);
        if (d >= 0) {
            fastspool_write(fs, d, bytes, dice_below(dice, 20000));
            fastspool_close(fs, d);
        }
    }
    again();
    fastspool_mkdir(fs, "input/made", 0750);
    fastspool_rename(fs, "input/8", "input/made/8", 0);
    again();
    fastspool_rmdir(fs, "queue");
    fastspool_statvfs(fs, &room);
    fastspool_status(fs, &status);
    again();
    visit("", dice, 0, &visits);
}

static int to_nowhere(void *context, const void *from, size_t size)
{
    (void)context;
    return fwrite(from, 1, size, nowhere) == size ? 0 : -EIO;
}

static void be_mirror(struct dice *dice)
{
    struct pager pager = {.fs = fs, .database = &database};
    struct capture capture;
    char error[FASTSPOOL_ERROR_MAX];
    bool unready;
    int rounds = 0;

    fs->mirror = true;
    capture_reset(fs);
    again();
    if (capture_take(fs, &capture) == 0 && capture.count > 0) {
        format_size(&capture);
        format_encode(fs, &capture, to_nowhere, NULL);
        capture_end(fs, &capture, dice_below(dice, 4) ? 0 : -EIO, 1);
    }
    again();
    descriptions_reap(fs);
    again();
    orphans_free(fs);
    again();
    names_split_ahead(fs);
    again();
    compaction_vacate(fs, (uint32_t)dice_below(dice, 4));
    compaction_run(fs);
    again();
    blocks_give_back(fs, 0);
    again();
    evictor_run(fs, dice_below(dice, 2) ? 0 : 5 << 20, dice_below(dice, 1000), &unready);
    again();
    while (pager_serve(&pager, error) > 0 && rounds++ < 100)
        ;
}

static void be_looker(struct dice *dice)
{
    struct findings *findings = findings_new(50);
    struct fastspool *snapshot;

    check_segment(fs, findings);
    if (snapshot_take(fs, &snapshot) == 0) {
        dump_segment(fs, snapshot, dice_below(dice, 8) == 0, nowhere);
        snapshot_free(snapshot);
    }
    findings_free(findings, 50);
}

static void work(uint64_t seed, struct dice *dice)
{
    switch (seed % 4) {
    case 0:
        be_program(dice);
        break;
    case 1:
        be_mirror(dice);
        break;
    case 2:
        be_looker(dice);
        break;
    default:
        be_program(dice);
        again();
        be_mirror(dice);
        again();
        be_looker(dice);
    }
    fflush(NULL);
    _exit(0);
}

/* ---- a run ---- */

/* The mirror that waiters wait for: it is somebody else's, and lives. */
static int lives(struct fastspool *store)
{
    (void)store;
    return 1;
}

static int start(struct fastspool *store)
{
    (void)store;
    return 0;
}

/* No signal inside a section, as with the preloaded library. */
static sigset_t outside;

static void enter(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &outside);
}

static void leave(void)
{
    sigprocmask(SIG_SETMASK, &outside, NULL);
}

static pid_t start_attacker(uint64_t seed)
{
    struct dice dice = {seed ^ UINT64_C(0x5555)};
    pid_t attacker = fork();

    if (attacker != 0)
        return attacker;
    alarm(3 * WATCH_PATIENCE); /* if the parent is gone */
    for (;;) {
        for (int i = 0; i < BURST; i++)
            mutate_segment(&WRITABLE(*fs->base), &dice);
        clock_sleep(dice_below(&dice, 500000)); /* the processor is the child's, too */
    }
}

static void run(struct watch *watch, uint64_t seed, bool live)
{
    struct dice dice = {seed};
    pid_t attacker = 0;

    restore();
    for (uint64_t words = 1 + dice_below(&dice, 6); words > 0; words--)
        mutate_segment(&WRITABLE(*fs->base), &dice);
    if (live || seed % 50 == 49)
        attacker = start_attacker(seed);
    pid_t child = fork();
    if (child == 0)
        work(seed, &dice);
    watch_child(watch, child, seed);
    if (attacker > 0) {
        kill(attacker, SIGKILL);
        waitpid(attacker, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    static const struct keeper keeper = {lives, start};
    struct watch watch = {.what = "segment"};

    watch_options(&watch, argc, argv);
    nowhere = fopen("/dev/null", "w");
    fixture_setup();
    checking_every(0);
    make_scene();
    remember();
    fs->keeper = &keeper;
    section_guard = (struct section_guard){enter, leave};
    for (uint64_t seed; watch_next(&watch, &seed);)
        run(&watch, seed, watch.live);
    fixture_teardown();
    return watch_end(&watch);
}

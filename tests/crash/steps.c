/* SPDX-License-Identifier: MIT
 *
 * Kill at every step: each operation that changes the store is begun again and again in a process that is killed at
 * its 1st, 2nd, ... store into the segment, and at its 1st, 2nd, ... system call, until it completes.
 *
 * After each death two other processes look, one that was attached before and one that attaches now (who comes first,
 * and repairs, changes from step to step): the segment must be intact (check.c), the tree must be as before the
 * operation or as after it (for the few that are documented to take several sections: as after some of them), what the
 * dead had open is freed, and the store goes on: it is used, committed, emptied, and must then hold nothing at all.
 * The same once more with a third process that works all the time.
 *
 * A harness that can't fail is a defect: the last part takes the rollback away, an undo record away, the reaping away,
 * and requires that each is found.
 *
 *      steps [--operation NAME] [--quick N]      N: only every N-th step; one operation alone: each
 */
#include "check.h"
#include "fixture.h"
#include "paging.h"
#include "victim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_SIZE  10000
#define BIG_SIZE   25000              /* has an index block */
#define HUGE_SIZE  (140 * BLOCK_SIZE) /* is freed in several sections */
#define LARGE_SIZE 150000             /* is written in several sections */
#define LONG_NAME  "t/a-name-that-takes-three-entries-of-the-table-because-it-is-much-longer-than-exim's-are"

static char bytes[HUGE_SIZE];
static int victims; /* description that `prepare` opened for `run` */
static struct capture captured;

/* ---- the scene ---- */

static void must(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "steps: the scene: %s: %s\n", what, strerrordesc_np((int)-result));
        abort();
    }
}

static void put(const char *path, size_t size)
{
    int d = fastspool_open(fs, path, O_WRONLY | O_CREAT | O_EXCL, 0640);

    must(d, path);
    must(fastspool_write(fs, d, bytes, size), path);
    must(fastspool_close(fs, d), path);
}

static void date(const char *path)
{
    static const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    must(fastspool_utimens(fs, path, old), path);
}

static void scene_set(bool huge)
{
    static const char *const all[] = {"t/empty", "t/small",  "t/file", "t/big", "t/linked",
                                      "t/dir",   "t/full/x", "t/full", "t"};

    must(fastspool_mkdir(fs, "t", 0750), "t");
    put("t/empty", 0);
    put("t/small", 10);
    put("t/file", FILE_SIZE);
    put("t/big", BIG_SIZE);
    must(fastspool_link(fs, "t/file", "t/linked"), "t/linked");
    must(fastspool_mkdir(fs, "t/dir", 0750), "t/dir");
    must(fastspool_mkdir(fs, "t/full", 0750), "t/full");
    put("t/full/x", 100);
    if (huge) {
        put("t/huge", HUGE_SIZE);
        date("t/huge");
    }
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        date(all[i]);
}

static int remove_tree(const char *path)
{
    struct fastspool_entry entry;
    int d = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);
    int result = d;

    while (d >= 0 && (result = (int)fastspool_list(fs, d, 0, &entry, 1)) > 0) {
        char below[512];
        snprintf(below, sizeof(below), "%.200s/%s", path, entry.name);
        result = entry.type == 4 ? remove_tree(below) : fastspool_unlink(fs, below);
        if (result < 0)
            break;
    }
    if (d >= 0)
        fastspool_close(fs, d);
    return result < 0 ? result : fastspool_rmdir(fs, path);
}

/* ---- the operations ---- */

static void open_file(const char *path, int flags)
{
    victims = fastspool_open(fs, path, flags, 0640);
    if (victims < 0)
        _exit(4);
}
static void opens_empty(void)
{
    open_file("t/empty", O_WRONLY);
}
static void opens_small(void)
{
    open_file("t/small", O_RDWR);
}
static void opens_append(void)
{
    open_file("t/small", O_RDWR | O_APPEND);
}
static void opens_file(void)
{
    open_file("t/file", O_RDWR);
}
static void opens_big(void)
{
    open_file("t/big", O_RDWR);
}
static void opens_directory(void)
{
    open_file("t", O_RDONLY | O_DIRECTORY);
}
static void opens_unlinked(void)
{
    open_file("t/big", O_RDWR);
    fastspool_unlink(fs, "t/big");
}
static void opens_unlinked_huge(void)
{
    open_file("t/huge", O_RDWR);
    fastspool_unlink(fs, "t/huge");
}
static void warms_pool(void)
{
    open_file("t/small", O_RDONLY);
    fastspool_close(fs, victims);
}

static void create(void)
{
    fastspool_open(fs, "t/new", O_RDWR | O_CREAT | O_EXCL, 0640);
}
static void create_long(void)
{
    fastspool_open(fs, LONG_NAME, O_RDWR | O_CREAT | O_EXCL, 0640);
}
static void open_existing(void)
{
    fastspool_open(fs, "t/file", O_RDONLY, 0);
}
static void open_truncating(void)
{
    fastspool_open(fs, "t/file", O_WRONLY | O_TRUNC, 0);
}
static void write_first(void)
{
    fastspool_write(fs, victims, bytes, 5000);
}
static void write_inside(void)
{
    fastspool_pwrite(fs, victims, bytes + 7, 300, 4000);
}
static void write_append(void)
{
    fastspool_write(fs, victims, bytes, 100);
}
static void write_behind(void)
{
    fastspool_pwrite(fs, victims, bytes, 100, 50000);
}
static void write_large(void)
{
    fastspool_write(fs, victims, bytes, LARGE_SIZE);
}
static void truncate_down(void)
{
    fastspool_ftruncate(fs, victims, 5000);
}
static void truncate_up(void)
{
    fastspool_ftruncate(fs, victims, 20000);
}
static void truncate_empty(void)
{
    fastspool_truncate(fs, "t/big", 0);
}
static void truncate_huge(void)
{
    fastspool_truncate(fs, "t/huge", 1000);
}
static void truncate_huge_empty(void)
{
    fastspool_truncate(fs, "t/huge", 0);
}
static void rename_plain(void)
{
    fastspool_rename(fs, "t/small", "t/new", 0);
}
static void rename_over(void)
{
    fastspool_rename(fs, "t/small", "t/big", 0);
}
static void rename_across(void)
{
    fastspool_rename(fs, "t/small", "t/full/x", 0);
}
static void rename_directory(void)
{
    fastspool_rename(fs, "t/full", "t/dir", 0);
}
static void rename_same(void)
{
    fastspool_rename(fs, "t/file", "t/linked", 0);
}
static void link_file(void)
{
    fastspool_link(fs, "t/small", "t/full/new");
}
static void unlink_one(void)
{
    fastspool_unlink(fs, "t/linked");
}
static void unlink_last(void)
{
    fastspool_unlink(fs, "t/big");
}
static void unlink_huge(void)
{
    fastspool_unlink(fs, "t/huge");
}
static void make_directory(void)
{
    fastspool_mkdir(fs, "t/new", 0750);
}
static void remove_directory(void)
{
    fastspool_rmdir(fs, "t/dir");
}
static void close_it(void)
{
    fastspool_close(fs, victims);
}
static void change_mode(void)
{
    fastspool_chmod(fs, "t/file", 0600);
}
static void change_mode_open(void)
{
    fastspool_fchmod(fs, victims, 0600);
}
static void change_owner(void)
{
    fastspool_chown(fs, "t/file", 7, 8);
}
static void change_owner_open(void)
{
    fastspool_fchown(fs, victims, 7, 8);
}
static void change_times(void)
{
    const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    fastspool_utimens(fs, "t/file", now);
}
static void change_times_open(void)
{
    fastspool_futimens(fs, victims, NULL);
}
static void sync_it(void)
{
    fastspool_fsync(fs, victims);
}
static void look(void)
{
    struct fastspool_entry entries[4];
    struct stat st;
    char some[100];

    fastspool_stat(fs, "t/file", &st);
    fastspool_access(fs, "t/file", R_OK, true);
    fastspool_list(fs, victims, 0, entries, 4);
    open_existing();
    fastspool_read(fs, victims, some, sizeof(some));
    fastspool_lseek(fs, victims, 5, SEEK_SET);
    fastspool_fstat(fs, victims, &st);
}
static void lock_it(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 19};
    fastspool_lock(fs, victims, F_SETLK, &lock);
    fastspool_close(fs, victims);
}
static void fork_and_close(void)
{
    int status;

    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        fastspool_close(fs, victims);
        _exit(0);
    }
    fastspool_close(fs, victims);
    waitpid(pid, &status, 0);
}
static void exhaust_pool(void)
{
    int d[10];

    for (int i = 0; i < 10; i++)
        d[i] = fastspool_open(fs, "t/file", O_RDONLY, 0);
    for (int i = 0; i < 10; i++)
        fastspool_close(fs, d[i]);
}

static void capture(void)
{
    commit_capture(fs, &captured);
}
static void end_well(void)
{
    commit_end(fs, &captured, 0, 1);
}
static void end_badly(void)
{
    commit_end(fs, &captured, EIO, 1);
}
static void commit_begun_long_ago(void)
{
    capture();
    fastspool_unlink(fs, "t/big"); /* quarantine */
    fastspool_unlink(fs, "t/file");
    open_file("t/new", O_WRONLY | O_CREAT);
    fastspool_write(fs, victims, bytes, 5000);
}
static void reset(void)
{
    commit_reset(fs);
}
static void leave_chunk(void)
{
    for (uint32_t c = 0; c < fs->header->chunks_used; c++)
        chunk_at(fs, c)->emptied -= 100; /* long ago */
}
static void give_back(void)
{
    blocks_give_back(fs, 0);
}
static void reap(void)
{
    descriptions_reap(fs);
}
static void another_dies(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        opens_unlinked();
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
}


/* ---- compaction ---- */

static uint32_t pieces_at; /* the chunk */

/* All but the scene, in the first chunk, and two files in the second, one of which has an index block, is free. */
static void scatter(void)
{
    static const char filler[CHUNK_SIZE];
    struct stat st;
    int pad = fastspool_open(fs, "pad", O_WRONLY | O_CREAT, 0600);

    must(fastspool_write(fs, pad, filler, sizeof(filler)), "pad");
    put("t/piece", 100);
    put("t/pieces", (INODE_DIRECT + 5) * BLOCK_SIZE);
    must(fastspool_pwrite(fs, pad, filler, sizeof(filler), sizeof(filler)), "pad");
    fastspool_close(fs, pad);
    must(fastspool_unlink(fs, "pad"), "pad");
    must(inodes_free_orphans(fs), "pad");
    date("t/piece");
    date("t/pieces");
    date("t");
    must(fastspool_stat(fs, "t/piece", &st), "t/piece");
    pieces_at = data_block(fs, inode_at(fs, (uint32_t)st.st_ino), 0) / CHUNK_BLOCKS;
}
static void scatter_and_capture(void)
{
    scatter();
    must(commit_capture(fs, &captured), "capture");
}
static void compact(void)
{
    if (compaction_vacate(fs, pieces_at) < 0)
        _exit(4);
}

/* ---- eviction: the scene is in a real database ---- */

static char why[FASTSPOOL_ERROR_MAX];

/* All of the store is in the database. */
static void checkpoint(void)
{
    static struct journal journal;
    struct capture all;
    struct mirror mirror;
    char path[FASTSPOOL_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    must(journal_open(&journal, fs, JOURNAL_BYTES / 64, why), why);
    must(commit_capture(fs, &all), "capture");
    must(journal_append(&journal, &all, why), why);
    must(commit_end(fs, &all, 0, 1), "end the commit");
    must(mirror_open(&mirror, path, why), why);
    must(checkpoint_run(&mirror, &journal, why), why);
    mirror_close(&mirror);
    journal_close(&journal);
}
static void evict_all(void)
{
    bool unready;

    if (eviction_run(fs, 0, UINT64_MAX, &unready) < 0 || unready)
        _exit(4);
}
static int want_all(struct fastspool *store, void *argument)
{
    (void)argument;
    for (uint32_t i = 1; i < store->header->inodes.used; i++)
        paging_want(store, &i);
    return 0;
}
static void evicted_and_wanted(void)
{
    evict_all();
    if (section_run(fs, want_all, NULL) < 0)
        _exit(4);
}
static void bring_back(void)
{
    struct pager pager = paging_of(fs);

    while (pager_bring_back(&pager, why) > 0)
        ;
    database_end(&paging_database);
}
static void wanted_of_little_memory(void)
{
    evicted_and_wanted();
    segment_limit(fs->header, 3 * HUGE_SIZE); /* the huge one is to be spilled */
}
static void spilled(void)
{
    wanted_of_little_memory();
    bring_back();
    if (fs->header->spilled != 1)
        _exit(4);
}
static void sweep(void)
{
    spill_sweep(fs);
}
static void fail_to_bring_back(void)
{
    struct fault faults[16];
    int count = eviction_faults(fs, faults, 16);

    for (int i = 0; i < count; i++)
        eviction_end_fault(fs, &faults[i], false, EIO, false);
}
/* What a pager has left that died over a huge file. */
static int half_bring_back(struct fastspool *store, void *argument)
{
    (void)argument;
    for (uint32_t i = store->header->faults.head; i; i = inode_at(store, i)->fault.next) {
        int result = inode_at(store, i)->size > DATA_STEP ? data_load(store, i, bytes, DATA_STEP, 0) : 0;
        if (result < 0)
            return result;
    }
    return 0;
}
static void half_back(void)
{
    evicted_and_wanted();
    if (section_run(fs, half_bring_back, NULL) < 0)
        _exit(4);
}

/* What may be seen between the sections of an operation that takes several: the @n-th; false: there is no more. */
static bool between_writes(unsigned n)
{
    if ((n + 1) * DATA_STEP >= LARGE_SIZE)
        return false;
    opens_empty();
    fastspool_write(fs, victims, bytes, (n + 1) * DATA_STEP);
    fastspool_close(fs, victims);
    return true;
}
static bool between_truncations(unsigned n)
{
    uint64_t blocks = HUGE_SIZE / BLOCK_SIZE - (n + 1) * DATA_FREE_STEP;
    return n == 0 && fastspool_truncate(fs, "t/huge", (off_t)(blocks * BLOCK_SIZE)) == 0;
}

enum needs {
    HUGE = 1,   /* the scene has a huge file */
    FRESH = 2,  /* in a store in which nothing was ever made */
    COMMIT = 4, /* while a commit runs */
    EVICT = 8,  /* the scene is in the database */
};

struct operation {
    const char *name;
    struct deed deed;
    unsigned needs;
    bool (*between)(unsigned n);
};

static const struct operation operations[] = {
    {"create", {NULL, create}, 0, NULL},
    {"create with pool", {warms_pool, create}, 0, NULL},
    {"create with a long name", {NULL, create_long}, 0, NULL},
    {"open", {NULL, open_existing}, 0, NULL},
    {"open with truncation", {NULL, open_truncating}, 0, NULL},
    {"open more than the pool holds", {NULL, exhaust_pool}, 0, NULL},
    {"write into an empty file", {opens_empty, write_first}, 0, NULL},
    {"write over", {opens_file, write_inside}, 0, NULL},
    {"append", {opens_append, write_append}, 0, NULL},
    {"write behind the end", {opens_small, write_behind}, 0, NULL},
    {"write much", {opens_empty, write_large}, 0, between_writes},
    {"truncate down", {opens_file, truncate_down}, 0, NULL},
    {"truncate up", {opens_small, truncate_up}, 0, NULL},
    {"truncate to nothing", {NULL, truncate_empty}, 0, NULL},
    {"truncate much", {NULL, truncate_huge}, HUGE, between_truncations},
    {"truncate much to nothing", {NULL, truncate_huge_empty}, HUGE, NULL},
    {"rename", {NULL, rename_plain}, 0, NULL},
    {"rename over a file", {NULL, rename_over}, 0, NULL},
    {"rename over an open file", {opens_big, rename_over}, 0, NULL},
    {"rename across directories", {NULL, rename_across}, 0, NULL},
    {"rename a directory over another", {NULL, rename_directory}, 0, NULL},
    {"rename to another name of the same", {NULL, rename_same}, 0, NULL},
    {"link", {NULL, link_file}, 0, NULL},
    {"unlink one of two names", {NULL, unlink_one}, 0, NULL},
    {"unlink the last name", {NULL, unlink_last}, 0, NULL},
    {"unlink an open file", {opens_big, unlink_last}, 0, NULL},
    {"unlink a huge file", {NULL, unlink_huge}, HUGE, NULL},
    {"mkdir", {NULL, make_directory}, 0, NULL},
    {"rmdir", {NULL, remove_directory}, 0, NULL},
    {"close", {opens_file, close_it}, 0, NULL},
    {"close an unlinked file", {opens_unlinked, close_it}, 0, NULL},
    {"close an unlinked huge file", {opens_unlinked_huge, close_it}, HUGE, NULL},
    {"chmod", {NULL, change_mode}, 0, NULL},
    {"fchmod", {opens_file, change_mode_open}, 0, NULL},
    {"chown", {NULL, change_owner}, 0, NULL},
    {"fchown", {opens_file, change_owner_open}, 0, NULL},
    {"utimens", {NULL, change_times}, 0, NULL},
    {"futimens", {opens_file, change_times_open}, 0, NULL},
    {"fsync", {opens_file, sync_it}, 0, NULL},
    {"lock and close", {opens_file, lock_it}, 0, NULL},
    {"look, read and list", {opens_directory, look}, 0, NULL},
    {"fork and close in both", {opens_unlinked, fork_and_close}, 0, NULL},
    {"write over during a commit", {opens_file, write_inside}, COMMIT, NULL},
    {"truncate down during a commit", {opens_file, truncate_down}, COMMIT, NULL},
    {"rename over during a commit", {NULL, rename_over}, COMMIT, NULL},
    {"unlink during a commit", {NULL, unlink_last}, COMMIT, NULL},
    {"create during a commit", {NULL, create}, COMMIT, NULL},
    {"capture", {NULL, capture}, 0, NULL},
    {"end a commit", {commit_begun_long_ago, end_well}, 0, NULL},
    {"end a failed commit", {commit_begun_long_ago, end_badly}, 0, NULL},
    {"take over from a dead mirror", {commit_begun_long_ago, reset}, 0, NULL},
    {"give memory back", {leave_chunk, give_back}, 0, NULL},
    {"compact", {scatter, compact}, 0, NULL},
    {"compact during a commit", {scatter_and_capture, compact}, 0, NULL},
    {"reap the dead", {another_dies, reap}, 0, NULL},
    {"evict", {NULL, evict_all}, EVICT, NULL},
    {"evict a huge file", {NULL, evict_all}, EVICT | HUGE, NULL},
    {"open an evicted file", {evict_all, open_existing}, EVICT, NULL},
    {"open an evicted file with truncation", {evict_all, open_truncating}, EVICT, NULL},
    {"open a wanted file with truncation", {evicted_and_wanted, open_truncating}, EVICT, NULL},
    {"truncate an evicted file to nothing", {evict_all, truncate_huge_empty}, EVICT | HUGE, NULL},
    {"truncate a half-brought file to nothing", {half_back, truncate_huge_empty}, EVICT | HUGE, NULL},
    {"chmod an evicted file", {evict_all, change_mode}, EVICT, NULL},
    {"rename an evicted file over another", {evict_all, rename_over}, EVICT, NULL},
    {"link an evicted file", {evict_all, link_file}, EVICT, NULL},
    {"unlink an evicted file", {evict_all, unlink_last}, EVICT, NULL},
    {"unlink an evicted huge file", {evict_all, unlink_huge}, EVICT | HUGE, NULL},
    {"bring evicted files back", {evicted_and_wanted, bring_back}, EVICT, NULL},
    {"bring a huge file back", {evicted_and_wanted, bring_back}, EVICT | HUGE, NULL},
    {"bring half-brought files back", {half_back, bring_back}, EVICT | HUGE, NULL},
    {"bring back to a spill file", {wanted_of_little_memory, bring_back}, EVICT | HUGE, NULL},
    {"sweep spill files", {spilled, sweep}, EVICT | HUGE, NULL},
    {"unlink a spilled file", {spilled, unlink_huge}, EVICT | HUGE, NULL},
    {"fail to bring files back", {half_back, fail_to_bring_back}, EVICT | HUGE, NULL},
    {"create, first of all", {NULL, create}, FRESH, NULL},
    {"write, first of all", {create, write_first}, FRESH, NULL},
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

/* ---- one death and what follows ---- */

enum mutation { SOUND, NO_ROLLBACK, LOSE_RECORD, NO_REAP, MUTATIONS };
static const char *const mutation_name[] = {"", "rollback", "the last undo record", "reaping"};

typedef enum victim_end (*executioner)(struct fastspool *, const struct deed *, unsigned);

struct trial {
    const struct operation *operation;
    executioner kill;
    const char *steps; /* what the executioner counts */
    enum mutation mutation;
    bool company;     /* another process works all the time */
    char *allowed[8]; /* the states of the tree that may be seen: before, after, in between */
    size_t states;
    const char *looker; /* who found what is wrong */
    char found[FASTSPOOL_ERROR_MAX + 200];
};

static void renew_store(void)
{
    fixture_teardown();
    fixture_setup();
}

static void scene_for(const struct operation *operation)
{
    if (operation->needs & FRESH) {
        renew_store();
        must(fastspool_mkdir(fs, "t", 0750), "t");
        date("t");
        return;
    }
    if ((operation->needs & EVICT) && mkdir(fs->state, 0700) < 0 && errno != EEXIST)
        must(-errno, fs->state);
    scene_set(operation->needs & HUGE);
    if (operation->needs & EVICT)
        checkpoint();
    if (operation->needs & COMMIT)
        must(commit_capture(fs, &captured), "capture");
}

/* As the mirror does, and as a new mirror does: all that is dirty is on the disk. */
static int commit_all(void)
{
    struct capture all;
    int result = commit_reset(fs);

    if (result == 0)
        result = commit_capture(fs, &all);
    if (result == 0 && all.count)
        result = commit_end(fs, &all, 0, 1);
    return result;
}

static bool complain(struct trial *trial, const char *what, const char *detail)
{
    snprintf(trial->found, sizeof(trial->found), "%s: %s: %.600s", trial->looker, what, detail);
    return false;
}

/* The first line in which two texts differ. */
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
    return complain(trial, "the tree is neither as before nor as after", detail);
}

/* Is the store as it must be after a death at any step? */
static bool intact(struct trial *trial)
{
    char error[FASTSPOOL_ERROR_MAX];
    bool known = false;

    if (check_segment(fs, error) < 0)
        return complain(trial, "the segment is damaged", error);
    if (trial->operation->needs & EVICT)
        paging_all(fs);
    char *now = check_dump(fs, "t");
    for (size_t i = 0; i < trial->states; i++)
        known = known || strcmp(now, trial->allowed[i]) == 0;
    if (!known)
        complain_difference(trial, now);
    free(now);
    if (known && check_segment(fs, error) < 0)
        return complain(trial, "the segment is damaged after looking at the tree", error);
    return known;
}

/* The same in a process that attaches only now. */
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
    int result = d < 0 ? d : (int)fastspool_write(fs, d, bytes, FILE_SIZE);

    if (result >= 0)
        result = fastspool_close(fs, d);
    if (result >= 0)
        result = fastspool_rename(fs, "t/afterwards", "t/later", 0);
    if (result >= 0 && trial->mutation != NO_REAP)
        result = descriptions_reap(fs);
    if (result >= 0)
        result = trial->operation->needs & COMMIT ? commit_end(fs, &captured, 0, 1) : commit_all();
    if (result >= 0)
        result = remove_tree("t");
    if (result >= 0)
        result = blocks_release_held(fs);
    if (result < 0)
        return complain(trial, "the store does not go on", strerrordesc_np(-result));
    if (check_segment(fs, error) < 0)
        return complain(trial, "the segment is damaged after going on", error);
    const struct header *h = fs->header;
    if (!trial->company && (h->files != 0 || h->inodes.count != 1 || h->names.count != 0 || h->blocks_used != 0)) {
        snprintf(error, sizeof(error), "%llu files, %u inodes, %u names, %llu blocks", (unsigned long long)h->files,
                 h->inodes.count, h->names.count, (unsigned long long)h->blocks_used);
        return complain(trial, "something is left in an empty store", error);
    }
    return true;
}

static void mutate(enum mutation mutation)
{
    if (mutation == NO_ROLLBACK)
        fs->header->undo_count = 0;
    if (mutation == LOSE_RECORD && fs->header->undo_count > 0)
        fs->header->undo_count--;
}

/* The dead one at @step of its operation. */
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
    return check_dump(fs, "t");
}

/* What may be seen: the tree before (but after `prepare`), after, and between the sections of the operation. */
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
            more = operation->between && operation->between(n - 1);
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

/* How many steps there were; false in *@good: something is wrong, and trial->found says what. */
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

/* ---- company ---- */

static volatile sig_atomic_t stop_working;

static void on_stop(int number)
{
    (void)number;
    stop_working = 1;
}

/* Another process: it makes, fills, renames, reads, lists and removes, and none of that may ever fail. */
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
        result = (int)fastspool_write(fs, d, bytes, size);
        if (result >= 0)
            result = fastspool_rename(fs, "company/a", "company/b", 0);
        if (result >= 0 &&
            (fastspool_pread(fs, d, buffer, size, 0) != (ssize_t)size || memcmp(buffer, bytes, size) != 0))
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
    return result < 0 ? result : remove_tree("company");
}

static pid_t company_begin(void)
{
    fflush(NULL);
    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fastspool_after_fork_child(fs);
    signal(SIGTERM, on_stop);
    fs = fixture_attach();
    int result = work();
    if (result < 0)
        fprintf(stderr, "FAILED the process beside: %s\n", strerrordesc_np(-result));
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

/* ---- everything ---- */

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
        printf("%-38s %s %5u %s\n", operation->name, company ? "in company" : "alone     ", steps,
               way == 0 ? "stores" : "stops at system calls");
        points += steps;
        if (!good) {
            fprintf(stderr, "FAILED %s: %s\n", operation->name, trial.found[0] ? trial.found : "its company");
            *all_good = false;
            renew_store();
        }
    }
    return points;
}

/* Each mutation must be found by killing at the stores of one of these. */
static bool mutations_are_found(void)
{
    bool all = true;

    for (int mutation = NO_ROLLBACK; mutation < MUTATIONS; mutation++) {
        bool good = true;
        struct trial trial;
        for (size_t i = 0; i < OPERATIONS && good; i++) {
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

/* For the time that all of it takes: which steps.  A huge file goes and comes by the block, each as the one before. */
static unsigned every(unsigned needs, bool company)
{
    if (needs & HUGE)
        return needs & EVICT ? 40 : company ? 36 : 12;
    return company ? 3 : 1;
}

int main(int argc, char **argv)
{
    const char *only = NULL;
    unsigned stride = 1;
    unsigned long points = 0;
    bool good = true;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--operation") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--quick") == 0)
            stride = (unsigned)atoi(argv[i + 1]);
    }
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 31 + i / 251);
    fixture_setup();
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    for (int company = 0; company < 2; company++) {
        for (size_t i = 0; i < OPERATIONS; i++) {
            /* What is done by the one mirror, or in an untouched store, has no company. */
            bool lonely = operations[i].needs & (FRESH | COMMIT | EVICT) || operations[i].deed.run == end_well ||
                          operations[i].deed.run == end_badly || operations[i].deed.run == give_back;
            if ((only && strcmp(only, operations[i].name) != 0) || (company && lonely))
                continue;
            points += trial_of(&operations[i], only ? stride : stride * every(operations[i].needs, company), company, &good);
        }
    }
    printf("%lu deaths\n", points);
    if (!only)
        good = mutations_are_found() && good;
    fixture_teardown();
    printf("%s\n", good ? "passed" : "FAILED");
    return good ? 0 : 1;
}

/* SPDX-License-Identifier: MIT
 *
 * The operations that are killed: each call that changes the store, and each way in which a part of the store is used.
 *
 * The happy path: an operation has two parts, `prepare` (opens files, begins commits) and `run`, whose steps are
 * counted.  The victim does both, on the scene (scene.c) that its parent has set.  The table at the end names the
 * operations.  Operations on evicted files are in evicted.c.
 *
 * Failure modes: the result of `run` is ignored, because the tree shows afterwards what was done.  A preparation that
 * fails exits with a status, which counts as a victim that died of something else.
 */
#include "operations.h"

#include "base/clock.h"
#include "evicted.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/compaction.h"
#include "store/blocks.h"
#include "store/data.h"
#include "store/descriptions.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/orphans.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LARGE_SIZE 150000 /* written in several sections */
#define LONG_NAME  "t/a-name-that-takes-three-entries-of-the-table-because-it-is-much-longer-than-exim's-are"

static int victims;             /* the description that `prepare` opened for `run` */
static struct capture captured; /* by the commit that `prepare` began */

/* ---- preparations: what the victim opens ---- */

static void open_file(struct fastspool *fs, const char *path, int flags)
{
    victims = fastspool_open(fs, path, flags, 0640);
    if (victims < 0)
        _exit(4);
}
static void opens_empty(struct fastspool *fs)
{
    open_file(fs, "t/empty", O_WRONLY);
}
static void opens_small(struct fastspool *fs)
{
    open_file(fs, "t/small", O_RDWR);
}
static void opens_append(struct fastspool *fs)
{
    open_file(fs, "t/small", O_RDWR | O_APPEND);
}
static void opens_file(struct fastspool *fs)
{
    open_file(fs, "t/file", O_RDWR);
}
static void opens_big(struct fastspool *fs)
{
    open_file(fs, "t/big", O_RDWR);
}
static void opens_directory(struct fastspool *fs)
{
    open_file(fs, "t", O_RDONLY | O_DIRECTORY);
}
static void opens_unlinked(struct fastspool *fs)
{
    open_file(fs, "t/big", O_RDWR);
    fastspool_unlink(fs, "t/big");
}
static void opens_unlinked_huge(struct fastspool *fs)
{
    open_file(fs, "t/huge", O_RDWR);
    fastspool_unlink(fs, "t/huge");
}
static void warms_pool(struct fastspool *fs)
{
    open_file(fs, "t/small", O_RDONLY);
    fastspool_close(fs, victims);
}

/* ---- files and directories ---- */

static void create(struct fastspool *fs)
{
    fastspool_open(fs, "t/new", O_RDWR | O_CREAT | O_EXCL, 0640);
}
static void create_long(struct fastspool *fs)
{
    fastspool_open(fs, LONG_NAME, O_RDWR | O_CREAT | O_EXCL, 0640);
}
static void open_existing(struct fastspool *fs)
{
    fastspool_open(fs, "t/file", O_RDONLY, 0);
}
static void open_fourth(struct fastspool *fs)
{
    fastspool_open(fs, "t/full/4-H", O_RDONLY, 0);
}
static void unlink_fourth(struct fastspool *fs)
{
    fastspool_unlink(fs, "t/full/4-H");
}
static void open_truncating(struct fastspool *fs)
{
    fastspool_open(fs, "t/file", O_WRONLY | O_TRUNC, 0);
}
static void write_first(struct fastspool *fs)
{
    fastspool_write(fs, victims, scene_bytes, 5000);
}
static void write_inside(struct fastspool *fs)
{
    fastspool_pwrite(fs, victims, scene_bytes + 7, 300, 4000);
}
static void write_append(struct fastspool *fs)
{
    fastspool_write(fs, victims, scene_bytes, 100);
}
static void write_append_more(struct fastspool *fs)
{
    fastspool_write(fs, victims, scene_bytes, 1500); /* its piece is too small for that */
}
static void write_behind(struct fastspool *fs)
{
    fastspool_pwrite(fs, victims, scene_bytes, 100, 50000);
}
static void write_large(struct fastspool *fs)
{
    fastspool_write(fs, victims, scene_bytes, LARGE_SIZE);
}
static void truncate_down(struct fastspool *fs)
{
    fastspool_ftruncate(fs, victims, 5000);
}
static void truncate_small(struct fastspool *fs)
{
    fastspool_ftruncate(fs, victims, 5);
}
static void opens_with_hole(struct fastspool *fs) /* behind its piece */
{
    open_file(fs, "t/small", O_RDWR);
    fastspool_ftruncate(fs, victims, 4000);
}
static void write_into_hole(struct fastspool *fs)
{
    fastspool_pwrite(fs, victims, scene_bytes, 100, 2500);
}
static void truncate_up(struct fastspool *fs)
{
    fastspool_ftruncate(fs, victims, 20000);
}
static void truncate_empty(struct fastspool *fs)
{
    fastspool_truncate(fs, "t/big", 0);
}
static void truncate_huge(struct fastspool *fs)
{
    fastspool_truncate(fs, "t/huge", 1000);
}
static void truncate_huge_empty(struct fastspool *fs)
{
    fastspool_truncate(fs, "t/huge", 0);
}
static void rename_plain(struct fastspool *fs)
{
    fastspool_rename(fs, "t/small", "t/new", 0);
}
static void rename_over(struct fastspool *fs)
{
    fastspool_rename(fs, "t/small", "t/big", 0);
}
static void rename_across(struct fastspool *fs)
{
    fastspool_rename(fs, "t/small", "t/full/x", 0);
}
static void move_across(struct fastspool *fs)
{
    fastspool_rename(fs, "t/small", "t/full/new", 0);
}
static void move_directory(struct fastspool *fs)
{
    fastspool_rename(fs, "t/dir", "t/full/dir", 0);
}
static void move_first_name(struct fastspool *fs) /* which is behind the second one in the file's list */
{
    fastspool_rename(fs, "t/file", LONG_NAME, 0);
}
static void moves_to_long_name(struct fastspool *fs)
{
    fastspool_rename(fs, "t/small", LONG_NAME, 0);
}
static void move_back(struct fastspool *fs)
{
    fastspool_rename(fs, LONG_NAME, "t/small", 0);
}
static void rename_directory(struct fastspool *fs)
{
    fastspool_rename(fs, "t/full", "t/dir", 0);
}
static void rename_same(struct fastspool *fs)
{
    fastspool_rename(fs, "t/file", "t/linked", 0);
}
static void link_file(struct fastspool *fs)
{
    fastspool_link(fs, "t/small", "t/full/new");
}
static void unlink_one(struct fastspool *fs)
{
    fastspool_unlink(fs, "t/linked");
}
static void unlink_last(struct fastspool *fs)
{
    fastspool_unlink(fs, "t/big");
}
static void unlink_small(struct fastspool *fs)
{
    fastspool_unlink(fs, "t/small");
}
static void unlink_huge(struct fastspool *fs)
{
    fastspool_unlink(fs, "t/huge");
}
static void make_directory(struct fastspool *fs)
{
    fastspool_mkdir(fs, "t/new", 0750);
}
static void remove_directory(struct fastspool *fs)
{
    fastspool_rmdir(fs, "t/dir");
}
static void close_it(struct fastspool *fs)
{
    fastspool_close(fs, victims);
}
static void change_mode(struct fastspool *fs)
{
    fastspool_chmod(fs, "t/file", 0600);
}
static void change_mode_open(struct fastspool *fs)
{
    fastspool_fchmod(fs, victims, 0600);
}
static void change_owner(struct fastspool *fs)
{
    fastspool_chown(fs, "t/file", 7, 8);
}
static void change_owner_open(struct fastspool *fs)
{
    fastspool_fchown(fs, victims, 7, 8);
}
static void change_times(struct fastspool *fs)
{
    const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    fastspool_utimens(fs, "t/file", now);
}
static void change_times_open(struct fastspool *fs)
{
    fastspool_futimens(fs, victims, NULL);
}
static void sync_it(struct fastspool *fs)
{
    fastspool_fsync(fs, victims);
}
static void look(struct fastspool *fs)
{
    struct fastspool_entry entries[4];
    struct stat st;
    char some[100];

    fastspool_stat(fs, "t/file", &st);
    fastspool_access(fs, "t/file", R_OK, true);
    fastspool_list(fs, victims, 0, entries, 4);
    open_existing(fs);
    fastspool_read(fs, victims, some, sizeof(some));
    fastspool_lseek(fs, victims, 5, SEEK_SET);
    fastspool_fstat(fs, victims, &st);
}
static void lock_it(struct fastspool *fs)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 19};
    fastspool_lock(fs, victims, F_SETLK, &lock);
    fastspool_close(fs, victims);
}
static void lock_and_change(struct fastspool *fs)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 19};
    fastspool_lock(fs, victims, F_SETLK, &lock);
    lock.l_type = F_UNLCK;
    fastspool_lock(fs, victims, F_SETLK, &lock);
    lock.l_type = F_WRLCK;
    fastspool_lock(fs, victims, F_SETLK, &lock);
    lock.l_len = 5;
    lock.l_type = F_RDLCK; /* the note goes to the kernel */
    fastspool_lock(fs, victims, F_SETLK, &lock);
    fastspool_close(fs, victims);
}
static void fork_and_close(struct fastspool *fs)
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
static void exhaust_pool(struct fastspool *fs)
{
    int d[10];

    for (int i = 0; i < 10; i++)
        d[i] = fastspool_open(fs, "t/file", O_RDONLY, 0);
    for (int i = 0; i < 10; i++)
        fastspool_close(fs, d[i]);
}

/* ---- commits, memory, dead processes ---- */

static void capture(struct fastspool *fs)
{
    capture_take(fs, &captured);
}
static void end_well(struct fastspool *fs)
{
    capture_end(fs, &captured, 0, 1);
}
static void end_badly(struct fastspool *fs)
{
    capture_end(fs, &captured, -EIO, 1);
}
static void commit_begun_long_ago(struct fastspool *fs)
{
    capture(fs);
    fastspool_unlink(fs, "t/big"); /* its blocks are held until the commit ends */
    fastspool_unlink(fs, "t/file");
    fastspool_unlink(fs, "t/small"); /* a part of a block */
    open_file(fs, "t/new", O_WRONLY | O_CREAT);
    fastspool_write(fs, victims, scene_bytes, 5000);
}
static void reset(struct fastspool *fs)
{
    capture_reset(fs);
}
/* Leave chunks that have been empty for long, among them both of a huge page: they go by one call. */
static void leave_chunks(struct fastspool *fs)
{
    static const char filler[4 * CHUNK_SIZE];
    int pad = fastspool_open(fs, "pad", O_WRONLY | O_CREAT, 0600);

    scene_must(fastspool_write(fs, pad, filler, sizeof(filler)), "pad");
    fastspool_close(fs, pad);
    scene_must(fastspool_unlink(fs, "pad"), "pad");
    scene_must(orphans_free(fs), "pad");
    for (uint32_t c = 0; c < fs->header->blocks.chunks_used; c++)
        WRITABLE(chunk_at(fs, c)->emptied) -= 1000 * NS_PER_S; /* long ago */
}
static void give_back(struct fastspool *fs)
{
    blocks_give_back(fs, 0);
}
static void reap(struct fastspool *fs)
{
    descriptions_reap(fs);
}
static void another_dies(struct fastspool *fs)
{
    pid_t pid = fork();
    if (pid == 0) {
        fastspool_after_fork_child(fs);
        opens_unlinked(fs);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

/* ---- compaction ---- */

static uint32_t pieces_at; /* the chunk that holds them */

/* Take the free parts of blocks in use, so that a small file gets no part of the scene's blocks; or @end it. */
static void fill_parts(struct fastspool *fs, bool end)
{
    char path[16];

    for (int n = 0; n < 100; n++) {
        snprintf(path, sizeof(path), "part%d", n);
        if (end)
            fastspool_unlink(fs, path);
        else if (fs->header->blocks.broken.head)
            scene_put(fs, path, 1);
    }
}

/* Leave the scene in the first chunk and two files in the second, one with an index block.  All else is free. */
static void scatter(struct fastspool *fs)
{
    static const char filler[CHUNK_SIZE];
    struct stat st;
    int pad = fastspool_open(fs, "pad", O_WRONLY | O_CREAT, 0600);

    scene_must(fastspool_write(fs, pad, filler, sizeof(filler)), "pad");
    fill_parts(fs, false);
    scene_put(fs, "t/piece", 100);
    scene_put(fs, "t/pieces", (INODE_DIRECT + 5) * BLOCK_SIZE);
    scene_must(fastspool_pwrite(fs, pad, filler, sizeof(filler), sizeof(filler)), "pad");
    fastspool_close(fs, pad);
    scene_must(fastspool_unlink(fs, "pad"), "pad");
    scene_must(orphans_free(fs), "pad");
    fill_parts(fs, true);
    scene_date(fs, "t/piece");
    scene_date(fs, "t/pieces");
    scene_date(fs, "t");
    scene_must(fastspool_stat(fs, "t/pieces", &st), "t/pieces");
    pieces_at = piece_block(data_piece(fs, inode_at(fs, (uint32_t)st.st_ino), 0)) / CHUNK_BLOCKS;
}
static void scatter_and_capture(struct fastspool *fs)
{
    scatter(fs);
    scene_must(capture_take(fs, &captured), "capture");
}
static void compact(struct fastspool *fs)
{
    if (compaction_vacate(fs, pieces_at) < 0)
        _exit(4);
}

/* ---- between sections ---- */

static bool between_writes(struct fastspool *fs, unsigned n)
{
    if ((n + 1) * DATA_STEP >= LARGE_SIZE)
        return false;
    opens_empty(fs);
    fastspool_write(fs, victims, scene_bytes, (n + 1) * DATA_STEP);
    fastspool_close(fs, victims);
    return true;
}
static bool between_truncations(struct fastspool *fs, unsigned n)
{
    uint64_t blocks = HUGE_SIZE / BLOCK_SIZE - (n + 1) * DATA_FREE_STEP;
    return n == 0 && fastspool_truncate(fs, "t/huge", (off_t)(blocks * BLOCK_SIZE)) == 0;
}

/* ---- the table of operations ---- */

const struct operation operations[] = {
    {"create", {NULL, create}, 0, NULL},
    {"create with pool", {warms_pool, create}, 0, NULL},
    {"create with a long name", {NULL, create_long}, 0, NULL},
    {"open", {NULL, open_existing}, 0, NULL},
    {"open with truncation", {NULL, open_truncating}, 0, NULL},
    {"open more than the pool holds", {NULL, exhaust_pool}, 0, NULL},
    {"write into an empty file", {opens_empty, write_first}, 0, NULL},
    {"overwrite", {opens_file, write_inside}, 0, NULL},
    {"append", {opens_append, write_append}, 0, NULL},
    {"append more than a part of a block", {opens_append, write_append_more}, 0, NULL},
    {"write past the end", {opens_small, write_behind}, 0, NULL},
    {"write a lot", {opens_empty, write_large}, 0, between_writes},
    {"truncate down", {opens_file, truncate_down}, 0, NULL},
    {"truncate a part of a block", {opens_small, truncate_small}, 0, NULL},
    {"write into the hole behind a part", {opens_with_hole, write_into_hole}, 0, NULL},
    {"truncate up", {opens_small, truncate_up}, 0, NULL},
    {"truncate to nothing", {NULL, truncate_empty}, 0, NULL},
    {"truncate a lot", {NULL, truncate_huge}, HUGE, between_truncations},
    {"truncate a lot to nothing", {NULL, truncate_huge_empty}, HUGE, NULL},
    {"rename", {NULL, rename_plain}, 0, NULL},
    {"rename over a file", {NULL, rename_over}, 0, NULL},
    {"rename over an open file", {opens_big, rename_over}, 0, NULL},
    {"rename over a file of another directory", {NULL, rename_across}, 0, NULL},
    {"rename to another directory", {NULL, move_across}, 0, NULL},
    {"rename a directory to another one", {NULL, move_directory}, 0, NULL},
    {"rename one of two names", {NULL, move_first_name}, 0, NULL},
    {"rename from a long name", {moves_to_long_name, move_back}, 0, NULL},
    {"rename a directory over another", {NULL, rename_directory}, 0, NULL},
    {"rename to another name of the same file", {NULL, rename_same}, 0, NULL},
    {"link", {NULL, link_file}, 0, NULL},
    {"unlink one of two names", {NULL, unlink_one}, 0, NULL},
    {"unlink the last name", {NULL, unlink_last}, 0, NULL},
    {"unlink a part of a block", {NULL, unlink_small}, 0, NULL},
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
    {"lock, unlock and change", {opens_file, lock_and_change}, 0, NULL},
    {"look, read and list", {opens_directory, look}, 0, NULL},
    {"fork and close in both", {opens_unlinked, fork_and_close}, 0, NULL},
    {"overwrite during a commit", {opens_file, write_inside}, COMMIT, NULL},
    {"append more during a commit", {opens_append, write_append_more}, COMMIT, NULL},
    {"truncate down during a commit", {opens_file, truncate_down}, COMMIT, NULL},
    {"truncate a part of a block during a commit", {opens_small, truncate_small}, COMMIT, NULL},
    {"write into the hole behind a part during a commit", {opens_with_hole, write_into_hole}, COMMIT, NULL},
    {"rename over during a commit", {NULL, rename_over}, COMMIT, NULL},
    {"unlink during a commit", {NULL, unlink_last}, COMMIT, NULL},
    {"unlink a part of a block during a commit", {NULL, unlink_small}, COMMIT, NULL},
    {"create during a commit", {NULL, create}, COMMIT, NULL},
    {"capture", {NULL, capture}, 0, NULL},
    {"end a commit", {commit_begun_long_ago, end_well}, ALONE, NULL},
    {"end a failed commit", {commit_begun_long_ago, end_badly}, ALONE, NULL},
    {"take over from a dead mirror", {commit_begun_long_ago, reset}, 0, NULL},
    {"give memory back", {leave_chunks, give_back}, ALONE, NULL},
    {"compact", {scatter, compact}, 0, NULL},
    {"compact during a commit", {scatter_and_capture, compact}, 0, NULL},
    {"reap dead processes", {another_dies, reap}, 0, NULL},
    {"evict", {NULL, evicted_all}, EVICT, NULL},
    {"evict a huge file", {NULL, evicted_all}, EVICT | HUGE, NULL},
    {"open an evicted file", {evicted_all, open_existing}, EVICT, NULL},
    {"open an evicted file with truncation", {evicted_all, open_truncating}, EVICT, NULL},
    {"open a wanted file with truncation", {evicted_and_wanted, open_truncating}, EVICT, NULL},
    {"truncate an evicted file to nothing", {evicted_all, truncate_huge_empty}, EVICT | HUGE, NULL},
    {"truncate a half paged-in file to nothing", {evicted_half_back, truncate_huge_empty}, EVICT | HUGE, NULL},
    {"chmod an evicted file", {evicted_all, change_mode}, EVICT, NULL},
    {"rename an evicted file over another", {evicted_all, rename_over}, EVICT, NULL},
    {"link an evicted file", {evicted_all, link_file}, EVICT, NULL},
    {"unlink an evicted file", {evicted_all, unlink_last}, EVICT, NULL},
    {"unlink an evicted huge file", {evicted_all, unlink_huge}, EVICT | HUGE, NULL},
    {"prefetch files", {evicted_all, evicted_prefetch}, EVICT | QUEUE, NULL},
    {"open a prefetched file", {evicted_and_prefetch, open_fourth}, EVICT | QUEUE, NULL},
    {"unlink a prefetched file", {evicted_and_prefetch, unlink_fourth}, EVICT | QUEUE, NULL},
    {"page in prefetched files", {evicted_and_prefetch, evicted_page_in}, EVICT | QUEUE, NULL},
    {"page in evicted files", {evicted_and_wanted, evicted_page_in}, EVICT, NULL},
    {"page in a huge file", {evicted_and_wanted, evicted_page_in}, EVICT | HUGE, NULL},
    {"page in half paged-in files", {evicted_half_back, evicted_page_in}, EVICT | HUGE, NULL},
    {"page in to a spill file", {evicted_wanted_of_little_memory, evicted_page_in}, EVICT | HUGE, NULL},
    {"sweep spill files", {evicted_spilled, evicted_sweep_spilled}, EVICT | HUGE, NULL},
    {"unlink a spilled file", {evicted_spilled, unlink_huge}, EVICT | HUGE, NULL},
    {"fail page-ins", {evicted_half_back, evicted_fail_page_ins}, EVICT | HUGE, NULL},
    {"create in a new store", {NULL, create}, FRESH, NULL},
    {"write in a new store", {create, write_first}, FRESH, NULL},
};
const size_t operations_count = sizeof(operations) / sizeof(operations[0]);

/* SPDX-License-Identifier: MIT
 *
 * Compaction: the tables get memory though each chunk holds a block of a file that must stay.  No reader and no commit
 * sees a wrong byte meanwhile.
 */
#include "mirror/compaction.h"
#include "base/clock.h"
#include "evicting.h"
#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/journal.h"
#include "store/blocks.h"
#include "store/data.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/orphans.h"
#include "store/segment.h"
#include "store/store.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

TestSuite(compaction, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

#define PIECES 6u

static char piece[PIECES][BLOCK_SIZE];

/* Make PIECES open files of one block, each in its own chunk, and free all other blocks.  The caller closes them. */
static void scatter(int descriptions[PIECES])
{
    static const char filler[CHUNK_SIZE];
    int pad = fastspool_open(fs, "pad", O_RDWR | O_CREAT | O_APPEND, 0600);
    char path[16];

    for (unsigned i = 0; i < PIECES; i++) {
        snprintf(path, sizeof(path), "piece%u", i);
        memset(piece[i], (int)('a' + i), BLOCK_SIZE);
        descriptions[i] = fastspool_open(fs, path, O_RDWR | O_CREAT, 0600);
        cr_assert_eq(fastspool_pwrite(fs, descriptions[i], piece[i], BLOCK_SIZE, 0), BLOCK_SIZE);
        if (i < PIECES - 1)
            cr_assert_eq(fastspool_write(fs, pad, filler, CHUNK_SIZE), CHUNK_SIZE);
    }
    fastspool_close(fs, pad);
    cr_assert_eq(fastspool_unlink(fs, "pad"), 0);
    cr_assert_eq(orphans_free(fs), 0);
    segment_limit(fs->header, fs->header->tables.memory_bytes);
}

static void compact(void)
{
    cr_assert_eq(compaction_run(fs), 0);
    for (int i = 0; i < 2; i++) { /* the first call takes a chunk off the lists, the second one frees its memory */
        for (uint32_t c = 0; c < fs->header->blocks.chunks_used; c++)
            WRITABLE(chunk_at(fs, c)->emptied) -= 1000 * NS_PER_S;
        cr_assert_eq(blocks_give_back(fs, FIXTURE_MEMORY), 0);
    }
}

/* Each time that no name can be made, a compaction makes room for the next ones, until fewer than four chunks are left.
 * The files keep their content. */
Test(compaction, tables_grow)
{
    int d[PIECES], made = 0, rounds = 0;
    char path[32], got[BLOCK_SIZE];

    checking_every(1000);
    scatter(d);
    cr_assert_eq(fs->header->blocks.used, PIECES);
    for (int before = -1; made > before; rounds++) {
        before = made;
        do
            snprintf(path, sizeof(path), "name-%d", made++);
        while (fastspool_mkdir(fs, path, 0700) == 0);
        made--;
        compact();
    }
    cr_assert_gt(rounds, 3);
    cr_assert_lt(fs->header->blocks.total, 4 * CHUNK_BLOCKS, "%lu", (unsigned long)fs->header->blocks.total);
    cr_assert_leq(fs->header->tables.memory_bytes, fs->header->memory_limit);
    for (unsigned i = 0; i < PIECES; i++) {
        cr_assert_eq(fastspool_pread(fs, d[i], got, sizeof(got), 0), BLOCK_SIZE);
        cr_assert_arr_eq(got, piece[i], BLOCK_SIZE);
        fastspool_close(fs, d[i]);
    }
}

static void *make_names(void *unused)
{
    char path[32];

    for (int i = 0;; i++) {
        snprintf(path, sizeof(path), "name-%d", i);
        if (fastspool_mkdir(fs, path, 0700) < 0)
            return unused;
    }
}

/* A waiter for a table's growth needs a chunk, not blocks: with free blocks at hand, nothing is evicted for it. */
Test(compaction, nothing_is_evicted_for_it)
{
    pthread_t maker;
    int d[PIECES];

    put("hot", 0, piece[0], BLOCK_SIZE, 0);
    commit(0);
    checkpoint();
    scatter(d);
    paging_begin(fs, NULL);
    STORE(fs->header->tickets.commit_error, -EIO); /* keeps the wait short */
    pthread_create(&maker, NULL, make_names, NULL);
    pthread_join(maker, NULL);
    cr_assert_gt(fs->header->residency.space_wanted, 0, "no process waited for memory");
    cr_assert_eq(fs->header->residency.evictions, 0);
    paging_end(fs);
    for (unsigned i = 0; i < PIECES; i++)
        fastspool_close(fs, d[i]);
}

/* No chunk is vacated while the tables want no memory, the other chunks have no room, or a chunk is empty. */
Test(compaction, no_need)
{
    int d[PIECES];

    scatter(d);
    segment_limit(fs->header, FIXTURE_MEMORY);
    STORE(fs->header->reserve, 0);
    cr_assert_eq(blocks_to_vacate(fs), CHUNKS_MAX, "though the tables want no memory");
    STORE(fs->header->blocks.tables_wanted, 1);
    cr_assert_neq(blocks_to_vacate(fs), CHUNKS_MAX);
    uint64_t used = fs->header->blocks.used;
    WRITABLE(fs->header->blocks.used) = fs->header->blocks.total - CHUNK_BLOCKS + 1;
    cr_assert_eq(blocks_to_vacate(fs), CHUNKS_MAX, "though the other chunks have no room");
    WRITABLE(fs->header->blocks.used) = used;
    cr_assert_eq(compaction_run(fs), 0);
    cr_assert_eq(blocks_to_vacate(fs), CHUNKS_MAX, "though a chunk is empty");
    for (unsigned i = 0; i < PIECES; i++)
        fastspool_close(fs, d[i]);
}

/* ---- a large file, with a reader and a commit beside it ---- */

#define RUN  (UINT64_C(700) << 10) /* bytes of data at the beginning, and at the end */
#define SIZE (UINT64_C(6) << 20)   /* with a hole in between; the end has two levels of index blocks */

static char expected[SIZE];

struct reading {
    bool done;
    unsigned reads;
};

/* Fork a process that reads the file until it is stopped.  Its exit status is 1 if it ever read a wrong byte. */
static pid_t reader(struct reading *shared)
{
    static char got[DATA_STEP];
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fastspool_after_fork_child(fs);
    int d = fastspool_open(fs, "large", O_RDONLY, 0);
    while (!LOAD(shared->done)) {
        for (off_t at = 0; at < (off_t)SIZE; at += DATA_STEP) {
            if (fastspool_pread(fs, d, got, DATA_STEP, at) != DATA_STEP || memcmp(got, expected + at, DATA_STEP) != 0)
                _exit(1);
        }
        __atomic_add_fetch(&shared->reads, 1, __ATOMIC_RELAXED);
    }
    _exit(0);
}

/* Vacate each chunk in turn. */
static void move_through_all(void)
{
    for (uint32_t c = 0; c < fs->header->blocks.chunks_used; c++) {
        cr_assert_eq(compaction_vacate(fs, c), 0);
        if (!fs->header->tickets.committing)
            cr_assert_eq(chunk_at(fs, c)->free_count, CHUNK_BLOCKS - (c == 0), "chunk %u", c);
    }
}

/* Data and both levels of index blocks move while a process reads the file, and while a commit copies an older state to
 * the journal.  Neither sees a difference. */
Test(compaction, large_file)
{
    struct reading *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int d[PIECES], status;

    scatter(d);
    segment_limit(fs->header, FIXTURE_MEMORY);
    for (size_t i = 0; i < RUN; i++)
        expected[i] = expected[SIZE - RUN + i] = (char)(i / 7 + i / 4096 * 3);
    put("large", 0, expected, RUN, 0);
    put("large", 0, expected + SIZE - RUN, RUN, SIZE - RUN);
    struct capture capture;
    cr_assert_eq(capture_take(fs, &capture), 0);
    dump_all(fs, then_dump);
    move_through_all();
    put("piece0", 0, "later", 5, 0);
    cr_assert_eq(journal_append(&journal, &capture, error), 0, "%s", error);
    cr_assert_eq(capture_end(fs, &capture, 0, 1000), 0);
    recovers(then_dump);

    uint32_t version = inode_at(fs, number("large"))->version;
    move_through_all();
    cr_assert_neq(inode_at(fs, number("large"))->version, version, "a reader can't see that blocks have moved");
    pid_t pid = reader(shared);
    checking_every(20); /* all of these sections have been checked above */
    for (int i = 0; (i < 300 || LOAD(shared->reads) < 100) && waitpid(pid, &status, WNOHANG) == 0; i++)
        move_through_all();
    STORE(shared->done, true);
    cr_assert_eq(waitpid(pid, &status, 0), pid, "the reader got a wrong byte");
    cr_assert_eq(status, 0, "the reader got a wrong byte");
    commit(0);
    dump_all(fs, then_dump);
    recovers(then_dump);
    for (unsigned i = 0; i < PIECES; i++)
        fastspool_close(fs, d[i]);
}

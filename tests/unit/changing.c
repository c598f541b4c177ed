/* SPDX-License-Identifier: MIT
 *
 * A segment that the mail user writes to while others use it: what was looked at is what is used, and a walk that has
 * begun ends.
 *
 * A word changes at the instructions of a call (stepping.h), or when a section has ended (a hook of section_guard,
 * which knows it by the history).  A call that should not end, or may meet a signal, is in a child with an alarm.
 */
#include "durable.h"
#include "mirror/journal_scan.h"
#include "stepping.h"
#include "store/history.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <syslog.h>

static void setup(void)
{
    durable_setup();
    checking_every(0);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
}
TestSuite(changing, .init = setup, .fini = durable_teardown, .timeout = 900);

static int create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);
    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    return d;
}

static const struct inode *inode_of(const char *path)
{
    struct stat st;

    cr_assert_eq(fastspool_stat(fs, path, &st), 0);
    return inode_at(fs, (uint32_t)(st.st_ino - inodes_number(0)));
}

/* As the store is after the operator has mended it: the next damage can be met. */
static void mend(void)
{
    STORE(fs->header->state, SEGMENT_READY);
}

/* Has a section of this name just ended? */
static bool has_ended(const struct fastspool *store, const char *name)
{
    struct history_line line;

    return history_read(store->header, 0, &line) && line.kind == HISTORY_SECTION && strcmp(line.name, name) == 0;
}

#define PATIENCE 600 /* seconds of a call that has to end, where each of its instructions is a signal */

/* Run @call in a child: it ends well. */
static void ends_well(void (*call)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        alarm(PATIENCE);
        call();
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %x", (unsigned)status);
    mend();
}

/* What a child expects: a sentence, and its end. */
#define expect(condition, ...)            \
    do {                                  \
        if (!(condition)) {               \
            fprintf(stderr, __VA_ARGS__); \
            _exit(1);                     \
        }                                 \
    } while (0)

/* ---- the undo log ---- */

static int nothing(struct fastspool *store, void *argument)
{
    (void)store;
    (void)argument;
    return 0;
}

/* Two offsets in turn: of a word that nobody uses, and of one behind the segment. */
static void *flip_offset(void *argument)
{
    const struct undo *entry = &fs->header->undo[0];

    for (const uint32_t *ends = argument; !LOAD(*ends);) {
        STORE(entry->offset, HEADER_SIZE - 8);
        STORE(entry->offset, SEGMENT_SIZE + (UINT64_C(1) << 40));
    }
    return NULL;
}

/* An entry of the undo log that changes while it is looked at leads nowhere that was not looked at. */
Test(changing, undo_entry)
{
    static uint32_t ends;
    pthread_t thread;
    struct stat st;

    cr_assert_eq(pthread_create(&thread, NULL, flip_offset, &ends), 0);
    setlogmask(LOG_MASK(LOG_EMERG)); /* half of the looks find damage */
    for (int i = 0; i < 1000000; i++) {
        STORE(fs->header->section.undo_count, 1);
        STORE(fs->header->section.lock, FUTEX_OWNER_DIED);
        section_run(fs, nothing, NULL);
        mend();
    }
    STORE(ends, 1);
    pthread_join(thread, NULL);
    cr_assert_eq(fstat(fs->segment_fd, &st), 0);
    cr_assert_eq((uint64_t)st.st_size, SEGMENT_SIZE, "the file has %lld bytes", (long long)st.st_size);
}

#ifdef STEPPING
static void change_mode(void)
{
    int d = create("input/x"), found[2] = {0};

    stepping_begin(fs->header->section.undo_count, 0, UINT32_MAX);
    STEPPING_ALL(period, phase)
    {
        stepping_turn(period, phase);
        stepping_sections(true);
        int result = fastspool_fchmod(fs, d, phase % 2 ? 0640 : 0600);
        stepping_sections(false);
        STORE(fs->header->section.undo_count, 0);
        expect(result == 0 || result == -EIO, "period %u, phase %u: %s\n", period, phase, strerror(-result));
        found[result < 0]++;
        mend();
    }
    stepping_end();
    expect(found[0] && found[1], "%d changes, %d refused\n", found[0], found[1]);
}

/* The entry that is written is the one that was found to be in the log.  Entry 2^32 - 1 lies 64 GiB behind it. */
Test(changing, undo_count)
{
    ends_well(change_mode);
}

/* ---- data ---- */

static char before_write[3 * BLOCK_SIZE], other_bytes[BLOCK_SIZE];

static void overwrite(void)
{
    static char bytes[BLOCK_SIZE];
    int d = create("input/x"), other = create("input/y");
    const struct inode *inode = inode_of("input/x");
    ssize_t result = 0;

    memset(other_bytes, 'y', sizeof(other_bytes));
    STEPPING_ALL(period, phase)
    {
        expect(fastspool_ftruncate(fs, d, 0) == 0 && fastspool_pwrite(fs, d, before_write, 4196, 0) == 4196 &&
                   fastspool_pwrite(fs, other, other_bytes, BLOCK_SIZE, 0) == BLOCK_SIZE,
               "no files\n");
        stepping_begin(inode->size, 4196, 0);
        stepping_turn(period, phase);
        stepping_sections(true);
        result = fastspool_pwrite(fs, d, "written", 7, BLOCK_SIZE);
        stepping_sections(false);
        stepping_end();
        expect(result == 7 || result == -EIO, "period %u, phase %u: %zd\n", period, phase, result);
        expect(fastspool_pread(fs, other, bytes, BLOCK_SIZE, 0) == BLOCK_SIZE &&
                   memcmp(bytes, other_bytes, BLOCK_SIZE) == 0,
               "period %u, phase %u: another file has changed\n", period, phase);
        mend();
    }
}

/* So much of a block is kept as the size says that was looked at: of 4,196 bytes 100 in the second block, of none none;
 * and never 0 - 4,096 of them. */
Test(changing, size_of_a_file)
{
    ends_well(overwrite);
}

static void append(void)
{
    static char bytes[BLOCK_SIZE];
    int d = create("input/x"), other = create("input/y"), found[2] = {0};

    memset(other_bytes, 'y', sizeof(other_bytes));
    expect(fastspool_pwrite(fs, d, before_write, 100, 0) == 100 &&
               fastspool_pwrite(fs, other, other_bytes, BLOCK_SIZE, 0) == BLOCK_SIZE,
           "no files\n");
    const struct inode *inode = inode_of("input/x"), before = *inode;
    const uint32_t beyond = inode_of("input/y")->map.direct[0] | (BLOCK_PARTS - 1) << PIECE_FIRST;
    stepping_begin(inode->map.direct[0], before.map.direct[0], beyond);
    STEPPING_ALL(period, phase)
    {
        stepping_turn(period, phase);
        stepping_sections(true);
        ssize_t result = fastspool_pwrite(fs, d, "written", 7, 100);
        stepping_sections(false);
        expect(result == 7 || result == -EIO, "period %u, phase %u: %zd\n", period, phase, result);
        found[result < 0]++;
        WRITABLE(*inode) = before;
        mend();
        expect(fastspool_pread(fs, other, bytes, BLOCK_SIZE, 0) == BLOCK_SIZE &&
                   memcmp(bytes, other_bytes, BLOCK_SIZE) == 0,
               "period %u, phase %u: another file has changed\n", period, phase);
    }
    stepping_end();
    expect(found[0] && found[1], "%d written, %d refused\n", found[0], found[1]);
}

/* The piece that is written to is the one that was looked at: not a whole block that begins in the last part of one. */
Test(changing, piece_of_a_file)
{
    ends_well(append);
}

/* Nothing is free but what the bits say, at times: @piece. */
static void take_piece(uint64_t bits, uint32_t piece)
{
    static const char bytes[BLOCK_SIZE];
    const size_t size = piece_size(piece);
    int d = create("input/x"), found[2] = {0};

    expect(fastspool_write(fs, create("input/first"), "x", 1) == 1, "no chunk\n"); /* which has memory then */
    const struct inode *inode = inode_of("input/x"), inode_before = *inode;
    const struct chunk *chunk = chunk_at(fs, 0);
    struct chunk few;
    const struct blocks_state blocks_before = fs->header->blocks;
    const struct tickets_state tickets_before = fs->header->tickets;

    expect(blocks_before.partial.head == 1 && blocks_before.chunks_used == 1, "not one chunk\n");
    few = *chunk;
    memset(few.free, 0, sizeof(few.free));
    stepping_begin(chunk->free[0], bits, 0);
    STEPPING_ALL(period, phase)
    {
        WRITABLE(*chunk) = few;
        WRITABLE(*inode) = inode_before;
        WRITABLE(fs->header->blocks) = blocks_before;
        WRITABLE(fs->header->tickets) = tickets_before;
        stepping_turn(period, phase);
        stepping_sections(true);
        ssize_t result = fastspool_pwrite(fs, d, bytes, size, 0);
        stepping_sections(false);
        expect(result == (ssize_t)size || result == -EIO, "period %u, phase %u: %zd\n", period, phase, result);
        expect(result < 0 || inode->map.direct[0] == piece, "period %u, phase %u: block %u\n", period, phase,
               inode->map.direct[0]);
        found[result < 0]++;
        mend();
    }
    stepping_end();
    expect(found[0] && found[1], "%d blocks, %d refused\n", found[0], found[1]);
}

static void take_block(void)
{
    take_piece(UINT64_C(0xf) << 5 * BLOCK_PARTS, 5);
}

static void take_part(void)
{
    take_piece(UINT64_C(2) << BLOCK_PARTS, 1 | 1 << PIECE_FIRST | 3 << PIECE_MISSING);
}

/* A block that is taken is one that was free: in a word that became 0 meanwhile none is, and no first bit is set. */
Test(changing, bitmap_of_blocks)
{
    ends_well(take_block);
}

/* So is a part of a block. */
Test(changing, bitmap_of_parts)
{
    ends_well(take_part);
}

/* ---- captures ---- */

/* The range that is captured is the one that was looked at.  One that ends before it begins has 2^32 blocks. */
Test(changing, dirty_range)
{
    static const char bytes[10 * BLOCK_SIZE];
    struct capture capture;
    int d = create("input/x"), found[2] = {0};

    for (int i = 0; i < 100; i += 10)
        cr_assert_eq(fastspool_pwrite(fs, d, bytes, sizeof(bytes), i * BLOCK_SIZE), sizeof(bytes));
    const struct inode *inode = inode_of("input/x");
    WRITABLE(inode->dirty_to) = 2;
    stepping_begin(inode->dirty_from, 0, 50); /* behind the end */
    STEPPING_ALL(period, phase)
    {
        stepping_turn(period, phase);
        stepping_sections(true);
        int result = capture_take(fs, &capture);
        stepping_sections(false);
        cr_assert(result == 0 || result == -EIO, "period %u, phase %u: %s", period, phase, strerror(-result));
        found[result < 0]++;
        for (size_t f = 0; result == 0 && f < capture.count; f++)
            cr_assert_leq(capture.file[f].state.dirty_from, capture.file[f].state.dirty_to, "period %u, phase %u",
                          period, phase);
        if (result == 0)
            capture_end(fs, &capture, -EIO, 1); /* all of it stays dirty */
        mend();
    }
    stepping_end();
    cr_assert(found[0] > 0 && found[1] > 0, "%d captures, %d refused", found[0], found[1]);
}

static int count_batch(void *context, const struct journal_batch *batch)
{
    *(uint64_t *)context = batch->number;
    return 0;
}

/* Bytes of a block that change while a batch is written: the checksum is that of what was written. */
Test(changing, bytes_of_a_batch)
{
    static const char bytes[3000];
    struct capture capture;
    int d = create("input/x");

    cr_assert_eq(fastspool_write(fs, d, bytes, sizeof(bytes)), sizeof(bytes));
    stepping_begin(((const uint32_t *)piece_at(fs, inode_of("input/x")->map.direct[0]))[100], 0, UINT32_MAX);
    for (unsigned period = 10; period < 10000; period = period * 3 / 2) {
        struct journal_found found;
        uint64_t number = 0;
        cr_assert_eq(capture_take(fs, &capture), 0);
        stepping_turn(period, 0);
        stepping_from_here();
        int result = journal_append(&journal, &capture, error);
        stepping_no_more();
        cr_assert_eq(result, 0, "%s", error);
        cr_assert_eq(capture_end(fs, &capture, -EIO, 1), 0); /* all of it stays dirty */
        uint64_t last = LOAD(fs->header->journal.durable);
        const struct journal_scan scan = {
            .above = last - 1, .upto = UINT64_MAX, .visit = count_batch, .context = &number};
        cr_assert_eq(journal_scan(journal.pool.directory, &scan, &found), 0);
        cr_assert(found.batches == 1 && number == last, "period %u: %llu batches", period,
                  (unsigned long long)found.batches);
    }
    stepping_end();
}
#endif

/* ---- descriptions ---- */

static void free_description(void)
{
    for (uint32_t d = 1; has_ended(fs, "take_number") && d < fs->header->tables.descriptions.used; d++)
        WRITABLE(description_at(fs, d)->cookie) = 0;
}

static void take_description(void)
{
    section_guard.leave = free_description;
    int d = fastspool_open(fs, "input/x", O_RDWR | O_CREAT, 0640);
    expect(d == -EIO, "%d\n", d);
}

/* A number that is taken away again each time that it was taken is not asked for for ever. */
Test(changing, number_of_a_description)
{
    ends_well(take_description);
}

/* ---- a recovery ---- */

static struct fastspool *recovering;

static int recover_beside(void (*section_has_ended)(void))
{
    struct recovered recovered;

    section_guard.leave = section_has_ended;
    int result = recovery_run(recovering, &recovered, error);
    section_guard.leave = NULL;
    return result;
}

static void claim_more_inodes(void)
{
    if (has_ended(recovering, "restore_attribu"))
        STORE(recovering->header->tables.inodes.used, 2 * INODES_MAX);
}

static void restore_more_inodes(void)
{
    int result = recover_beside(claim_more_inodes);

    expect(result == 0, "%d: %s\n", result, error);
    expect(recovering->header->tables.inodes.used == 2 * INODES_MAX, "no section restores attributes\n");
    expect(recovering->header->tables.inodes.free < INODES_MAX, "inode %u is free\n",
           recovering->header->tables.inodes.free);
}

/* The table of inodes says that it has more of them than it can have: those in between are none to hand out. */
Test(changing, inodes_between_restored)
{
    put("input/x", 0, "content", 7, 0);
    commit(0);
    recovering = second_store();
    ends_well(restore_more_inodes);
    remove_second(recovering);
}

/* No page behind the database's first two can be written when it is committed: its disk is full.  (Its limit is this
 * process's.)  The first page-in ends, and the table has 2^32 inodes. */
static void fill_disk_claim_inodes(void)
{
    if (has_ended(recovering, "restore_clean"))
        expect(setrlimit(RLIMIT_FSIZE, &(const struct rlimit){8192, RLIM_INFINITY}) == 0, "no limit\n");
    if (has_ended(recovering, "want")) {
        expect(setrlimit(RLIMIT_FSIZE, &(const struct rlimit){RLIM_INFINITY, RLIM_INFINITY}) == 0, "no limit\n");
        STORE(recovering->header->tables.inodes.used, UINT32_MAX);
    }
}

static void restore_in_memory(void)
{
    signal(SIGXFSZ, SIG_IGN);
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the set of touched inodes ends where the heap ends */
    int result = recover_beside(fill_disk_claim_inodes);

    expect(result == 0, "%d: %s\n", result, error);
    expect(recovering->header->tables.inodes.used == UINT32_MAX, "nothing was paged in\n");
}

/* Where the database has no room, what the journal holds is paged in, and no more. */
Test(changing, inodes_kept_in_memory)
{
    put("input/x", 0, "content", 7, 0);
    commit(0);
    recovering = second_store();
    ends_well(restore_in_memory);
    remove_second(recovering);
}

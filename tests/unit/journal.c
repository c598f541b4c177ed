/* SPDX-License-Identifier: MIT
 *
 * The journal: what is found again after a torn write, a failed sync, a writer that died, and a file used again.
 */
#include "mirror/journal.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/format.h"
#include "mirror/journal_files.h"
#include "mirror/journal_scan.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIMIT (8 * JOURNAL_FILE_MIN)

static struct journal journal;
static char error[FASTSPOOL_ERROR_MAX];
static uint64_t numbers[4096];
static size_t seen;

/* A file system may let a file be set to direct writes, and then refuse them. */
static unsigned direct_writes, direct_most = UINT32_MAX;

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    if (fcntl(fd, F_GETFL) & O_DIRECT && ++direct_writes > direct_most) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

static void setup(void)
{
    fixture_setup();
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0, "%s", error);
}

static void teardown(void)
{
    journal_close(&journal);
    fixture_teardown();
}

TestSuite(journal, .init = setup, .fini = teardown);

/* A change, and its batch. */
static int append(size_t size)
{
    static char bytes[300000];
    struct capture capture;
    int d = fastspool_open(fs, "file", O_RDWR | O_CREAT | O_TRUNC, 0640);

    memset(bytes, 'a' + (int)(fs->header->journal.batch % 26), sizeof(bytes));
    cr_assert_geq(d, 0);
    cr_assert_eq(fastspool_write(fs, d, bytes, size), (ssize_t)size);
    fastspool_close(fs, d);
    cr_assert_eq(capture_take(fs, &capture), 0);
    int result = journal_append(&journal, &capture, error);
    cr_assert_eq(capture_end(fs, &capture, result, 0), 0);
    return result;
}

static int visit(void *context, const struct journal_batch *batch)
{
    const char *at = batch->records;
    struct record record;
    const void *value;
    int result;

    (void)context;
    cr_assert_eq(batch->root, fs->header->tree.root);
    while ((result = format_next(&at, batch->records + batch->size, &record, &value)) > 0)
        ;
    cr_assert_eq(result, 0, "a batch with a good checksum holds no records");
    numbers[seen++] = batch->number;
    return 0;
}

static struct journal_found look(uint64_t above)
{
    const struct journal_scan scan = {.above = above, .upto = UINT64_MAX, .visit = visit};
    struct journal_found found;

    seen = 0;
    cr_assert_eq(journal_scan(journal.pool.directory, &scan, &found), 0);
    for (size_t i = 1; i < seen; i++)
        cr_assert_gt(numbers[i], numbers[i - 1]);
    return found;
}

static int open_file(uint32_t name)
{
    char text[16];
    snprintf(text, sizeof(text), "%04u", name);
    return openat(journal.pool.directory, text, O_RDWR);
}

/* Batches of all sizes, over many files, come back in their order; with a lower bound, only those above it. */
Test(journal, comes_back)
{
    for (int i = 0; i < 60; i++)
        cr_assert_eq(append((size_t)(i % 7) * 11000), 0, "%s", error);
    struct journal_found found = look(0);
    cr_assert_eq(found.batches, 60);
    cr_assert_eq(found.last, fs->header->journal.durable);
    cr_assert_eq(found.missing, 0);
    cr_assert_not(found.detached);
    cr_assert_gt(journal.pool.count, 5);
    found = look(numbers[20]);
    cr_assert_eq(found.batches, 39);
    cr_assert_not(found.detached);
}

/* A spare is written full of zeros, where the file system can past the page cache. */
Test(journal, spare)
{
    static char bytes[JOURNAL_FILE_MIN + 1], zeros[JOURNAL_FILE_MIN];

    for (direct_most = 0; direct_most < 2; direct_most++) {
        direct_writes = 0;
        journal.pool.spares = 0;
        cr_assert_eq(journal_files_prepare(&journal.pool), 0);
        int fd = open_file(journal.pool.spare[0]);
        cr_assert_eq(pread(fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(zeros));
        cr_assert_eq(memcmp(bytes, zeros, sizeof(zeros)), 0);
        cr_assert_eq(direct_writes, fcntl(fd, F_SETFL, O_DIRECT) == 0, "written directly, if that can be");
        close(fd);
    }
}

/* Whatever 512-byte sectors of the last batch reached the disk, with what an earlier use of the file left in the
 * others: the batches before it are found, and it is found only where it is whole. */
Test(journal, torn, .timeout = 120)
{
    static char before[4 * JOURNAL_FILE_MIN], after[sizeof(before)], mixed[sizeof(before)];
    unsigned whole = 0, torn = 0;

    for (int i = 0; i < 7; i++)
        cr_assert_eq(append(1000), 0);
    int fd = open_file(journal.pool.file[journal.pool.count - 1].name);
    ssize_t size = pread(fd, before, sizeof(before), 0);
    for (ssize_t at = (ssize_t)journal.end; at < size; at++)
        before[at] = before[4096 + (at - (ssize_t)journal.end) % 8192]; /* leavings that look like batches */
    uint64_t start = journal.end;
    cr_assert_eq(append(9000), 0);
    cr_assert_eq(pread(fd, after, sizeof(after), 0), size);
    size_t sectors = (journal.end - start) / 512;
    for (unsigned pattern = 0; pattern < 4096; pattern++) {
        unsigned seed = pattern;
        memcpy(mixed, before, (size_t)size);
        for (size_t s = 0; s < sectors; s++) {
            bool there = pattern < sectors * 3 ? (pattern / sectors == 0   ? s < pattern
                                                  : pattern / sectors == 1 ? s >= pattern % sectors
                                                                           : s != pattern % sectors)
                                               : rand_r(&seed) % 2;
            if (there)
                memcpy(mixed + start + s * 512, after + start + s * 512, 512);
        }
        cr_assert_eq(pwrite(fd, mixed, (size_t)size, 0), size);
        struct journal_found found = look(0);
        bool same = memcmp(mixed + start, after + start, journal.end - start - 4096) == 0;
        cr_assert(found.batches == 7 || found.batches == 8, "%llu batches", (unsigned long long)found.batches);
        if (!same)
            torn += found.batches == 7;
        whole += found.batches == 8;
    }
    cr_assert_gt(torn, 3500);
    cr_assert_lt(whole, 200);
    close(fd);
}

/* Every byte of a batch is covered: with one bit of it turned, it is no batch. */
Test(journal, every_bit, .timeout = 120)
{
    static char bytes[16384];

    cr_assert_eq(append(5), 0);
    uint64_t start = journal.end;
    cr_assert_eq(append(3000), 0);
    int fd = open_file(journal.pool.file[journal.pool.count - 1].name);
    size_t size = journal.end - start;
    cr_assert_eq(pread(fd, bytes, size, (off_t)start), (ssize_t)size);
    while (size > 0 && bytes[size - 1] == 0)
        size--; /* the zeros that fill the last block say nothing */
    for (size_t i = 0; i < size; i++) {
        char turned = (char)(bytes[i] ^ (1 << i % 8));
        cr_assert_eq(pwrite(fd, &turned, 1, (off_t)(start + i)), 1);
        cr_assert_eq(look(0).batches, 1, "byte %zu of %zu is not covered by any checksum", i, size);
        cr_assert_eq(pwrite(fd, &bytes[i], 1, (off_t)(start + i)), 1);
    }
    cr_assert_eq(look(0).batches, 2);
    close(fd);
}

/* What a dead writer wrote above the durable mark doesn't count, whole as it may be, once its successor has begun; no
 * number is given twice. */
Test(journal, above_the_mark)
{
    for (int i = 0; i < 3; i++)
        cr_assert_eq(append(100), 0);
    uint64_t durable = fs->header->journal.durable;
    cr_assert_eq(append(100), 0);
    uint64_t unknown = fs->header->journal.durable;
    STORE(fs->header->journal.durable, durable); /* it died before it could say so */
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(look(0).batches, 4, "until then it is the last instant there is");
    cr_assert_eq(append(100), 0);
    struct journal_found found = look(0);
    cr_assert_eq(found.batches, 4);
    cr_assert_eq(found.missing, 0);
    cr_assert_gt(numbers[3], unknown);
}

/* A batch that is whole, next in number and in the right place, but of another use of the file, as a mail's text could
 * have it, is none. */
Test(journal, salt)
{
    static char bytes[8192];

    cr_assert_eq(append(100), 0);
    uint64_t end = journal.end;
    uint32_t old = journal.pool.file[0].name;
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    char name[16];
    snprintf(name, sizeof(name), "%04u", journal.pool.file[1].name);
    int to = open_file(old), from = open_file(journal.pool.file[1].name);
    cr_assert_eq(pread(from, bytes, sizeof(bytes), 4096), (ssize_t)sizeof(bytes));
    cr_assert_eq(pwrite(to, bytes, sizeof(bytes), (off_t)end), (ssize_t)sizeof(bytes));
    cr_assert_eq(unlinkat(journal.pool.directory, name, 0), 0);
    cr_assert_eq(look(0).batches, 1);
    close(to);
    close(from);
}

/* A write that fails condemns the file; the next try goes to another one, under a new number, and a file with nothing
 * durable in it isn't left lying. */
Test(journal, failed_write)
{
    struct rlimit limit = {4096 * 3, RLIM_INFINITY}, unlimited = {RLIM_INFINITY, RLIM_INFINITY};

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(append(100), 0);
    uint64_t durable = fs->header->journal.durable;
    for (int tries = 0; tries < 10; tries++) {
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
        cr_assert_eq(journal_files_prepare(&journal.pool), 0);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        cr_assert_eq(append(60000), -EFBIG);
        cr_assert_eq(fs->header->journal.durable, durable);
        cr_assert_leq(journal.pool.count, 2);
    }
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    cr_assert_eq(append(60000), 0, "%s", error);
    struct journal_found found = look(0);
    cr_assert_eq(found.batches, 2);
    cr_assert_eq(found.missing, 0);
    cr_assert_geq(numbers[1], durable + 11, "a number was given twice");
}

/* A disk on which every other write fails leaves a condemned file each time: when there are too many, a checkpoint is
 * due, and afterwards the journal goes on. */
Test(journal, many_condemned, .timeout = 120)
{
    struct rlimit limit = {4096 * 3, RLIM_INFINITY}, unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    int result = 0;

    journal.pool.limit = JOURNAL_BYTES; /* so much doesn't wait here */
    signal(SIGXFSZ, SIG_IGN);
    for (unsigned tries = 0; tries < 2 * JOURNAL_FILES_MAX && result != -ENOSPC; tries++) {
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
        result = append(100);
        cr_assert(result == 0 || result == -ENOSPC, "%s", error);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        if (result == 0)
            cr_assert_eq(append(20000), -EFBIG);
    }
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    cr_assert_eq(result, -ENOSPC);
    cr_assert(journal_files_due(&journal.pool), "nobody makes the checkpoint that would help");
    struct journal_found found = look(0);
    cr_assert_eq(found.missing, 0);
    cr_assert_eq(found.last, fs->header->journal.durable);
    struct journal_point point = journal_files_point(&journal.pool);
    journal_files_release(&journal.pool, &point, 0);
    cr_assert_eq(append(100), 0, "%s", error);
}

/* A spare file whose maker died before it had its blocks is none. */
Test(journal, short_spare)
{
    cr_assert_eq(journal_files_prepare(&journal.pool), 0);
    uint32_t name = journal.pool.spare[0];
    int fd = open_file(name);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    close(fd);
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    cr_assert_neq(journal.pool.file[0].name, name);
    cr_assert_lt(open_file(name), 0, "it is left lying");
}

/* Files are used again after a checkpoint, and what their earlier use left in them is never taken for a batch. */
Test(journal, used_again)
{
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 20; i++)
            cr_assert_eq(append((size_t)(i * 777 + round * 13) % 20000), 0, "%s", error);
        struct journal_point point = journal_files_point(&journal.pool);
        struct journal_found found = look(point.number);
        cr_assert_eq(found.batches, 0);
        journal_files_release(&journal.pool, &point, 0);
        cr_assert_eq(append(10), 0);
        found = look(point.number);
        cr_assert_eq(found.batches, 1, "%llu batches", (unsigned long long)found.batches);
        cr_assert_not(found.detached);
    }
    cr_assert_leq(journal.pool.next_name, 10, "%u files were made", journal.pool.next_name);
}

/* ---- the reasons for the end of a file ---- */

static struct journal_scanned scanned[16];
static size_t files_scanned;
static uint32_t unlinked_in_scan; /* a file that goes while the journal is read */

static void note_end(void *context, const struct journal_scanned *file)
{
    (void)context;
    scanned[files_scanned++] = *file;
}

static int visit_and_unlink(void *context, const struct journal_batch *batch)
{
    char name[16];

    (void)context;
    (void)batch;
    snprintf(name, sizeof(name), "%04u", unlinked_in_scan);
    unlinkat(journal.pool.directory, name, 0);
    return 0;
}

/* The first file ends (@counted: what counts in it ends) at @offset for @reason, which these @words tell. */
static void ends(uint64_t above, bool counted, uint64_t offset, enum journal_reason reason, const char *words)
{
    const struct journal_scan scan = {.above = above, .upto = UINT64_MAX, .ended = note_end};
    struct journal_found found;

    files_scanned = 0;
    cr_assert_eq(journal_scan(journal.pool.directory, &scan, &found), 0);
    const struct journal_end *end = counted ? &scanned[0].counted : &scanned[0].read;
    cr_assert_str_eq(journal_scan_reason(end->reason), words, "not \"%s\"", words);
    cr_assert_eq(end->reason, reason);
    cr_assert_eq(end->offset, offset, "%s: at byte %llu", words, (unsigned long long)end->offset);
    cr_assert_eq(end->file, journal.pool.file[0].name);
}

static void turn(int fd, uint64_t offset)
{
    char byte;

    cr_assert_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

/* Two batches, and a turned byte of the second one: @at bytes from its begin. */
static void ends_where_turned(uint64_t at, enum journal_reason reason, const char *words)
{
    cr_assert_eq(append(100), 0);
    uint64_t start = journal.end;
    cr_assert_eq(append(100), 0);
    int fd = open_file(journal.pool.file[0].name);
    turn(fd, start + at);
    ends(0, false, start, reason, words);
    cr_assert_eq(scanned[0].batches, 1);
    close(fd);
}

static uint64_t payload_of(uint64_t start, struct batch_head *head)
{
    int fd = open_file(journal.pool.file[0].name);

    cr_assert_eq(pread(fd, head, sizeof(*head), (off_t)start), (ssize_t)sizeof(*head));
    close(fd);
    return head->size;
}

Test(journal, reason_file_end)
{
    cr_assert_eq(append(100), 0);
    int fd = open_file(journal.pool.file[0].name);
    cr_assert_eq(ftruncate(fd, (off_t)journal.end), 0);
    ends(0, false, journal.end, JOURNAL_FILE_END, "the file ends");
    close(fd);
}

Test(journal, reason_zeros)
{
    cr_assert_eq(append(100), 0);
    ends(0, false, journal.end, JOURNAL_ZEROS, "a block of zeros: never written");
}

Test(journal, reason_magic)
{
    ends_where_turned(0, JOURNAL_MAGIC, "no head of a file or batch: its magic number differs");
}

Test(journal, reason_salt)
{
    ends_where_turned(offsetof(struct batch_head, salt), JOURNAL_SALT,
                      "a batch of an earlier use of the file: its salt differs");
}

Test(journal, reason_head_checksum)
{
    ends_where_turned(offsetof(struct batch_head, number), JOURNAL_HEAD_CHECKSUM, "the checksum of the head differs");
}

Test(journal, reason_payload_checksum)
{
    ends_where_turned(sizeof(struct batch_head), JOURNAL_PAYLOAD_CHECKSUM,
                      "the checksum of the batch's payload differs");
}

Test(journal, reason_tail)
{
    struct batch_head head;

    cr_assert_eq(append(100), 0);
    uint64_t size = payload_of(FORMAT_BLOCK, &head);
    int fd = open_file(journal.pool.file[0].name);
    turn(fd, FORMAT_BLOCK + sizeof(head) + size);
    ends(0, false, FORMAT_BLOCK, JOURNAL_TAIL, "the tail of the batch differs: it was not written whole");
    close(fd);
}

Test(journal, reason_too_large)
{
    struct batch_head head;

    cr_assert_eq(append(100), 0);
    payload_of(FORMAT_BLOCK, &head);
    head.size = UINT64_C(1) << 62;
    format_seal_batch_head(&head);
    int fd = open_file(journal.pool.file[0].name);
    cr_assert_eq(pwrite(fd, &head, sizeof(head), FORMAT_BLOCK), (ssize_t)sizeof(head));
    ends(0, false, FORMAT_BLOCK, JOURNAL_TOO_LARGE, "the batch is larger than its file");
    close(fd);
}

Test(journal, reason_cut_short)
{
    static const char words[] = "cut short: the file ends within a head or batch";

    cr_assert_eq(append(100), 0);
    int fd = open_file(journal.pool.file[0].name);
    cr_assert_eq(ftruncate(fd, FORMAT_BLOCK + 100), 0);
    ends(0, false, FORMAT_BLOCK, JOURNAL_CUT_SHORT, words);
    cr_assert_eq(ftruncate(fd, FORMAT_BLOCK + 20), 0);
    ends(0, false, FORMAT_BLOCK, JOURNAL_CUT_SHORT, words);
    close(fd);
}

Test(journal, reason_order)
{
    char bytes[FORMAT_BLOCK];

    cr_assert_eq(append(100), 0);
    int fd = open_file(journal.pool.file[0].name);
    cr_assert_eq(pread(fd, bytes, sizeof(bytes), FORMAT_BLOCK), (ssize_t)sizeof(bytes));
    cr_assert_eq(pwrite(fd, bytes, sizeof(bytes), (off_t)journal.end), (ssize_t)sizeof(bytes));
    ends(0, false, journal.end, JOURNAL_ORDER, "the number of the batch does not grow");
    close(fd);
}

/* A batch that was never durable is whole all the same: what counts ends before what can be read. */
Test(journal, reason_follows)
{
    cr_assert_eq(append(100), 0);
    uint64_t durable = fs->header->journal.durable, start = journal.end;
    cr_assert_eq(append(100), 0);
    uint64_t end = journal.end;
    STORE(fs->header->journal.durable, durable);
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    ends(0, true, start, JOURNAL_FOLLOWS, "the batch was never durable: a later file follows an earlier batch");
    ends(0, false, end, JOURNAL_ZEROS, "a block of zeros: never written");
    cr_assert_eq(scanned[0].limit, durable);
    cr_assert_eq(scanned[0].batches, 2);
}

Test(journal, reason_held_and_gone)
{
    struct journal_scan scan = {.upto = UINT64_MAX, .visit = visit_and_unlink, .ended = note_end};
    struct journal_found found;

    cr_assert_eq(append(100), 0);
    uint64_t first = fs->header->journal.durable;
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    ends(first, false, FORMAT_BLOCK, JOURNAL_HELD, "not read: all of its batches that count are older");
    unlinked_in_scan = journal.pool.file[1].name;
    files_scanned = 0;
    cr_assert_eq(journal_scan(journal.pool.directory, &scan, &found), 0);
    cr_assert_eq(files_scanned, 2);
    cr_assert_eq(scanned[1].read.reason, JOURNAL_GONE);
    cr_assert_str_eq(journal_scan_reason(JOURNAL_GONE), "the file was removed meanwhile");
    cr_assert_str_eq(journal_scan_reason(JOURNAL_WHOLE), "it is whole");
}

/* Files without a head: a spare, one whose head is damaged, one that is shorter than a head. */
Test(journal, reasons_of_heads)
{
    cr_assert_eq(append(100), 0);
    int fd = open_file(journal.pool.file[0].name);
    turn(fd, offsetof(struct journal_head, follows));
    ends(0, false, 0, JOURNAL_HEAD_CHECKSUM, "the checksum of the head differs");
    turn(fd, offsetof(struct journal_head, magic));
    ends(0, false, 0, JOURNAL_MAGIC, "no head of a file or batch: its magic number differs");
    cr_assert_eq(ftruncate(fd, 0), 0);
    ends(0, false, 0, JOURNAL_CUT_SHORT, "cut short: the file ends within a head or batch");
    cr_assert_eq(ftruncate(fd, FORMAT_BLOCK), 0);
    ends(0, false, 0, JOURNAL_ZEROS, "a block of zeros: never written");
    close(fd);
}

/* Durable batches that can't be read back: the scan tells after which one, in which file, where and why. */
Test(journal, reason_of_a_hole)
{
    cr_assert_eq(append(100), 0);
    uint64_t first = fs->header->journal.durable, start = journal.end;
    cr_assert_eq(append(100), 0);
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    int fd = open_file(journal.pool.file[0].name);
    turn(fd, start + sizeof(struct batch_head) + 8);
    struct journal_found found = look(0);
    cr_assert_eq(found.missing, 1);
    cr_assert_eq(found.hole_after, first);
    cr_assert_eq(found.hole.file, journal.pool.file[0].name);
    cr_assert_eq(found.hole.offset, start);
    cr_assert_eq(found.hole.reason, JOURNAL_PAYLOAD_CHECKSUM);
    cr_assert_eq(found.end.file, journal.pool.file[1].name);
    close(fd);
}

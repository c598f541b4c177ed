/* SPDX-License-Identifier: MIT
 *
 * The journal: what is found again after a torn write, a failed sync, a writer that died, and a file used again.
 */
#include "mirror/journal.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/format.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#define LIMIT (8 * JOURNAL_FILE_MIN)

static struct journal journal;
static char error[FASTSPOOL_ERROR_MAX];
static uint64_t numbers[4096];
static size_t seen;

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

static int visit(void *context, uint64_t number, uint32_t root, const char *records, size_t size)
{
    const char *at = records;
    struct record record;
    const void *value;
    int result;

    (void)context;
    cr_assert_eq(root, fs->header->tree.root);
    while ((result = format_next(&at, records + size, &record, &value)) > 0)
        ;
    cr_assert_eq(result, 0, "a batch with a good checksum holds no records");
    numbers[seen++] = number;
    return 0;
}

static struct journal_found look(uint64_t above)
{
    struct journal_found found;

    seen = 0;
    cr_assert_eq(journal_look(journal.directory, above, UINT64_MAX, visit, NULL, &found), 0);
    for (size_t i = 1; i < seen; i++)
        cr_assert_gt(numbers[i], numbers[i - 1]);
    return found;
}

static int open_file(uint32_t name)
{
    char text[16];
    snprintf(text, sizeof(text), "%04u", name);
    return openat(journal.directory, text, O_RDWR);
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
    cr_assert_gt(journal.files, 5);
    found = look(numbers[20]);
    cr_assert_eq(found.batches, 39);
    cr_assert_not(found.detached);
}

/* Whatever 512-byte sectors of the last batch reached the disk, with what an earlier use of the file left in the
 * others: the batches before it are found, and it is found only where it is whole. */
Test(journal, torn, .timeout = 120)
{
    static char before[4 * JOURNAL_FILE_MIN], after[sizeof(before)], mixed[sizeof(before)];
    unsigned whole = 0, torn = 0;

    for (int i = 0; i < 7; i++)
        cr_assert_eq(append(1000), 0);
    int fd = open_file(journal.file[journal.files - 1].name);
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
    int fd = open_file(journal.file[journal.files - 1].name);
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
    uint32_t old = journal.file[0].name;
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    char name[16];
    snprintf(name, sizeof(name), "%04u", journal.file[1].name);
    int to = open_file(old), from = open_file(journal.file[1].name);
    cr_assert_eq(pread(from, bytes, sizeof(bytes), 4096), (ssize_t)sizeof(bytes));
    cr_assert_eq(pwrite(to, bytes, sizeof(bytes), (off_t)end), (ssize_t)sizeof(bytes));
    cr_assert_eq(unlinkat(journal.directory, name, 0), 0);
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
        cr_assert_eq(journal_prepare(&journal), 0);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        cr_assert_eq(append(60000), -EFBIG);
        cr_assert_eq(fs->header->journal.durable, durable);
        cr_assert_leq(journal.files, 2);
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

    journal.limit = JOURNAL_BYTES; /* so much doesn't wait here */
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
    cr_assert(journal_due(&journal), "nobody makes the checkpoint that would help");
    struct journal_found found = look(0);
    cr_assert_eq(found.missing, 0);
    cr_assert_eq(found.last, fs->header->journal.durable);
    journal_release(&journal, journal_point(&journal), 0);
    cr_assert_eq(append(100), 0, "%s", error);
}

/* A spare file whose maker died before it had its blocks is none. */
Test(journal, short_spare)
{
    cr_assert_eq(journal_prepare(&journal), 0);
    uint32_t name = journal.spare[0];
    int fd = open_file(name);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    close(fd);
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, fs, LIMIT, error), 0);
    cr_assert_eq(append(100), 0);
    cr_assert_neq(journal.file[0].name, name);
    cr_assert_lt(open_file(name), 0, "it is left lying");
}

/* Files are used again after a checkpoint, and what their earlier use left in them is never taken for a batch. */
Test(journal, used_again)
{
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 20; i++)
            cr_assert_eq(append((size_t)(i * 777 + round * 13) % 20000), 0, "%s", error);
        struct journal_point point = journal_point(&journal);
        struct journal_found found = look(point.number);
        cr_assert_eq(found.batches, 0);
        journal_release(&journal, point, 0);
        cr_assert_eq(append(10), 0);
        found = look(point.number);
        cr_assert_eq(found.batches, 1, "%llu batches", (unsigned long long)found.batches);
        cr_assert_not(found.detached);
    }
    cr_assert_leq(journal.next_name, 10, "%u files were made", journal.next_name);
}

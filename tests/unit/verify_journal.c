/* SPDX-License-Identifier: MIT
 *
 * The verification of the journal: a flipped bit in each kind of field, and a file that is missing or cut short, is
 * found and named.
 */
#include "evicting.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/database.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"
#include "mirror/verify_inside.h"
#include "store/store.h"
#include "verifying.h"

TestSuite(verify_journal, .init = verifying_setup, .fini = verifying_teardown, .timeout = 60);

static struct journal_batch batches[100];
static size_t seen;

static int note_batch(void *context, const struct journal_batch *batch)
{
    (void)context;
    batches[seen++] = *batch;
    return 0;
}

static void find_batches(void)
{
    const struct journal_scan scan = {.upto = UINT64_MAX, .visit = note_batch};
    struct journal_found found;

    seen = 0;
    cr_assert_eq(journal_scan(journal.pool.directory, &scan, &found), 0);
}

/* Batches in several files, none of them in a database. */
static void fill_journal(void)
{
    char name[32];

    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof(name), "input/m%d", i);
        fill(name, (unsigned)i, 20000);
        commit(0);
    }
    find_batches();
    cr_assert_geq(seen, 12);
    cr_assert_neq(batches[0].file, batches[seen - 1].file);
}

static void flip(uint32_t file, uint64_t offset)
{
    char byte;

    snprintf(path, sizeof(path), "%s/journal/%04u", fs->state, file);
    int fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

struct field {
    const char *name;
    uint64_t offset;
    const char *words;
};

/* A bit of each field of a batch in the middle: also where there is no memory to ask. */
Test(verify_journal, bits_of_a_batch)
{
    fill_journal();
    must_be_well("before");
    cr_assert_eq(verified.batches, seen);
    const struct journal_batch *batch = &batches[1];
    uint64_t payload = sizeof(struct batch_head), tail = payload + batch->size;
    const struct field fields[] = {
        {"magic", offsetof(struct batch_head, magic), "no head of a file or batch"},
        {"salt", offsetof(struct batch_head, salt), "a batch of an earlier use"},
        {"number", offsetof(struct batch_head, number), "the checksum of the head differs"},
        {"previous", offsetof(struct batch_head, previous), "the checksum of the head differs"},
        {"size", offsetof(struct batch_head, size), "the checksum of the head differs"},
        {"root", offsetof(struct batch_head, root), "the checksum of the head differs"},
        {"checksum of the head", offsetof(struct batch_head, crc), "the checksum of the head differs"},
        {"first record", payload, "the checksum of the batch's payload differs"},
        {"last byte", tail - 1, "the checksum of the batch's payload differs"},
        {"magic of the tail", tail + offsetof(struct batch_tail, magic), "the tail of the batch differs"},
        {"number of the tail", tail + offsetof(struct batch_tail, number), "the tail of the batch differs"},
        {"checksum of the payload", tail + offsetof(struct batch_tail, crc), "payload differs"},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        for (int memory = 0; memory < 2; memory++) {
            flip(batch->file, batch->offset + fields[i].offset);
            cr_expect_gt(verify(memory), 0, "%s: NOT FOUND", fields[i].name);
            cr_expect(told(fields[i].words) && told("is whole behind it") && told("batches are missing"), "%s: %s",
                      fields[i].name, said());
            flip(batch->file, batch->offset + fields[i].offset);
        }
        must_be_well(fields[i].name);
    }
}

/* The last batch: memory knows that it was durable; without memory a torn end may have been nobody's. */
Test(verify_journal, bits_of_the_last_batch)
{
    fill_journal();
    const struct journal_batch *batch = &batches[seen - 1];
    flip(batch->file, batch->offset);
    cr_assert_eq(verify(true), 1);
    cr_assert(told("was durable, and reading ends with batch"), "%s", said());
    cr_assert_eq(verify(false), 0, "%s", said()); /* a batch that was never written looks like that */
    flip(batch->file, batch->offset);
    flip(batch->file, batch->offset + sizeof(struct batch_head) + 40);
    cr_assert_eq(verify(true), 1);
    cr_assert(told("was durable, and reading ends with batch"), "%s", said());
    cr_assert_eq(verify(false), 1);
    cr_assert(told("A power cut leaves that"), "%s", said());
}

/* The head of a file. */
Test(verify_journal, bits_of_a_file)
{
    static const struct field fields[] = {
        {"magic", offsetof(struct journal_head, magic), "has no head that can be read"},
        {"first", offsetof(struct journal_head, first), "has no head that can be read"},
        {"follows", offsetof(struct journal_head, follows), "has no head that can be read"},
        {"salt", offsetof(struct journal_head, salt), "has no head that can be read"},
        {"checksum", offsetof(struct journal_head, crc), "has no head that can be read"},
    };

    fill_journal();
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        flip(batches[0].file, fields[i].offset);
        cr_expect_gt(verify(false), 0, "%s: NOT FOUND", fields[i].name);
        cr_expect(told(fields[i].words), "%s: %s", fields[i].name, said());
        flip(batches[0].file, fields[i].offset);
        must_be_well(fields[i].name);
    }
}

Test(verify_journal, files_of_the_journal)
{
    fill_journal();
    keep("well");
    uint32_t first = batches[0].file, last = batches[seen - 1].file, middle = last;
    for (size_t i = 0; i < seen && middle == last; i++)
        middle = batches[i].file != first ? batches[i].file : middle;
    cr_assert_neq(middle, last);

    in_state("rm $a", first, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("its first batches are missing"), "%s", said());
    restore("well");
    in_state("rm $a", middle, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("batches are missing in 1 place,"), "%s", said());
    restore("well");
    in_state("rm $a", last, 0);
    cr_assert_gt(verify(true), 0);
    cr_assert(told("was durable"), "%s", said());
    restore("well");
    in_state("truncate -s 9000 $a", middle, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("cut short: the file ends within a head or batch") || told("larger than its file"), "%s", said());
    restore("well");
    in_state("truncate -s 30 $a", middle, 0);
    cr_assert_gt(verify(false), 0);
    cr_assert(told("has no head that can be read"), "%s", said());
    restore("well");
    in_state("mv $a x; mv $b $a; mv x $b", first, middle); /* names mean nothing */
    must_be_well("swapped names");
    restore("well");
    in_state("rm -r journal", 0, 0);
    cr_assert_eq(verify(true), 1);
    cr_assert(told("neither a file nor the database has it"), "%s", said());
}

/* What is no journal file is not waited for, and a hole is not read through. */
Test(verify_journal, odd_files)
{
    static const char *const odd[] = {"mkfifo journal/0777", "mkdir journal/0777", "ln -s 0000 journal/0777",
                                      "python3 -c 'import socket; socket.socket(1).bind(\"journal/0777\")'"};

    fill_journal();
    keep("well");
    uint32_t last = batches[seen - 1].file;
    for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
        in_state(odd[i], 0, 0);
        cr_expect_eq(verify(true), 1);
        cr_expect(told("file 0777, 0 bytes, has no head that can be read: it is no regular file"), "%s: %s", odd[i],
                  said());
        restore("well");
    }
    flip(last, batches[seen - 1].offset);
    in_state("truncate -s 1T $a", last, 0);
    cr_assert_gt(verify(true), 0);
}

/* A journal that is there and can't be opened may hold mail. */
Test(verify_journal, no_directory)
{
    fill_journal();
    in_state("mv journal elsewhere; ln -s elsewhere journal", 0, 0);
    for (int memory = 0; memory < 2; memory++) {
        cr_assert_eq(verify(memory), 1);
        cr_assert(told("journal: it can't be opened"), "%s", said());
    }
}

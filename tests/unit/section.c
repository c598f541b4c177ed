/* SPDX-License-Identifier: MIT
 *
 * Sections: all or nothing, with bodies that fail, owners that die and undo logs that are damaged.
 */
#include "store/section.h"
#include "fastspool.h"
#include "fixture.h"
#include "store/change.h"
#include "store/history.h"
#include "store/layout.h"
#include "store/segment.h"
#include "store/store.h"
#include "store/table.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

/* The words that the sections change are no store. */
static void setup(void)
{
    fixture_setup();
    checking_every(0);
}

TestSuite(section, .init = setup, .fini = fixture_teardown);

/* A body that makes @changes changes, then dies or returns @result. */
struct ending {
    int changes;
    int result;
    bool dies;
};

static const uint64_t *word(int i)
{
    return (const uint64_t *)(fs->base + BUCKETS_AT) + i;
}

static int change_words(struct fastspool *store, void *argument)
{
    const struct ending *ending = argument;

    for (int i = 0; i < ending->changes; i++)
        SET(store, *word(i % 100), *word(i % 100) + 1);
    if (ending->dies)
        kill(getpid(), SIGKILL);
    return ending->result;
}

static void words_are(uint64_t value)
{
    for (int i = 0; i < 100; i++)
        cr_assert_eq(*word(i), value, "word %d is %llu", i, (unsigned long long)*word(i));
    cr_assert_eq(fs->header->section.undo_count, 0);
    cr_assert_eq(fs->header->section.sequence % 2, 0);
}

static void die_inside(int changes)
{
    struct ending ending = {changes, 0, true};
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        section_run(fs, change_words, &ending);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status));
}

static void memory_for_words(void)
{
    cr_assert_eq(table_grow(fs, TABLE_BUCKETS), 0);
}

/* A body that fails has changed nothing, even if it changed each word many times. */
Test(section, failing_body)
{
    memory_for_words();
    struct ending good = {100, 0, false}, bad = {1000, -EACCES, false};
    cr_assert_eq(section_run(fs, change_words, &good), 0);
    words_are(1);
    cr_assert_eq(section_run(fs, change_words, &bad), -EACCES);
    words_are(1);
}

/* @argument: the result. */
static int change_halves(struct fastspool *store, void *argument)
{
    const uint32_t *half = (const uint32_t *)word(0);

    SET_TWO(store, half[0], half[0] + 1, half[1], half[1] + 2);
    cr_assert_eq(store->header->section.undo_count, 1);
    return *(const int *)argument;
}

/* Two fields of a word change together, by one entry of the log, or not at all. */
Test(section, two_fields)
{
    const uint32_t *half = (const uint32_t *)word(0);
    int good = 0, bad = -EACCES;

    memory_for_words();
    cr_assert_eq(section_run(fs, change_halves, &good), 0);
    cr_assert(half[0] == 1 && half[1] == 2, "%u, %u", half[0], half[1]);
    cr_assert_eq(section_run(fs, change_halves, &bad), -EACCES);
    cr_assert(half[0] == 1 && half[1] == 2, "%u, %u", half[0], half[1]);
}

/* @argument: the result. */
static int change_several(struct fastspool *store, void *argument)
{
    const uint32_t *half = (const uint32_t *)word(3);

    SET_PAIR(store, *word(0), *word(1), *word(1), *word(0));
    cr_assert_eq(store->header->section.undo_count, 2);
    SET_FOUR(store, *word(2), 7, half[0], half[0] + 1, half[1], half[1] + 2, *word(1), *word(1) + 5);
    cr_assert_eq(store->header->section.undo_count, 6);
    return *(const int *)argument;
}

/* Several fields change at once, by the values that they had before, or not at all; two may share a word. */
Test(section, several_fields)
{
    const uint32_t *half = (const uint32_t *)word(3);
    int good = 0, bad = -EACCES;

    memory_for_words();
    WRITABLE(*word(0)) = 10;
    WRITABLE(*word(1)) = 20;
    cr_assert_eq(section_run(fs, change_several, &bad), -EACCES);
    cr_assert(*word(0) == 10 && *word(1) == 20 && *word(2) == 0 && *word(3) == 0);
    cr_assert_eq(section_run(fs, change_several, &good), 0);
    cr_assert(*word(0) == 20 && *word(1) == 15 && *word(2) == 7, "%u", (unsigned)*word(1));
    cr_assert(half[0] == 1 && half[1] == 2, "%u, %u", half[0], half[1]);
}

static int fill_log(struct fastspool *store, void *argument)
{
    (void)argument;
    for (int i = 0; i < (int)UNDO_MAX - 3; i++)
        SET(store, *word(0), *word(0) + 1);
    SET_FOUR(store, *word(1), 1, *word(2), 2, *word(3), 3, *word(4), 4);
    cr_assert_eq(store->header->section.undo_count, UNDO_MAX - 3);
    cr_assert(*word(1) == 0 && *word(2) == 0 && *word(3) == 0 && *word(4) == 0);
    return 0;
}

/* Where the log has no room for all of several fields, none of them changes, and the section fails. */
Test(section, no_room_for_several)
{
    memory_for_words();
    cr_assert_eq(section_run(fs, fill_log, NULL), -EIO);
    cr_assert_eq(*word(0), 0);
    cr_assert_eq(fs->header->state, SEGMENT_FAILED);
}

/* A change outside a section is a mistake in the code: the process aborts before the segment changes. */
Test(section, set_outside)
{
    uint64_t born = fs->header->tree.born;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        SET(fs, fs->header->tree.born, born + 1);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x", status);
    cr_assert_eq(fs->header->tree.born, born);
}

/* The next section rolls back what a killed process had begun, and goes on. */
Test(section, dead_owner)
{
    struct ending good = {100, 0, false};

    memory_for_words();
    die_inside(150);
    cr_assert_neq(fs->header->section.undo_count, 0);
    cr_assert_eq(section_run(fs, change_words, &good), 0);
    words_are(1);
}

/* A reader without the lock does not wait forever for the odd sequence count that a dead writer left. */
Test(section, reader_after_dead_owner)
{
    struct section_read read = SECTION_READ;
    int rounds = 0;

    memory_for_words();
    die_inside(100);
    do {
        section_read_begin(fs, &read);
        rounds++;
    } while (section_read_retry(fs, &read));
    words_are(0);
    cr_assert_leq(rounds, 100);
}

static int wants_once(struct fastspool *store, void *argument)
{
    int *runs = argument;

    SET(store, *word(0), *word(0) + 1);
    return ++*runs == 1 ? section_want(TABLE_NAMES) : 0;
}

/* A body that wants a larger table is rolled back, and runs again once the table has grown. */
Test(section, growing)
{
    int runs = 0;

    memory_for_words();
    uint32_t before = fs->header->tables.names.capacity;
    cr_assert_eq(change_run(fs, wants_once, &runs), 0);
    cr_assert_eq(runs, 2);
    cr_assert_eq(*word(0), 1);
    cr_assert_gt(fs->header->tables.names.capacity, before);
}

/* A section that does not fit the undo log changes nothing, and marks the segment failed.  Then calls give EIO. */
Test(section, log_full)
{
    struct ending large = {UNDO_MAX + 1, 0, false};
    struct stat st;

    memory_for_words();
    cr_assert_eq(section_run(fs, change_words, &large), -EIO);
    words_are(0);
    cr_assert_eq(fs->header->state, SEGMENT_FAILED);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), -EIO);
    cr_assert_eq(fastspool_stat(fs, "", &st), -EIO);
}

/* An undo log that leads out of the segment is not played back: the segment is marked failed. */
Test(section, damaged_log)
{
    struct ending good = {1, 0, false};

    memory_for_words();
    die_inside(10);
    WRITABLE(fs->header->undo[3].offset) = SEGMENT_SIZE + 8;
    cr_assert_eq(section_run(fs, change_words, &good), -EIO);
    cr_assert_eq(fs->header->state, SEGMENT_FAILED);
    cr_assert_eq(section_run(fs, change_words, &good), -EIO);
}

/* Two processes that count together lose no step while others are killed inside sections. */
Test(section, mutual_exclusion)
{
    enum { STEPS = 20000 };
    struct ending one = {100, 0, false};

    memory_for_words();
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < STEPS; i++)
            section_run(fs, change_words, &one);
        _exit(0);
    }
    for (int i = 0; i < STEPS; i++) {
        cr_assert_eq(section_run(fs, change_words, &one), 0);
        if (i % 400 == 0)
            die_inside(50);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    words_are(2 * STEPS);
}

/* In a damaged segment calls may fail, but neither crash nor hang: in 3,000 rounds a random word of the tables gets a
 * random value. */
Test(section, nonsense_everywhere, .timeout = 60)
{
    unsigned seed = 3;

    fastspool_mkdir(fs, "input", 0750);
    for (int i = 0; i < 20; i++) {
        char path[32];
        snprintf(path, sizeof(path), "input/%d", i);
        int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);
        fastspool_write(fs, d, path, sizeof(path));
    }
    for (int round = 0; round < 3000; round++) {
        static const uint64_t at[] = {INODES_AT,  NAMES_AT,  DESCRIPTIONS_AT,
                                      BUCKETS_AT, CHUNKS_AT, offsetof(struct header, tables.inodes)};
        char path[32];
        struct stat st;
        struct fastspool_entry entries[8];
        const uint32_t *words = (const uint32_t *)(fs->base + at[(size_t)rand_r(&seed) % 6]);
        WRITABLE(words[rand_r(&seed) % (round % 2 ? 24 : 1024)]) = (uint32_t)rand_r(&seed) << (rand_r(&seed) % 3);
        snprintf(path, sizeof(path), "input/%d", rand_r(&seed) % 20);
        STORE(fs->header->state, SEGMENT_READY); /* go on after damage was found */
        int d = fastspool_open(fs, path, O_RDWR, 0);
        fastspool_write(fs, d, path, sizeof(path));
        fastspool_pread(fs, d, path, 10, 5);
        fastspool_close(fs, d);
        fastspool_unlink(fs, path);
        fastspool_stat(fs, "input", &st);
        fastspool_rename(fs, "input/1", path, 0);
        d = fastspool_open(fs, "input", O_RDONLY | O_DIRECTORY, 0);
        fastspool_list(fs, d, 0, entries, 8);
        fastspool_close(fs, d);
    }
}

/* ---- the history ---- */

/* The last sections are told by the names of their bodies, also one that failed and one that was rolled back. */
Test(section, history)
{
    struct ending good = {100, 0, false}, bad = {10, -EACCES, false};
    struct history_line line;

    memory_for_words();
    section_run(fs, change_words, &bad);
    die_inside(50);
    section_run(fs, change_words, &good);
    cr_assert(history_read(fs->header, 0, &line));
    cr_assert_eq(line.kind, HISTORY_SECTION);
    cr_assert_str_eq(line.name, "change_words");
    cr_assert_eq(line.thread, (uint32_t)gettid());
    cr_assert_eq(line.result, 0);
    cr_assert(history_read(fs->header, 1, &line));
    cr_assert_eq(line.kind, HISTORY_ROLLBACK);
    cr_assert_eq(line.result, 50);
    cr_assert(history_read(fs->header, 2, &line));
    cr_assert_eq(line.result, -EACCES);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
    cr_assert(history_read(fs->header, 0, &line));
    cr_assert_str_eq(line.name, "mkdir_body");
}

/* It holds the last 256, and a reader bears whatever stands there. */
Test(section, history_is_a_ring)
{
    struct ending good = {1, 0, false};
    struct history_line line;
    uint32_t back = 0;

    memory_for_words();
    for (int i = 0; i < 1000; i++)
        section_run(fs, change_words, &good);
    while (history_read(fs->header, back, &line))
        back++;
    cr_assert_eq(back, HISTORY_MAX);
    memset(&WRITABLE(fs->header->history), 0x9b, sizeof(fs->header->history)); /* a terminal's control byte */
    WRITABLE(fs->header->history_count) = UINT64_MAX;
    cr_assert(history_read(fs->header, HISTORY_MAX - 1, &line));
    cr_assert_str_eq(line.name, "???????????????");
    cr_assert_str_eq(history_kind_name(line.kind), "nonsense");
    WRITABLE(fs->header->history_count) = 0;
    cr_assert_not(history_read(fs->header, 0, &line));
}

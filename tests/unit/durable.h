/* SPDX-License-Identifier: MIT
 *
 * A store with a journal and a database.  The test plays the mirror: put, commit, checkpoint.  A store can be dumped as
 * text, and compared with what a recovery after a reboot restores.
 */
#ifndef FASTSPOOL_DURABLE_H
#define FASTSPOOL_DURABLE_H

#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/checkpoint.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/recovery.h"
#include "paging.h"
#include "store/layout.h"
#include "store/segment.h"
#include "store/span.h"
#include "store/store.h"

#include <criterion/criterion.h>

#define JOURNAL_LIMIT (8 * JOURNAL_FILE_MIN)

static struct journal journal;
static char error[FASTSPOOL_ERROR_MAX];

static inline void durable_setup(void)
{
    fixture_setup();
    cr_assert_eq(journal_open(&journal, fs, JOURNAL_LIMIT, error), 0, "%s", error);
}

static inline void durable_teardown(void)
{
    journal_close(&journal);
    fixture_teardown();
}

static inline void put(const char *path, int flags, const char *bytes, size_t size, off_t offset)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT | flags, 0640);
    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    cr_assert_eq(fastspool_pwrite(fs, d, bytes, size, offset), (ssize_t)size);
    cr_assert_eq(fastspool_close(fs, d), 0);
}

static inline void commit(int result)
{
    struct capture capture;
    cr_assert_eq(capture_take(fs, &capture), 0);
    if (capture.count == 0)
        return;
    cr_assert_eq(journal_append(&journal, &capture, error), 0, "%s", error);
    cr_assert_eq(capture_end(fs, &capture, result, 1000), 0);
}

/* Uses the database of the running pager, if there is one. */
static inline void checkpoint(void)
{
    char path[FASTSPOOL_PATH_MAX + 16];
    struct shared_database own, *shared = paging ? &paging_database : &own;
    struct database *database;

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    if (shared == &own)
        shared_database_init(&own, path);
    cr_assert_eq(shared_database_enter(shared, &database, error), 0, "%s", error);
    cr_assert_eq(checkpoint_run(database, &journal, error), 0, "%s", error);
    shared_database_leave(shared, false);
    if (shared == &own)
        shared_database_end(&own);
}

/* ---- dumps: a store as text ---- */

static char *dump_at;

static inline void dump(struct fastspool *store, const char *path)
{
    static char content[8 << 20];
    struct stat st;

    cr_assert_eq(fastspool_stat(store, path, &st), 0);
    unsigned long sum = 0;
    if (S_ISREG(st.st_mode)) {
        int d = fastspool_open(store, path, O_RDONLY, 0);
        ssize_t size = fastspool_pread(store, d, content, sizeof(content), 0);
        cr_assert_eq(size, st.st_size);
        for (ssize_t i = 0; i < size; i++)
            sum = sum * 31 + (unsigned char)content[i];
        fastspool_close(store, d);
    }
    dump_at += sprintf(dump_at, "%s %o %u %u %lu %lld %lld.%09ld %lx\n", path, st.st_mode, st.st_uid, st.st_gid,
                       (unsigned long)st.st_nlink, (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                       st.st_mtim.tv_nsec, sum);
    if (S_ISDIR(st.st_mode)) {
        struct fastspool_entry entries[256];
        int d = fastspool_open(store, path, O_RDONLY | O_DIRECTORY, 0);
        ssize_t count = fastspool_list(store, d, 0, entries, 256);
        fastspool_close(store, d);
        cr_assert(count >= 0 && count < 256);
        /* Sort by name: a recovery does not keep the order of creation. */
        for (ssize_t i = 0; i < count; i++) {
            for (ssize_t j = i + 1; j < count; j++) {
                if (strcmp(entries[i].name, entries[j].name) > 0) {
                    struct fastspool_entry swapped = entries[i];
                    entries[i] = entries[j];
                    entries[j] = swapped;
                }
            }
            char below[600];
            snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name);
            dump(store, below);
        }
    }
}

static char now_dump[1 << 20];
static char then_dump[1 << 20] __attribute__((unused)); /* not every test compares */

static inline const char *dump_all(struct fastspool *store, char *into)
{
    dump_at = into;
    dump(store, "");
    return into;
}

/* A second, empty store of the same spool, as after a reboot.  recovery_run() fills it. */
static inline struct fastspool *second_store(void)
{
    struct fastspool_config config = {.memory = FIXTURE_MEMORY, .flush_interval = 1};
    struct fastspool *second = calloc(1, sizeof(*second));
    struct stat of_spool, of_runtime;

    strcpy(second->spool, fs->spool);
    strcpy(second->state, fs->state);
    snprintf(second->runtime, sizeof(second->runtime), "%s/second", fixture_directory);
    cr_assert_eq(mkdir(second->runtime, 0700), 0);
    second->spool_fd = dup(fs->spool_fd);
    second->runtime_fd = open(second->runtime, O_RDONLY | O_DIRECTORY);
    second->segment_fd = second->locks_fd = second->presence_fd = -1;
    cr_assert_eq(segment_create(second->runtime_fd, second->spool_fd, &config, error), 0, "%s", error);
    cr_assert(fstat(second->spool_fd, &of_spool) == 0 && fstat(second->runtime_fd, &of_runtime) == 0);
    cr_assert_eq(segment_open(second, &of_spool, &of_runtime, error), 0, "%s", error);
    return second;
}

static inline void remove_second(struct fastspool *second)
{
    char command[FASTSPOOL_PATH_MAX + 16];

    snprintf(command, sizeof(command), "rm -rf %s", second->runtime);
    fixture_detach(second);
    cr_assert_eq(system(command), 0);
}

/* A recovery after a reboot gives the dump @expected. */
static inline void recovers(const char *expected)
{
    struct fastspool *second = second_store();
    struct recovered recovered;

    cr_assert_eq(recovery_run(second, &recovered, error), 0, "%s", error);
    cr_assert_eq(recovered.missing, 0);
    STORE(second->header->state, SEGMENT_READY);
    paging_all(second);
    cr_assert_str_eq(dump_all(second, now_dump), expected);
    cr_assert_eq(second->header->tickets.dirty_files, 0);
    cr_assert_eq(second->header->tickets.dirty_bytes, 0);
    remove_second(second);
}

#endif

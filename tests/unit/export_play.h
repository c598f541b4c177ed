/* SPDX-License-Identifier: MIT
 *
 * The export, for its tests: its counted calls (moving.h), and messages in the store.
 */
#ifndef FASTSPOOL_EXPORT_PLAY_H
#define FASTSPOOL_EXPORT_PLAY_H

#include "moving.h"
#include "plain/disk.h"
#include "plain/import.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* ---- the calls of the export, counted ---- */

static int copy_error; /* of the next copy */

static inline int play_sync(int result)
{
    step();
    if (meddle)
        meddle();
    meddle = NULL;
    if (synced)
        synced();
    return result;
}

static inline int play_copy(int disk, const char *copied, const char *path)
{
    int error_now = copy_error;

    step();
    copy_error = 0;
    return error_now ? error_now : disk_make_copy(disk, copied, path);
}

#define export export_all
#define fastspool_mkdir(...)      (step(), fastspool_mkdir(__VA_ARGS__))
#define fastspool_rmdir(...)      (step(), fastspool_rmdir(__VA_ARGS__))
#define fastspool_open(...)       (step(), fastspool_open(__VA_ARGS__))
#define fastspool_pwrite(...)     (step(), fastspool_pwrite(__VA_ARGS__))
#define fastspool_rename(...)     (step(), fastspool_rename(__VA_ARGS__))
#define fastspool_unlink(...)     (step(), fastspool_unlink(__VA_ARGS__))
#define fastspool_flush(fs, time) ((void)(fs), (void)(time), play_flush())
#define disk_make_directory(...)  (step(), disk_make_directory(__VA_ARGS__))
#define disk_make_copy(...)       play_copy(__VA_ARGS__)
#define disk_remove_copy(...)     (step(), disk_remove_copy(__VA_ARGS__))
#define disk_make_mark(...)       (step(), disk_make_mark(__VA_ARGS__))
#define disk_remove_mark(...)     play_sync(disk_remove_mark(__VA_ARGS__))
#define disk_show_copy(...)       (step(), disk_show_copy(__VA_ARGS__))
#define disk_sync_around(...)     play_sync(disk_sync_around(__VA_ARGS__))
#define disk_dress(...)           (step(), disk_dress(__VA_ARGS__))
#define syncfs(...)               play_sync(syncfs(__VA_ARGS__))
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* fs */
#include "../../lib/plain/export.c"
#include "../../lib/plain/export_batch.c"
#include "../../lib/plain/export_copy.c"
#include "../../lib/plain/export_killed.c"
#include "../../lib/plain/export_walk.c"
#pragma GCC diagnostic pop
#undef export
#undef fastspool_mkdir
#undef fastspool_open
#undef fastspool_pwrite
#undef fastspool_rename
#undef fastspool_unlink

/* ---- the store ---- */

static struct export_result result_of;

static inline void store_directory(const char *path)
{
    int result = fastspool_mkdir(fs, path, 0750);

    cr_assert(result == 0 || result == -EEXIST);
    if (geteuid() == 0)
        fastspool_chown(fs, path, 107, 113);
}

/* A file whose content is its path. */
static inline void store_file(const char *path)
{
    struct timespec times[2] = {{1000, 1}, {2000 + (time_t)strlen(path), 2}};
    int d = fastspool_open(fs, path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    cr_assert_eq(fastspool_write(fs, d, path, strlen(path)), (ssize_t)strlen(path));
    cr_assert_eq(fastspool_fchmod(fs, d, strstr(path, "msglog") ? 0400 : 0640), 0);
    if (geteuid() == 0)
        cr_assert_eq(fastspool_fchown(fs, d, 107, 113), 0);
    cr_assert_eq(fastspool_futimens(fs, d, times), 0);
    fastspool_close(fs, d);
}

static inline void message(const char *directory, const char *split, const char *id)
{
    char path[PATH_MAX];

    for (int log = 0; log < 2; log++) {
        snprintf(path, sizeof(path), "%s%s", directory, log ? "msglog" : "input");
        store_directory(path);
        snprintf(path, sizeof(path), "%s%s/%s", directory, log ? "msglog" : "input", split);
        if (*split)
            store_directory(path);
    }
    snprintf(path, sizeof(path), "%sinput/%s%s-D", directory, split, id);
    store_file(path);
    snprintf(path, sizeof(path), "%sinput/%s%s-H", directory, split, id);
    store_file(path);
    snprintf(path, sizeof(path), "%smsglog/%s%s", directory, split, id);
    store_file(path);
}

/* ---- the disk ---- */

static inline void disk_file(const char *path, const char *content)
{
    int fd = open(on_disk(path), O_WRONLY | O_CREAT | O_TRUNC, 0640);

    cr_assert_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content), "%s", path);
    close(fd);
}

/* The disk has @path as store_file() made it, and the store has it no more. */
static inline void moved_whole(const char *path)
{
    char got[PATH_MAX];
    struct stat st;

    cr_assert_not(store_has(path), "%s is in the store", path);
    cr_assert_eq(lstat(on_disk(path), &st), 0, "%s is not on the disk", path);
    int fd = open(on_disk(path), O_RDONLY);
    cr_assert_eq(read(fd, got, sizeof(got)), (ssize_t)strlen(path), "%s", path);
    cr_assert_eq(memcmp(got, path, strlen(path)), 0);
    close(fd);
    cr_assert_eq(st.st_mode, S_IFREG | (strstr(path, "msglog") ? 0400 : 0640), "%s: %o", path, st.st_mode);
    cr_assert_eq(st.st_mtim.tv_sec, 2000 + (time_t)strlen(path));
    cr_assert_eq(st.st_mtim.tv_nsec, 2);
    if (geteuid() == 0)
        cr_assert(st.st_uid == 107 && st.st_gid == 113);
}

static inline void run_all(void)
{
    cr_assert_eq(export_run(fs, fs->spool_fd, NULL, &result_of), 0, "%s", result_of.error);
    cr_assert_not(store_has(PLACES_EXPORT));
}

static inline void counts(unsigned messages, unsigned files, unsigned locked, unsigned conflicts, unsigned left)
{
    cr_assert_eq(result_of.messages, messages, "%u messages", (unsigned)result_of.messages);
    cr_assert_eq(result_of.files, files, "%u files", (unsigned)result_of.files);
    cr_assert_eq(result_of.locked, locked, "%u locked", result_of.locked);
    cr_assert_eq(result_of.conflicts, conflicts, "%u conflicts", result_of.conflicts);
    cr_assert_eq(result_of.left, left, "%u left", result_of.left);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * The import, for its tests: its counted calls (moving.h), and messages on the disk.
 */
#ifndef FASTSPOOL_IMPORT_PLAY_H
#define FASTSPOOL_IMPORT_PLAY_H

#include "moving.h"
#include "plain/disk.h"
#include "spool/exim.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>

/* ---- the calls of the import, counted ---- */

static unsigned directory_fails;      /* the chown or chmod, of those to come, that fails; 0: none */
static int write_error, rename_error; /* of all writes, of the next rename */
static int rename_failed;
static unsigned lines; /* in syslog */
static char last_line[4096];
static int meddle_in;   /* writes */
static uint64_t waited; /* the clock of who waits for another process to close a file: a second a look */

static inline int play_write(void)
{
    step();
    if (meddle && --meddle_in == 0)
        meddle();
    return write_error;
}

static inline int play_rename(void)
{
    int error_now = rename_error;

    step();
    rename_error = 0;
    return error_now;
}

static inline int play_sync(int result)
{
    if (synced)
        synced();
    return result;
}

static inline void __attribute__((format(printf, 2, 3))) play_syslog(int priority, const char *line, ...)
{
    va_list arguments;

    (void)priority;
    va_start(arguments, line);
    vsnprintf(last_line, sizeof(last_line), line, arguments);
    va_end(arguments);
    lines++;
}

/* Does this chown or chmod fail? */
static inline bool play_directory(void)
{
    return directory_fails && --directory_fails == 0;
}

#define commit                  import_commit /* durable.h has another one */
#define fastspool_mkdir(...)    (step(), fastspool_mkdir(__VA_ARGS__))
#define fastspool_rmdir(...)    (step(), fastspool_rmdir(__VA_ARGS__))
#define fastspool_chown(...)    (play_directory() ? -EIO : fastspool_chown(__VA_ARGS__))
#define fastspool_chmod(...)    (play_directory() ? -EIO : fastspool_chmod(__VA_ARGS__))
#define fastspool_open(...)     (step(), fastspool_open(__VA_ARGS__))
#define fastspool_write(...)    (play_write() < 0 ? write_error : fastspool_write(__VA_ARGS__))
#define fastspool_futimens(...) (step(), fastspool_futimens(__VA_ARGS__))
#define fastspool_rename(...) \
    (rename_failed = play_rename(), rename_failed ? rename_failed : fastspool_rename(__VA_ARGS__))
#define fastspool_unlink(...)     (step(), fastspool_unlink(__VA_ARGS__))
#define fastspool_flush(fs, time) ((void)(fs), (void)(time), play_flush())
#define disk_lock(...)            (step(), disk_lock(__VA_ARGS__))
#define disk_take(...)            (step(), disk_take(__VA_ARGS__))
#define disk_give_back(...)       (step(), disk_give_back(__VA_ARGS__))
#define disk_remove_taken(...)    (step(), disk_remove_taken(__VA_ARGS__))
#define disk_make_mark(...)       (step(), disk_make_mark(__VA_ARGS__))
#define disk_remove_mark(...)     (step(), disk_remove_mark(__VA_ARGS__))
#define disk_is_alone(...)        (step(), disk_is_alone(__VA_ARGS__))
#define disk_unlink(...)          (step(), disk_unlink(__VA_ARGS__))
#define disk_sync_around(...)     (step(), play_sync(disk_sync_around(__VA_ARGS__)))
#define clock_monotonic()         (waited += NS_PER_S)
#define syslog(...)               play_syslog(__VA_ARGS__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* fs */
#include "../../lib/plain/import.c"
#include "../../lib/plain/import_copy.c"
#include "../../lib/plain/scan.c"
#include "../../lib/plain/staged.c"
#pragma GCC diagnostic pop
#undef commit
#undef clock_monotonic
#undef fastspool_mkdir
#undef fastspool_chown
#undef fastspool_chmod
#undef fastspool_open
#undef fastspool_write
#undef fastspool_unlink
#undef fastspool_rename

/* ---- the disk ---- */

static struct import_result result_of;

static inline void disk_directory(const char *path)
{
    cr_assert(mkdir(on_disk(path), 0750) == 0 || errno == EEXIST);
}

static inline void disk_file(const char *path, const char *content)
{
    struct timespec times[2] = {{1000, 1}, {2000 + (time_t)strlen(path), 2}};
    unlink(on_disk(path));
    int fd = open(on_disk(path), O_WRONLY | O_CREAT | O_EXCL, 0600);

    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    cr_assert_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    cr_assert_eq(fchmod(fd, strstr(path, "msglog") ? 0400 : 0640), 0);
    if (geteuid() == 0)
        cr_assert_eq(fchown(fd, 107, 113), 0);
    cr_assert_eq(futimens(fd, times), 0);
    close(fd);
}

static inline void message(const char *directory, const char *split, const char *id)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%sinput", directory);
    disk_directory(path);
    snprintf(path, sizeof(path), "%sinput/%s", directory, split);
    disk_directory(path);
    snprintf(path, sizeof(path), "%smsglog", directory);
    disk_directory(path);
    snprintf(path, sizeof(path), "%smsglog/%s", directory, split);
    disk_directory(path);
    snprintf(path, sizeof(path), "%sinput/%s%s-D", directory, split, id);
    disk_file(path, path);
    snprintf(path, sizeof(path), "%sinput/%s%s-H", directory, split, id);
    disk_file(path, path);
    snprintf(path, sizeof(path), "%smsglog/%s%s", directory, split, id);
    disk_file(path, path);
}

/* ---- the store ---- */

/* The store has @path as disk_file() made it with its path as the content, and the disk has it no more. */
static inline void moved_as(const char *path, const char *content)
{
    char got[PATH_MAX];
    struct stat st;

    cr_assert_not(disk_has(path), "%s is on the disk", path);
    cr_assert_eq(fastspool_stat(fs, path, &st), 0, "%s is not in the store", path);
    int d = fastspool_open(fs, path, O_RDONLY, 0);
    cr_assert_eq(fastspool_read(fs, d, got, sizeof(got)), (ssize_t)strlen(content), "%s", path);
    cr_assert_eq(memcmp(got, content, strlen(content)), 0);
    fastspool_close(fs, d);
    cr_assert_eq(st.st_mode, S_IFREG | (strstr(path, "msglog") ? 0400 : 0640), "%s: %o", path, st.st_mode);
    cr_assert_eq(st.st_mtim.tv_sec, 2000 + (time_t)strlen(path));
    cr_assert_eq(st.st_mtim.tv_nsec, 2);
    if (geteuid() == 0)
        cr_assert(st.st_uid == 107 && st.st_gid == 113);
}

static inline void moved_whole(const char *path)
{
    moved_as(path, path);
}

static inline void run_all(void)
{
    cr_assert_eq(import_run(fs, fs->spool_fd, false, &result_of), 0, "%s", result_of.error);
    cr_assert_not(store_has(PLACES_IMPORT));
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

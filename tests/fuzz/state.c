/* SPDX-License-Identifier: MIT
 *
 * The fuzzer of the state directory: a journal and a database that a real store has written, damaged; recovery,
 * `verify` and `dump` meet that.
 *
 *     state [--seed N] [--count N] [--seconds N]
 *
 * The happy path, for each seed:
 *   1. The files of the state directory become what they were at first.
 *   2. Some bytes of them are damaged; or values of the database are, by LMDB, so that its pages are whole.
 *   3. A child recovers a store from them, and uses it; another one verifies and dumps them.
 *
 * Failure modes: see watch.h.  A damaged page can kill whoever reads it, inside LMDB.  The mirror makes that a sentence
 * (process.c), so here it is an exit status; a signal anywhere else is a finding.
 */
#include "base/clock.h"
#include "base/findings.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/checkpoint.h"
#include "mirror/database.h"
#include "mirror/dump.h"
#include "mirror/format.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/recovery.h"
#include "mirror/verify.h"
#include "mutate.h"
#include "scene.h"
#include "store/check.h"
#include "watch.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

#define FILES 40

static char error[FASTSPOOL_ERROR_MAX];
static FILE *nowhere;

/* ---- the scene ---- */

static void put(const char *path, size_t size)
{
    static char bytes[300000];

    scene_put(path, bytes, size);
}

static void put_some(struct journal *journal, int from)
{
    char path[PATH_MAX];

    for (int i = from; i < from + FILES; i++) {
        snprintf(path, sizeof(path), "input/1abcde-%06d-AB-%c", i, i % 2 ? 'H' : 'D');
        put(path, (size_t)(i % 7) * 3000);
        if (i % 5 == 0)
            scene_commit(journal);
    }
    snprintf(path, sizeof(path), "input/1abcde-%06d-AB-D", from);
    must(fastspool_unlink(fs, path), path);
    scene_commit(journal);
}

static void make_scene(void)
{
    static struct journal journal;
    struct database database;
    char path[PATH_MAX];

    must(fastspool_mkdir(fs, "input", 0750), "input");
    must(journal_open(&journal, fs, 8 * JOURNAL_FILE_MIN, error), error);
    put("input/large", 300000);
    put_some(&journal, 0);
    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    must(database_open(&database, path, error), error);
    must(checkpoint_run(&database, &journal, error), error);
    database_close(&database);
    put_some(&journal, 1000);
    journal_close(&journal);
}

/* ---- its files ---- */

static struct file {
    char path[PATH_MAX];
    char *bytes;
    size_t size;
} files[16];
static size_t file_count;

static void remember(const char *directory)
{
    char path[FASTSPOOL_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", fs->state, directory);
    DIR *listing = opendir(path);

    for (const struct dirent *entry; listing && (entry = readdir(listing)) != NULL;) {
        struct stat st;
        struct file *file = &files[file_count];
        snprintf(file->path, sizeof(file->path), "%s/%s", path, entry->d_name);
        if (stat(file->path, &st) < 0 || !S_ISREG(st.st_mode) || strcmp(entry->d_name, "lock.mdb") == 0)
            continue;
        file->size = (size_t)st.st_size;
        file->bytes = malloc(file->size + 1);
        int fd = open(file->path, O_RDONLY);
        must(read(fd, file->bytes, file->size), file->path);
        close(fd);
        file_count++;
    }
    if (listing)
        closedir(listing);
}

static void write_file(const struct file *file, struct dice *dice)
{
    char *bytes = malloc(file->size + 1);
    size_t size = file->size;

    memcpy(bytes, file->bytes, size);
    for (uint64_t hits = dice ? 1 + dice_below(dice, 5) : 0; hits > 0; hits--)
        size = mutate_bytes(bytes, size, dice);
    unlink(file->path);
    int fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd < 0 ? -errno : write(fd, bytes, size), file->path);
    close(fd);
    free(bytes);
}

/* The values of one table, one in four of them damaged. */
static void damage_table(MDB_txn *transaction, MDB_dbi table, struct dice *dice)
{
    MDB_cursor *cursor;
    MDB_val key, value;

    if (mdb_cursor_open(transaction, table, &cursor) != 0)
        return;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        char bytes[8192];
        if (value.mv_size > sizeof(bytes) || dice_below(dice, 4))
            continue;
        memcpy(bytes, value.mv_data, value.mv_size);
        MDB_val damaged = {mutate_bytes(bytes, value.mv_size, dice), bytes};
        if (value.mv_size >= 80 && dice_below(dice, 2)) /* the name */
            memcpy(bytes + value.mv_size - 8, dice_below(dice, 2) ? "/../../x" : "\033[2J\0..", 8);
        mdb_cursor_put(cursor, &key, &damaged, MDB_CURRENT);
    }
    mdb_cursor_close(cursor);
}

static void damage_values(struct dice *dice)
{
    struct database database;
    MDB_txn *transaction;
    struct disk_meta meta;
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    must(database_open(&database, path, error), error);
    must(database_begin(&database, &transaction, &meta, error), error);
    damage_table(transaction, dice_below(dice, 3) ? database.inodes : database.data, dice);
    mdb_txn_commit(transaction);
    database_close(&database);
}

static void damage(struct dice *dice)
{
    size_t victim = dice_below(dice, file_count);
    bool values = dice_below(dice, 3) == 0;

    for (size_t i = 0; i < file_count; i++)
        write_file(&files[i], !values && i == victim ? dice : NULL);
    if (values)
        damage_values(dice);
}

/* ---- what children do ---- */

/* Who has been hit: LMDB, or something that it called? */
static void on_fault(int signal_number)
{
    void *frames[32];
    int count = backtrace(frames, 32);
    Dl_info info;

    for (int i = 2; i < count; i++) { /* behind this function and the signal's frame */
        if (!dladdr(frames[i], &info) || strstr(info.dli_fname, "libc.so"))
            continue;
        if (strstr(info.dli_fname, "liblmdb"))
            _exit(WATCH_TOLD);
        break;
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void list_all(const char *path, int *visits)
{
    struct fastspool_entry entries[16];
    uint64_t after = 0;
    ssize_t count;
    int d = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);

    while (d >= 0 && (count = fastspool_list(fs, d, after, entries, 16)) > 0 && (*visits)++ < 1000) {
        for (ssize_t i = 0; i < count; i++) {
            char below[PATH_MAX];
            struct stat st;
            if (strchr(entries[i].name, '/') || strcmp(entries[i].name, "..") == 0)
                _exit(3);
            if ((size_t)snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entries[i].name) <
                sizeof(below)) {
                fastspool_stat(fs, below, &st);
                if (entries[i].type == DT_DIR)
                    list_all(below, visits);
            }
        }
        after = entries[count - 1].position;
    }
}

static void recover(void)
{
    struct recovered recovered;
    struct findings *findings = findings_new(50);
    int visits = 0, result = recovery_run(fs, &recovered, error);

    if (result < 0 && strlen(error) < 10) {
        printf("recovery fails without a sentence: %s\n", error);
        _exit(4);
    }
    if (result == 0) {
        STORE(fs->header->state, SEGMENT_READY);
        if (check_segment(fs, findings) > 0) {
            printf("recovery makes a store that is not well: %s\n", findings->sentence[0]);
            _exit(5);
        }
        list_all("", &visits);
    }
    fflush(NULL);
    _exit(0);
}

/* Both read the database in a child of their own.  One that dies in LMDB ends by itself (on_fault()); by a signal it
 * has died elsewhere. */
static void look(void)
{
    struct findings *findings = findings_new(50);
    struct verified verified;
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    verify_disk(fs->state, NULL, NULL, &verified, findings);
    dump_journal(fs->state, true, nowhere);
    dump_database(fs->state, true, out);
    for (uint32_t i = 0; i < findings_kept(findings); i++)
        fprintf(out, "%s\n", findings->sentence[i]);
    fclose(out);
    char *dies = strstr(text, "whoever reads it dies");
    if (dies && !strstr(dies, "(by itself)")) {
        printf("%.100s\n", dies);
        _exit(6);
    }
    fflush(NULL);
    _exit(0);
}

static void run(struct watch *watch, uint64_t seed)
{
    struct dice dice = {seed};

    damage(&dice);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, on_fault);
        signal(SIGBUS, on_fault);
        signal(SIGABRT, on_fault);
        if (seed % 2)
            recover();
        else
            look();
    }
    watch_child(watch, child, seed);
}

int main(int argc, char **argv)
{
    struct watch watch = {.what = "state"};
    void *frame;

    watch_options(&watch, argc, argv);
    backtrace(&frame, 1); /* loads what it needs, before a signal needs it */
    nowhere = fopen("/dev/null", "w");
    fixture_setup();
    checking_every(0);
    make_scene();
    remember("journal");
    remember("mirror");
    for (uint64_t seed; watch_next(&watch, &seed);)
        run(&watch, seed);
    fixture_teardown();
    return watch_end(&watch);
}

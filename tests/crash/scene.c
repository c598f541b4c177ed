/* SPDX-License-Identifier: MIT
 *
 * The scene: what an operation finds in the store.
 *
 * The happy path: the same files each time: an empty one, small and big ones, one with two names, directories, and if
 * needed a huge file and a queue.  All have times long ago.  If the operation needs it, they are in a real database, or
 * a commit has begun.
 *
 * Failure modes: a scene that can't be set proves nothing, so the program names the call that failed and aborts.
 */
#include "scene.h"

#include "fastspool.h"
#include "mirror/capture.h"
#include "mirror/checkpoint.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BIG_SIZE 25000 /* has an index block */

char scene_bytes[HUGE_SIZE];
static struct capture captured; /* by the running commit */

void scene_fill_bytes(void)
{
    for (size_t i = 0; i < sizeof(scene_bytes); i++)
        scene_bytes[i] = (char)(i * 31 + i / 251);
}

void scene_must(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "steps: the scene: %s: %s\n", what, strerrordesc_np((int)-result));
        abort();
    }
}

void scene_put(struct fastspool *fs, const char *path, size_t size)
{
    int d = fastspool_open(fs, path, O_WRONLY | O_CREAT | O_EXCL, 0640);

    scene_must(d, path);
    scene_must(fastspool_write(fs, d, scene_bytes, size), path);
    scene_must(fastspool_close(fs, d), path);
}

void scene_date(struct fastspool *fs, const char *path)
{
    static const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    scene_must(fastspool_utimens(fs, path, old), path);
}

static void set_tree(struct fastspool *fs, unsigned needs)
{
    static const char *const queue[] = {"t/full/1-H", "t/full/2-H", "t/full/3-H", "t/full/4-H", "t/full/5-H"};
    static const char *const all[] = {"t/empty", "t/small",  "t/file", "t/big", "t/linked",
                                      "t/dir",   "t/full/x", "t/full", "t"};

    scene_must(fastspool_mkdir(fs, "t", 0750), "t");
    scene_put(fs, "t/empty", 0);
    scene_put(fs, "t/small", 10);
    scene_put(fs, "t/file", FILE_SIZE);
    scene_put(fs, "t/big", BIG_SIZE);
    scene_must(fastspool_link(fs, "t/file", "t/linked"), "t/linked");
    scene_must(fastspool_mkdir(fs, "t/dir", 0750), "t/dir");
    scene_must(fastspool_mkdir(fs, "t/full", 0750), "t/full");
    scene_put(fs, "t/full/x", 100);
    if (needs & HUGE) {
        scene_put(fs, "t/huge", HUGE_SIZE);
        scene_date(fs, "t/huge");
    }
    for (size_t i = 0; (needs & QUEUE) && i < sizeof(queue) / sizeof(queue[0]); i++) {
        scene_put(fs, queue[i], 100);
        scene_date(fs, queue[i]);
    }
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        scene_date(fs, all[i]);
}

/* Write all of the store to the database. */
static void checkpoint(struct fastspool *fs)
{
    static struct journal journal;
    struct capture all;
    struct database database;
    char path[FASTSPOOL_PATH_MAX + 16], why[FASTSPOOL_ERROR_MAX];

    snprintf(path, sizeof(path), "%s/mirror", fs->state);
    scene_must(journal_open(&journal, fs, JOURNAL_BYTES / 64, why), why);
    scene_must(capture_take(fs, &all), "capture");
    scene_must(journal_append(&journal, &all, why), why);
    scene_must(capture_end(fs, &all, 0, 1), "end the commit");
    scene_must(database_open(&database, path, why), why);
    scene_must(checkpoint_run(&database, &journal, why), why);
    database_close(&database);
    journal_close(&journal);
}

void scene_set(struct fastspool *fs, unsigned needs)
{
    if (needs & FRESH) {
        scene_must(fastspool_mkdir(fs, "t", 0750), "t");
        scene_date(fs, "t");
        return;
    }
    if ((needs & EVICT) && mkdir(fs->state, 0700) < 0 && errno != EEXIST)
        scene_must(-errno, fs->state);
    set_tree(fs, needs);
    if (needs & EVICT)
        checkpoint(fs);
    if (needs & COMMIT)
        scene_must(capture_take(fs, &captured), "capture");
}

int scene_end_commit(struct fastspool *fs)
{
    return capture_end(fs, &captured, 0, 1);
}

int scene_remove(struct fastspool *fs, const char *path)
{
    struct fastspool_entry entry;
    int d = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);
    int result = d;

    while (d >= 0 && (result = (int)fastspool_list(fs, d, 0, &entry, 1)) > 0) {
        char below[512];
        snprintf(below, sizeof(below), "%.200s/%s", path, entry.name);
        result = entry.type == 4 ? scene_remove(fs, below) : fastspool_unlink(fs, below);
        if (result < 0)
            break;
    }
    if (d >= 0)
        fastspool_close(fs, d);
    return result < 0 ? result : fastspool_rmdir(fs, path);
}

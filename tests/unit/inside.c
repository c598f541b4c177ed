/* SPDX-License-Identifier: MIT
 *
 * What the preloaded library uses of the store.
 */
#include "store/inside.h"
#include "base/atomic.h"
#include "fastspool.h"
#include "fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>

TestSuite(inside, .init = fixture_setup, .fini = fixture_teardown);

/* A description of @path; the program would get a duplicate of the placeholder. */
static uint32_t open_path(const char *path, int flags, int *placeholder)
{
    int fresh, description = inside_open(fs, path, flags, 0640, placeholder, &fresh);

    close(fresh);
    cr_assert_gt(description, 0, "%s: %s", path, strerror(-description));
    return (uint32_t)description;
}

Test(inside, descriptions)
{
    char bytes[8];
    int placeholder, fresh;
    uint32_t d = open_path("f", O_WRONLY | O_CREAT, &placeholder);

    cr_assert_eq(inside_identify(fs, placeholder), d);
    cr_assert_eq(inside_next_own(fs, (unsigned)placeholder, UINT_MAX), (unsigned)placeholder);
    cr_assert_eq(fastspool_write(fs, (int)d, "content", 7), 7);
    cr_assert_eq(inside_offset(fs, d), 7);
    cr_assert_eq(inside_read(fs, d, bytes, sizeof(bytes), 3), 4, "open for writing alone, and read all the same");
    cr_assert_eq(memcmp(bytes, "tent", 4), 0);
    cr_assert_eq(inside_spill(fs, d), -ENOENT);
    cr_assert_eq(inside_change_flags(fs, d, O_APPEND | O_NONBLOCK, O_APPEND) & (O_ACCMODE | O_APPEND), O_WRONLY);
    cr_assert_eq(inside_flags(fs, d) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_WRONLY | O_APPEND);
    cr_assert_eq(inside_change_flags(fs, d, O_APPEND, O_NONBLOCK) & O_APPEND, O_APPEND);
    cr_assert_eq(inside_flags(fs, d) & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_WRONLY);
    cr_assert_eq(inside_close(fs, d), 0);
    cr_assert_eq(inside_open(fs, "nothing", O_RDONLY, 0, &placeholder, &fresh), -ENOENT);
}

/* ---- paths ---- */

#define LONG   "input/a-directory-with-a-long-name"
#define SHORT  "input/d"
#define ROUNDS 50000

static uint32_t rounds; /* that the other thread has done */

static void *rename_to_and_fro(void *argument)
{
    int result = 0;

    for (uint32_t i = 1; i <= ROUNDS && result == 0; i++) {
        result = fastspool_rename(fs, LONG, SHORT, 0);
        if (result == 0)
            result = fastspool_rename(fs, SHORT, LONG, 0);
        STORE(rounds, i);
    }
    STORE(rounds, ROUNDS);
    return result == 0 ? argument : (void *)1;
}

/* A directory that is renamed meanwhile has the old path or the new one. */
Test(inside, path_of_a_directory_that_moves, .timeout = 60)
{
    char path[PATH_MAX];
    int placeholder, length = 0;
    unsigned wrong = 0;
    pthread_t thread;
    void *failed;

    checking_every(100);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
    cr_assert_eq(fastspool_mkdir(fs, LONG, 0750), 0);
    uint32_t d = open_path(LONG, O_RDONLY | O_DIRECTORY, &placeholder);
    pthread_create(&thread, NULL, rename_to_and_fro, NULL);
    while (LOAD(rounds) < ROUNDS && wrong == 0) {
        length = inside_path(fs, d, path, sizeof(path));
        wrong += length < 0 || (strcmp(path, LONG) != 0 && strcmp(path, SHORT) != 0);
    }
    pthread_join(thread, &failed);
    cr_assert_null(failed);
    cr_assert_eq(wrong, 0, "%d: %s", length, length < 0 ? strerror(-length) : path);
    cr_assert_eq(fastspool_rmdir(fs, LONG), 0);
    cr_assert_eq(inside_path(fs, d, path, sizeof(path)), -ENOENT);
    cr_assert_eq(inside_close(fs, d), 0);
}
